"""Conformal intervals hold what they promise, scaled by the model's own doubts or not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appraiser.price_intervals import (
    PriceIntervals,
    calibrate,
    conformal_quantile,
    log_errors,
    narrower_when_scaled,
)


@given(st.lists(st.floats(0, 10), min_size=5, max_size=60))
def test_the_quantile_covers_its_share(scores: list[float]) -> None:
    bound = conformal_quantile(scores, 0.8)
    assert bound is not None
    assert sum(score <= bound for score in scores) >= math.ceil((len(scores) + 1) * 0.8)


def test_too_few_rows_give_no_bound() -> None:
    assert conformal_quantile([0.1, 0.2, 0.3], 0.8) is None
    assert conformal_quantile([], 0.8) is None
    assert calibrate([0.1] * 3, [None] * 3, scaled=False) is None


@pytest.mark.parametrize("scaled", [False, True])
def test_new_products_are_covered_as_promised(scaled: bool) -> None:
    """Exchangeable products: the promise holds on average over calibrations, and 200 of them tell it to a percent."""
    rng = np.random.default_rng(0)
    inside = {80: 0, 90: 0}
    for _ in range(200):
        spreads = rng.uniform(0.05, 0.4, 300)
        errors = np.abs(rng.normal(0, spreads))
        found = calibrate(errors[:150].tolist(), spreads[:150].tolist(), scaled=scaled)
        assert found is not None
        for percent, count in inside.items():
            for error, spread in zip(errors[150:200], spreads[150:200], strict=True):
                interval = found.around(100.0, spread, percent)
                assert interval is not None
                count += interval[0] <= 100.0 * math.exp(error) <= interval[1]
            inside[percent] = count
    assert inside[80] / 10_000 == pytest.approx(0.80, abs=0.02)
    assert inside[90] / 10_000 == pytest.approx(0.90, abs=0.02)


def test_scaling_is_chosen_where_doubts_tell_errors() -> None:
    rng = np.random.default_rng(1)
    spreads = np.exp(rng.uniform(-3, 0, 300))
    assert narrower_when_scaled(np.abs(rng.normal(0, spreads)).tolist(), spreads.tolist())
    assert not narrower_when_scaled(np.abs(rng.normal(0, 0.2, 300)).tolist(), spreads.tolist())


def test_unreadable_prices_count_as_infinitely_wrong() -> None:
    errors = log_errors([None, 100.0, 0.0], [10.0, 100.0, 5.0])
    assert errors[0] == errors[2] == math.inf
    assert errors[1] == 0.0
    assert calibrate([math.inf] * 50, [None] * 50, scaled=False) is None


def test_how_sure_is_usual() -> None:
    intervals = PriceIntervals(bounds={80: 0.2}, scaled=False, spreads=tuple(n / 20 for n in range(1, 21)))
    assert intervals.surest(0.5) == 0.5
    assert intervals.surest(1.0) == 1.0
    assert intervals.around(100.0, None, 90) is None
