"""Does a model understand what visible features do to a price? Twins differ in one; its price has to move as theirs.

Recognising kinds of products and knowing their usual prices gives good prices, and no movement at all between twins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from appraiser.evaluation.metrics import Floats, bootstrap, score

MIN_CHANGE = 0.15
"""Of ln price: smaller true changes are lost in what a price is rounded to, and are not scored."""


def reasoning_scores(
    attributes: Sequence[str], predicted: Sequence[float | None], true: Sequence[float]
) -> dict[str, Any]:
    """Compare predicted with true changes of ln price over pairs.

    sign_accuracy: share of pairs whose price moves the right way; one that does not move counts half, which is chance.
    slope: of predicted on true changes, through the origin: 1 moves as far as the truth, 0 not at all.

    Args:
        predicted: change of each pair; None where a price could not be read, which counts as wrong, and as no movement.
    """
    t = np.asarray(true, dtype=np.float64)
    moved = np.array([0.0 if change is None else change for change in predicted])
    right = np.where(moved == 0, 0.5, np.sign(moved) == np.sign(t))
    right[[change is None for change in predicted]] = 0.0
    large = np.abs(t) >= MIN_CHANGE
    if not large.any():
        return {}
    names = np.asarray(attributes)
    return (
        {"n": int(large.sum()), "n_too_small": int((~large).sum())}
        | _scores(moved[large], t[large], right[large])
        | {
            "by_attribute": {
                str(name): {"n": int(rows.sum())} | _scores(moved[rows], t[rows], right[rows])
                for name in sorted(set(names[large]))
                if (rows := large & (names == name)).any()
            }
        }
    )


def _scores(moved: Floats, true: Floats, right: Floats) -> dict[str, Any]:
    return {"sign_accuracy": score(right), "slope": bootstrap(float(_slope(moved, true, 0)), [moved, true], _slope)}


def _slope(moved: Floats, true: Floats, axis: int) -> Floats:
    return (moved * true).sum(axis=axis) / (true**2).sum(axis=axis)
