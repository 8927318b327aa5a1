"""The shape of titles: numbers of words and kinds of words, never the words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appraiser.data.samples.attributes import Product
from appraiser.data.samples.textures import COLOURS
from appraiser.data.samples.title_shapes import TitlePlan, choose_words, mentions, title_plans, title_shape
from appraiser.data.samples.titles import title_parts

COAT = Product("coat", "red", "polka dot", "wool", "mini", "buttons")


def test_the_shape_counts_words_and_what_they_speak_of() -> None:
    shape = title_shape(["Red Coat"] * 6 + ["Trail Wool Boot"] * 6)
    assert shape.words == ((2, 0.5), (3, 0.5))
    assert dict(shape.mentions) == {"colour": 0.5, "material": 0.5, "pattern": 0.0, "size": 0.0, "hardware": 0.0}
    assert title_shape(["RED COAT"] * 5).case == "upper"
    assert title_shape(["red coat"] * 5).case == "lower"


def test_a_number_of_words_of_fewer_than_five_titles_is_counted_with_its_neighbour() -> None:
    assert title_shape(["a b c"] * 8 + ["a b c d e f g h i"] * 4 + ["a"] * 4).words == ((3, 1.0),)
    assert title_shape([" ".join("abcdefg"[: number + 1]) for number in range(5)]).words == ((3, 1.0),)


@given(st.lists(st.integers(1, 9), min_size=20, max_size=60))
def test_over_the_colours_the_plans_have_the_shops_shares(lengths: list[int]) -> None:
    shape = title_shape([" ".join(["x"] * (number - 1) + ["red"]) for number in lengths])
    plans = title_plans(shape)
    assert plans.keys() == COLOURS.keys()
    for number, share in shape.words:
        assert sum(plan.num_words == number for plan in plans.values()) / len(plans) == pytest.approx(share, abs=1 / 12)
    assert all("colour" in plan.mentions and "material" not in plan.mentions for plan in plans.values())


def test_a_title_has_the_noun_what_the_plan_tells_and_then_what_fits() -> None:
    parts = title_parts(COAT)
    plan = TitlePlan(3, frozenset({"colour"}), ("material", "pattern", "hardware", "size", "colour"))
    assert choose_words(parts, plan, 3) == ["Red", "Wool", "Coat"]
    assert choose_words(parts, plan, 1) == ["Coat"]
    assert choose_words(parts, plan, 5) == ["Red", "Polka", "Dot", "Wool", "Coat"]
    assert choose_words(parts, plan, 9) == ["Mini", "Red", "Polka", "Dot", "Wool", "Button", "Coat"]


def test_titles_are_filled_with_what_the_shop_speaks_of_most() -> None:
    plans = title_plans(title_shape(["Wool Thing"] * 6 + ["Striped Thing"] * 3 + ["Trail Thing"] * 6))
    assert {plan.fill[:3] for plan in plans.values()} == {("material", "pattern", "colour")}


def test_words_are_known_whole() -> None:
    assert mentions("Steel-Blue Hiking Shoes", "colour")
    assert not mentions("Blueberry Tent", "colour")
