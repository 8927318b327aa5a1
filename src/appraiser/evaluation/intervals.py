"""Are price intervals right, and how narrow? And what would it buy to answer only where the model is sure?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from appraiser.evaluation.metrics import Score, score


def interval_coverage(intervals: Sequence[tuple[float, float] | None], true: Sequence[float]) -> Score:
    """Share of true prices inside their interval; a missing interval covers nothing."""
    return score([i is not None and i[0] <= t <= i[1] for i, t in zip(intervals, true, strict=True)])


def interval_width(intervals: Sequence[tuple[float, float] | None]) -> Score | None:
    """Median of high / low; None without intervals."""
    widths = np.array([high / low for low, high in filter(None, intervals)])
    return score(widths, np.median) if len(widths) else None


def risk_coverage(
    errors: NDArray[np.float64], uncertainty: NDArray[np.float64], steps: int = 20
) -> list[dict[str, float]]:
    """Median error of the surest products, for growing shares of them: what abstaining on the others would buy.

    Args:
        errors: [n] price errors.
        uncertainty: [n]; higher is less sure. Infinite: no answer.

    Returns:
        `share` of products answered, their `median_ape`, and the highest uncertainty among them, as `spread`; without
        the latter where one of them has no answer.
    """
    order = np.argsort(uncertainty, kind="stable")
    points = []
    for step in range(1, steps + 1):
        count = max(1, round(len(order) * step / steps))
        chosen = order[:count]
        point = {"share": count / len(order), "median_ape": float(np.median(errors[chosen]))}
        spread = float(uncertainty[chosen[-1]])
        points.append(point | ({"spread": spread} if math.isfinite(spread) else {}))
    return points
