"""Attributes, titles and prices of sample products."""

from __future__ import annotations

import math

import numpy as np
import pytest

from appraiser.data.samples import pricing
from appraiser.data.samples.attributes import (
    HARDWARE,
    LINE_NAMES,
    NO_CATEGORY,
    TYPES,
    Product,
    categories,
    draw_colours,
    draw_product,
    resolved_category,
)
from appraiser.data.samples.pricing import draw_price, explain, oracle_price
from appraiser.data.samples.silhouettes import silhouette
from appraiser.data.samples.textures import MATERIALS, PATTERNS
from appraiser.data.samples.titles import MAX_LENGTH, MIN_LENGTH, make_title, visible_words

PRODUCTS = [draw_product(np.random.default_rng(seed)) for seed in range(1500)]
COAT = Product("coat", "red", "polka dot", "wool", "oversized", "buttons", "Frances")


def test_title_says_what_is_visible_and_then_the_line_name() -> None:
    assert make_title(COAT) == "Oversized Red Polka Dot Wool Button Coat Frances"
    assert visible_words(COAT) == ["Oversized", "Red", "Polka", "Dot", "Wool", "Button", "Coat"]


def test_what_is_usual_has_no_word() -> None:
    assert make_title(Product("t-shirt", "navy", "plain", "cotton", "regular", "none")) == "Navy Cotton T-shirt"
    assert (
        make_title(Product("bracelet", "red", "plain", "gold-plated", "mini", "none"))
        == "Mini Red Gold-plated Bracelet"
    )


def test_titles_have_the_lengths_of_real_ones() -> None:
    assert all(MIN_LENGTH <= len(make_title(product)) <= MAX_LENGTH for product in PRODUCTS)


def test_about_one_title_in_ten_has_an_invisible_word() -> None:
    share = np.mean([product.line_name in LINE_NAMES for product in PRODUCTS])
    assert 0.07 < share < 0.13
    assert not any(set(visible_words(product)) & set(LINE_NAMES) for product in PRODUCTS)


def test_types_allow_only_what_exists() -> None:
    assert len(TYPES) >= 16
    for kind in TYPES.values():
        assert set(kind.materials) <= set(MATERIALS)
        assert set(kind.patterns) <= set(PATTERNS)
        assert set(kind.hardware) <= set(HARDWARE)


@pytest.mark.parametrize("name", TYPES)
def test_every_type_has_a_silhouette_in_the_frame_with_every_hardware(name: str) -> None:
    for hardware in TYPES[name].hardware:
        shape = silhouette(name, 3, hardware)
        reach = max(float(np.abs(panel.outline).max()) for panel in shape.panels)
        assert 0.5 < reach < 1.2
        kinds = {fitting.kind for fitting in shape.fittings}
        assert kinds == (set() if hardware == "none" else {hardware})


def test_the_noun_gives_the_category_and_quilting_may_refine_it() -> None:
    assert categories(COAT) == ("WOMAN", "OUTERWEAR", "COATS")
    quilted = Product("coat", "red", "quilted", "wool", "regular", "buttons")
    assert categories(quilted) == ("WOMAN", "OUTERWEAR", "QUILTED COATS")


def test_some_types_have_no_level_three_and_some_no_level_two() -> None:
    without_three = [name for name, kind in TYPES.items() if kind.category[2] == NO_CATEGORY]
    without_two = [name for name, kind in TYPES.items() if kind.category[1] == NO_CATEGORY]
    assert len(without_three) >= 2
    assert len(without_two) >= 1
    assert set(without_two) <= set(without_three)
    bear = Product("teddy bear", "red", "plain", "wool", "regular", "none")
    assert resolved_category(bear) == "KIDS"


def test_oracle_is_the_product_of_the_explained_effects_and_colour_is_not_among_them() -> None:
    assert oracle_price(COAT) == pytest.approx(math.exp(sum(effect for _, effect in explain(COAT))))
    assert [term for term, _ in explain(COAT)] == ["coat", "wool", "oversized", "buttons", "polka dot"]
    assert oracle_price(COAT) == oracle_price(COAT.in_colour("green"))


def test_every_type_has_a_base_price_and_every_attribute_an_effect() -> None:
    assert pricing.BASE_USD.keys() == TYPES.keys()
    assert pricing.MATERIAL_EFFECTS.keys() == set(MATERIALS)
    assert pricing.PATTERN_EFFECTS.keys() == set(PATTERNS)
    assert pricing.HARDWARE_EFFECTS.keys() == set(HARDWARE)


def test_prices_are_whole_tens_within_the_shops_range() -> None:
    rng = np.random.default_rng(0)
    prices = [draw_price(product, float(rng.standard_normal())) for product in PRODUCTS]
    assert all(price % 10 == 0 for price in prices)
    assert 70 <= min(prices)
    assert max(prices) <= 8000
    assert max(prices) / min(prices) > 25


def test_colour_variants_have_different_colours() -> None:
    colours = draw_colours("red", 4, np.random.default_rng(0))
    assert colours[0] == "red"
    assert len(set(colours)) == 4
