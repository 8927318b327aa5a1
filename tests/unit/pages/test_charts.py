"""Ticks of logarithmic axes: round, apart, and on the axis."""

import math
from itertools import pairwise

import pytest

from appraiser.pages.charts import MIN_TICK_GAP, log_ticks, range_rows


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (8, 104, [10, 20, 50, 100]),
        (18, 4000, [30, 100, 300, 1000, 3000]),
        (8, 99_000, [10, 100, 1000, 10_000]),
        (0.4, 3.1, [0.5, 1, 2]),
        (22, 48, [25, 30, 35, 40, 45]),
        (50, 50, [50]),
    ],
)
def test_ticks_are_round_numbers_between_the_ends(low, high, ticks):
    assert log_ticks(low, high) == ticks


@pytest.mark.parametrize("width", [0.3, 0.6, 1, 1.5, 2.2, 3, 4, 6, 8, 12])
def test_labels_have_room_and_there_are_enough(width):
    for place in range(100):
        low = 10 ** (place / 100)
        ticks = log_ticks(low, low * 10**width)
        assert 2 <= len(ticks) <= 8
        assert all(math.log10(right / left) >= MIN_TICK_GAP * width for left, right in pairwise(ticks))


def test_prices_that_lie_close_together_have_an_axis_too():
    values = {"min": 24.0, "q25": 28.0, "median": 31.0, "q75": 36.0, "max": 44.0, "n": 9.0}
    assert ">30</text>" in range_rows([("Bags", values)], "Prices")
