"""Which silhouettes stand for which categories: by name, by titles, and so that all can be told apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appraiser.data.samples.attributes import TYPES
from appraiser.data.samples.matching import match_categories, nouns_in
from appraiser.data.samples.nouns import NOUNS
from appraiser.data.samples.textures import COLOURS
from appraiser.errors import DataError


def drawn(titles: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: [look.type for look in match.looks] for name, match in match_categories(titles).items()}


def test_every_noun_leads_to_types_that_can_be_drawn() -> None:
    assert all(kind in TYPES for types in NOUNS.values() for kind in types)


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("COATS", ["coat"]),
        ("PONCHOS & CAPES", ["cape"]),
        ("T-Shirts", ["t-shirt"]),
        ("CASHMERE SCARVES", ["scarf"]),
        ("Watches", ["bracelet"]),
        ("Eyewear", ["sunglasses"]),
        ("Footwear", ["boot", "sneaker"]),
        ("Accessories", ["belt", "scarf", "wallet"]),
        ("Kids' dresses", ["dress"]),
    ],
)
def test_a_category_is_drawn_as_its_name_says(name: str, types: list[str]) -> None:
    assert sorted(drawn({name: []})[name]) == types


def test_a_tote_bag_is_not_also_a_bag() -> None:
    assert [noun for noun, _ in nouns_in("Leather Tote Bags and shoes")] == ["tote bag", "shoe"]


def test_titles_decide_where_the_name_says_nothing() -> None:
    titles = ["Apex Climbing Harness"] * 7 + ["Ice Axe"] * 6 + ["Trail Shoes"]
    match = match_categories({"Climbing": titles})["Climbing"]
    assert (match.by, match.nouns) == ("titles", ("harness",))
    assert [look.type for look in match.looks] == ["belt"]


def test_titles_weigh_the_silhouettes_that_the_name_allows() -> None:
    looks = match_categories({"Bags": ["City Backpack"] * 6 + ["Weekend Duffle Bag"] * 4})["Bags"].looks
    assert {look.type: look.share for look in looks} == {"backpack": 0.6, "tote bag": 0.4}


def test_a_category_with_several_silhouettes_leaves_one_that_another_needs() -> None:
    found = drawn({"Bags": [], "Tote bags": [], "Shoes": [], "Boots": []})
    assert found["Tote bags"] == ["tote bag"]
    assert "tote bag" not in found["Bags"]
    assert (found["Boots"], found["Shoes"]) == (["boot"], ["sneaker"])


def test_categories_with_one_silhouette_share_its_colours() -> None:
    found = match_categories({"Scarves": [], "Silk scarves": []})
    first, second = (set(found[name].looks[0].colours) for name in found)
    assert first | second == set(COLOURS)
    assert not first & second


def test_what_matches_nothing_says_so_and_gets_a_silhouette_that_nobody_needs() -> None:
    found = match_categories({"Snowboards": [], "Umbrellas": []})
    assert found["Snowboards"].by == "nothing"
    assert found["Snowboards"].looks[0].type != "umbrella"


@given(
    st.lists(st.sampled_from([*NOUNS, *TYPES, "gifts", "new in", "sale", "x"]), min_size=1, max_size=90, unique=True)
)
def test_every_look_belongs_to_one_category(names: list[str]) -> None:
    try:
        found = match_categories({name: [] for name in names})
    except DataError:
        return  # too many categories for one silhouette: refused, not mixed up
    owners = [(look.type, colour) for match in found.values() for look in match.looks for colour in look.colours]
    assert len(owners) == len(set(owners))
    assert all(sum(look.share for look in match.looks) == pytest.approx(1.0) for match in found.values())


def test_more_categories_than_can_be_told_apart_are_refused() -> None:
    with pytest.raises(DataError, match="tell 364 apart") as caught:
        match_categories({f"kind {number}": [] for number in range(365)})
    assert "--map category=COLUMN" in str(caught.value)
    with pytest.raises(DataError, match="look like a coat"):
        match_categories({f"coats {chr(97 + number)}": [] for number in range(14)})
