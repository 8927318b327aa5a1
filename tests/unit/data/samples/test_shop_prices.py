"""Spread and endings of a shop's prices: what they keep, and what they do not tell of single rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appraiser.data.samples.shop_prices import MIN_GROUP, PriceEndings, price_endings, price_shape, slope_of

prices = st.lists(st.floats(0.5, 1e5).map(lambda price: round(price, 2)), min_size=10, max_size=80)


def test_a_shape_follows_the_prices_it_was_taken_from() -> None:
    rng = np.random.default_rng(1)
    shop = np.exp(rng.normal(5, 0.6, 500))
    shape = price_shape(shop.tolist())
    assert shape is not None
    for share in (0.1, 0.25, 0.5, 0.75, 0.9):
        assert shape.price(share) == pytest.approx(float(np.quantile(shop, share)), rel=0.05)


@given(prices)
def test_a_shape_rises_and_stays_near_its_prices(shop: list[float]) -> None:
    shape = price_shape(shop)
    assert shape is not None
    drawn = [shape.price(share) for share in np.linspace(0, 1, 21)]
    assert drawn == sorted(drawn)
    assert all(math.isfinite(price) and price > 0 for price in drawn)


@given(prices)
def test_no_number_of_a_shape_stands_on_fewer_than_five_prices(shop: list[float]) -> None:
    shape = price_shape(shop)
    assert shape is not None
    assert len(shape.logs) <= max(2, len(shop) // MIN_GROUP)


def test_fewer_than_five_prices_give_no_shape_and_fewer_than_ten_only_their_mean() -> None:
    assert price_shape([10.0, 20.0, 30.0, 40.0], usual_slope=0.5) is None
    assert price_shape([10.0] * 7) is None
    shape = price_shape([10.0, 10.0, 20.0, 40.0, 40.0], usual_slope=0.3)
    assert shape is not None
    assert shape.price(0.5) == pytest.approx(math.exp(np.log([10.0, 10.0, 20.0, 40.0, 40.0]).mean()))
    assert slope_of([math.exp(0.4 * score) for score in (-1.0, 0.0, 1.0)]) == pytest.approx(0.4 / 0.97, rel=0.05)


@pytest.mark.parametrize(
    ("shop", "price", "expected"),
    [
        ([19.99, 29.99, 49.99, 89.99, 129.99, 149.99], 93.4, 89.99),  # ...9.99
        ([2290.0, 1890.0, 3190.0, 990.0, 1390.0, 1790.0], 1234.5, 1190.0),  # ...90
        ([120.0, 250.0, 380.0, 410.0, 560.0, 630.0], 123.0, 120.0),  # whole tens
        ([3900.0, 5200.0, 14100.0, 7800.0, 23500.0, 9100.0], 5234.0, 5200.0),  # hundreds
        ([4.49, 4.49, 4.49, 4.49, 4.49], 4.3, 4.49),
    ],
)
def test_prices_end_as_the_shops_do(shop: list[float], price: float, expected: float) -> None:
    assert price_endings(shop).snap(price, 0.0) == expected


def test_prices_that_agree_in_nothing_give_cents() -> None:
    endings = price_endings([1.11, 2.22, 3.33, 4.44, 5.57])
    assert endings == PriceEndings(((1, 0, 1.0),))
    assert endings.snap(7.123, 0.5) == 7.12


@given(prices, st.floats(0.01, 1e5), st.floats(0, 1, exclude_max=True))
def test_every_price_has_an_ending_of_the_shop_and_is_positive(shop: list[float], price: float, place: float) -> None:
    endings = price_endings(shop)
    cents = round(endings.snap(price, place) * 100)
    assert cents > 0
    assert any(cents % modulus == ending for modulus, ending, _ in endings.endings)
    assert sum(share for *_, share in endings.endings) == pytest.approx(1.0)
