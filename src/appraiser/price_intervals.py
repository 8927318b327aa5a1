"""Price intervals that keep their promise: split-conformal bounds, wider where the model itself is less sure.

The score of a calibration product is |ln(predicted / true)|, divided by the spread of the model's own price
distribution where that makes intervals narrower. Its quantile, with the finite-sample correction, bounds the scores of
new products of the same kind in at least the promised share of cases.
Source: Lei et al., Distribution-free predictive inference for regression, arXiv:1604.04173 (5.2 for the division).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

PERCENTS = (80, 90)
MIN_SPREAD = 0.03
"""Of ln price: a model that is surer than this is no better for it, and 0 would promise a point."""
NO_SPREAD = 1.0
"""Of ln price, for a price without a distribution."""
NUM_SPREADS = 20


class PriceIntervals(BaseModel):
    """What calibration found; part of `appraiser.json`.

    Args:
        bounds: percent -> bound of the score.
        scaled: whether scores are divided by the spread of each price's distribution.
        spreads: quantiles of the calibration products' spreads, at 1/20, 2/20, ..., 1: how unsure is usual.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bounds: dict[int, float]
    scaled: bool
    spreads: tuple[float, ...]

    def around(self, price: float, spread: float | None, percent: int) -> tuple[float, float] | None:
        """(low, high) that holds the true price in at least `percent` of cases; None where too few calibrated it."""
        bound = self.bounds.get(percent)
        if bound is None:
            return None
        factor = math.exp(bound * (_scale(spread) if self.scaled else 1.0))
        return price / factor, price * factor

    def surest(self, share: float) -> float:
        """The spread that this share of usual products does not exceed."""
        return self.spreads[min(len(self.spreads), max(1, round(share * len(self.spreads)))) - 1]


def _scale(spread: float | None) -> float:
    return NO_SPREAD if spread is None else max(spread, MIN_SPREAD)


def log_errors(predicted: Sequence[float | None], true: Sequence[float]) -> list[float]:
    """|ln(predicted / true)| of every row; infinite where there is no price."""
    return [abs(math.log(p / t)) if p else math.inf for p, t in zip(predicted, true, strict=True)]


def narrower_when_scaled(errors: Sequence[float], spreads: Sequence[float | None]) -> bool:
    """Whether 80 % intervals of these rows are narrower on average, in ln price, when spreads scale them."""
    scales = [_scale(spread) for spread in spreads]
    plain = conformal_quantile(errors, 0.8)
    scaled = conformal_quantile([error / scale for error, scale in zip(errors, scales, strict=True)], 0.8)
    return plain is not None and scaled is not None and scaled * float(np.mean(scales)) < plain


def calibrate(errors: Sequence[float], spreads: Sequence[float | None], *, scaled: bool) -> PriceIntervals | None:
    """Bounds from calibration products, which neither training nor any choice has seen; None if too few are readable.

    Args:
        errors: `log_errors` of the predicted prices.
        spreads: of their distributions.
    """
    scales = [_scale(spread) for spread in spreads]
    scores = [error / scale if scaled else error for error, scale in zip(errors, scales, strict=True)]
    found = {percent: conformal_quantile(scores, percent / 100) for percent in PERCENTS}
    bounds = {percent: bound for percent, bound in found.items() if bound is not None and math.isfinite(bound)}
    if not bounds:
        return None
    quantiles = np.quantile(scales, np.arange(1, NUM_SPREADS + 1) / NUM_SPREADS)
    return PriceIntervals(bounds=bounds, scaled=scaled, spreads=tuple(float(spread) for spread in quantiles))


def conformal_quantile(scores: Sequence[float], coverage: float) -> float | None:
    """The ceil((n + 1) * coverage)-th smallest score; None if there are too few."""
    ordered = sorted(scores)
    rank = math.ceil((len(ordered) + 1) * coverage)
    return ordered[rank - 1] if 0 < rank <= len(ordered) else None
