"""Samples that follow a table: what is taken from it, how draws follow it, and that nothing of it comes back."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from appraiser.data.samples import pricing
from appraiser.data.samples.attributes import BARE_SHARE, TYPES, draw_product
from appraiser.data.samples.catalogue import explain_row, make_catalogue
from appraiser.data.samples.items import CatalogueItem, iter_products
from appraiser.data.samples.likeness import Likeness, choice_shares, make_likeness
from appraiser.data.samples.profile import Profile, make_profile
from appraiser.data.samples.shop_prices import price_shape
from appraiser.data.tables import ProductTable
from appraiser.errors import ConfigError, DataError

KINDS = {"Coats": (60, 900.0), "Bags": (30, 300.0), "Gadgets": (7, 50.0), "Boots": (3, 5000.0)}


def shop(currency: str | None = "EUR") -> ProductTable:
    """100 rows of four categories, two of them small."""
    rng = np.random.default_rng(4)
    rows = [
        (f"{name} Secret {number}", name, round(float(price * np.exp(rng.normal(0, 0.3)))) + 0.99)
        for name, (count, price) in KINDS.items()
        for number in range(count)
    ]
    titles, categories, prices = zip(*rows, strict=True)
    return ProductTable(
        "shop.csv", tuple(f"id-{n}" for n in range(len(rows))), titles, categories, prices, currency, 0, 0
    )


@pytest.fixture(scope="module")
def profile() -> Profile:
    return make_profile(shop())


@pytest.fixture(scope="module")
def like(profile: Profile) -> Likeness:
    return make_likeness(profile)


@pytest.fixture(scope="module")
def items(like: Likeness) -> list[CatalogueItem]:
    return list(iter_products(4000, 7, like=like))


def test_the_facts_of_a_profile_hold_no_title_id_or_price_of_the_table(profile: Profile) -> None:
    text = json.dumps(profile.facts()) + repr(profile) + json.dumps(profile.habits()) + json.dumps(profile.drawn_as())
    table = shop()
    assert "Secret" not in text
    assert "id-" not in text
    assert not [price for price in table.prices if str(price) in text]
    assert profile.facts()["source"] == "shop.csv"


def test_a_small_category_is_priced_like_the_whole_shop_and_its_titles_are_not_looked_into(profile: Profile) -> None:
    boots = next(category for category in profile.categories if category.name == "Boots")
    assert boots.prices is not None
    assert boots.prices.rows == 100
    assert boots.prices == price_shape([price for price in shop().prices if price is not None])
    table = shop()
    hidden = ProductTable(
        table.name, table.ids, (*["Snowboard"] * 97, *["Umbrella"] * 3), (*["Boards"] * 97, *["Rare"] * 3),
        table.prices, None, 0, 0,
    )  # fmt: skip
    assert make_profile(hidden).categories[1].match.by == "nothing"  # type: ignore[union-attr]


def test_few_rows_and_rows_without_labels_are_refused() -> None:
    with pytest.raises(DataError, match="has 19 rows"):
        make_profile(shop().rows(range(19)))
    empty = (None,) * 30
    with pytest.raises(DataError, match="no category") as caught:
        make_profile(ProductTable("t.csv", empty, empty, empty, empty, None, 0, 0))
    assert "--map category=COLUMN" in str(caught.value)


def test_categories_have_the_shops_shares_names_and_price_levels(items: list[CatalogueItem]) -> None:
    counts = Counter(entry.labels.category for entry in items)
    assert counts.keys() == KINDS.keys()
    for name, (count, price) in KINDS.items():
        assert counts[name] / len(items) == pytest.approx(count / 100, abs=0.03)
        if count >= 5:
            drawn = [entry.price for entry in items if entry.labels.category == name]
            assert np.median(drawn) == pytest.approx(price, rel=0.15)
    assert all(entry.labels.categories == ("N.A.", "N.A.", entry.labels.category) for entry in items)
    assert {round(entry.price * 100) % 100 for entry in items} == {99}


def test_the_category_can_be_told_from_type_and_colour(items: list[CatalogueItem]) -> None:
    seen: dict[tuple[str, str], set[str]] = {}
    for entry in items:
        seen.setdefault((entry.product.type, entry.product.colour), set()).add(entry.labels.category)
    assert all(len(names) == 1 for names in seen.values())


def test_within_a_category_the_price_follows_what_is_visible(items: list[CatalogueItem]) -> None:
    coats = [entry for entry in items if entry.labels.category == "Coats"]
    rule = np.log([pricing.oracle_price(entry.product) for entry in coats])
    price = np.log([entry.price for entry in coats])
    assert np.corrcoef(rule, price)[0, 1] > 0.9


def test_the_oracle_is_the_median_of_what_its_picture_may_cost(items: list[CatalogueItem]) -> None:
    above = np.mean([entry.price > entry.labels.oracle_price for entry in items])
    assert above == pytest.approx(0.5, abs=0.04)
    errors = [abs(entry.labels.oracle_price / entry.price - 1) for entry in items]
    assert 0.01 < np.median(errors) < 0.15


def test_without_noise_the_oracle_is_off_by_the_rounding_alone(profile: Profile) -> None:
    exact = make_likeness(profile, noise=0.0)
    for entry in iter_products(200, 7, like=exact):
        assert abs(entry.labels.oracle_price - entry.price) <= 0.51


def test_ranks_within_a_category_are_uniform(like: Likeness) -> None:
    # The exact mixture, not an estimate: 4,000 draws stay within the 0.1 % band of Kolmogorov.
    rng = np.random.default_rng(0)
    number = next(k for k, category in enumerate(like.profile.categories) if category.name == "Coats")
    values = np.log([pricing.oracle_price(draw_product(rng, ("coat",))) for _ in range(4000)])
    values += like.noise * rng.standard_normal(4000)
    ranks = np.sort([like.ranks[number].share(float(value)) for value in values])
    assert np.abs(ranks - (np.arange(4000) + 0.5) / 4000).max() < 1.95 / np.sqrt(4000)


@pytest.mark.parametrize("name", TYPES)
def test_shares_of_attributes_are_those_of_the_draws(name: str) -> None:
    rng = np.random.default_rng(1)
    drawn = Counter(draw_product(rng, (name,)).hardware for _ in range(2000))
    shares = choice_shares(TYPES[name].hardware, "none", BARE_SHARE)
    assert sum(shares.values()) == pytest.approx(1.0)
    for value, share in shares.items():
        assert drawn[value] / 2000 == pytest.approx(share, abs=0.05)


def test_an_item_does_not_depend_on_rows_or_start(like: Likeness, items: list[CatalogueItem]) -> None:
    assert list(iter_products(13, 7, like=like)) == items[:13]
    assert list(iter_products(9, 7, 1018, like=like)) == items[1018:1027]


def test_titles_are_visible_words_in_the_shops_number(items: list[CatalogueItem]) -> None:
    for entry in items[:500]:
        assert entry.labels.title.startswith(entry.labels.visible_words)
    assert Counter(len(entry.labels.title.split()) for entry in items).most_common(1)[0][0] == 3
    assert {len(entry.labels.title.split()) for entry in items} == {3}


def test_a_title_of_the_table_is_never_drawn(profile: Profile) -> None:
    table = shop()
    first = list(iter_products(400, 7, like=make_likeness(profile)))
    # The shop now sells under the very titles that the sample would give.
    taken = [entry.labels.title.upper() for entry in first][: len(table)]
    rival = ProductTable(table.name, table.ids, tuple(taken), table.categories, table.prices, table.currency, 0, 0)
    drawn = list(iter_products(400, 7, like=make_likeness(make_profile(rival))))
    assert not {entry.labels.title.upper() for entry in drawn} & set(taken)
    assert any(entry.labels.is_redrawn for entry in drawn)


def test_a_code_of_the_table_is_never_given(profile: Profile) -> None:
    table = shop()
    rival = ProductTable("t", tuple(map(str, range(100))), table.titles, table.categories, table.prices, None, 0, 0)
    like = make_likeness(make_profile(rival))
    assert like.free_code(42, 1000) == 1042
    assert like.free_code(100, 1000) == 100


def test_a_table_without_categories_or_prices_keeps_the_samples_own() -> None:
    table = shop()
    titles_only = ProductTable("t", table.ids, table.titles, (None,) * 100, (None,) * 100, None, 0, 0)
    for entry in iter_products(50, 7, like=make_likeness(make_profile(titles_only))):
        assert entry.price % 10 == 0
        assert entry.labels.currency == "USD"
        assert entry.labels.category in {
            name for kind in TYPES.values() for name in (*kind.category, "QUILTED COATS", "QUILTED JACKETS")
        }


def test_a_catalogue_has_the_shops_currency_and_truth(profile: Profile, tmp_path: Path) -> None:
    for workers in (1, 2):
        make_catalogue(tmp_path / str(workers), 40, 5, size=32, num_workers=workers, like=profile)
    for path in sorted((tmp_path / "1").rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "2" / path.relative_to(tmp_path / "1")).read_bytes()
    with (tmp_path / "1" / "products.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "1" / "truth.csv").open(encoding="utf-8") as file:
        truth = list(csv.DictReader(file))
    facts = json.loads((tmp_path / "1" / "truth.json").read_text(encoding="utf-8"))
    assert {(row["currency_code"], row["country_code"]) for row in rows} == {("EUR", "N.A.")}
    assert all(row["full_price"] == row["full_price_eur"] for row in rows)
    errors = []
    for row, known in zip(rows, truth, strict=True):
        assert (row["title"], row["category3_code"]) == (known["title"], known["category"])
        assert float(row["full_price"]) == float(known["price"])
        errors.append(abs(float(known["oracle_price"]) / float(known["price"]) - 1))
    assert facts["oracle_median_ape"] == pytest.approx(float(np.median(errors)), abs=1e-4)
    assert facts["like"]["source"] == "shop.csv"
    assert facts["like"]["titles_redrawn"] == 0


def test_where_the_rate_is_not_known_there_is_no_price_in_euros(tmp_path: Path) -> None:
    make_catalogue(tmp_path / "yen", 4, 5, size=32, like=make_profile(shop("JPY")))
    with (tmp_path / "yen" / "products.csv").open(encoding="utf-8") as file:
        assert {row["price_eur"] for row in csv.DictReader(file)} == {""}


def test_what_follows_the_samples_own_rules_is_refused(profile: Profile, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="own rules"):
        make_catalogue(tmp_path / "shop", 10, like=profile, faults=True)
    make_catalogue(tmp_path / "shop", 4, size=32, like=profile)
    with pytest.raises(DataError, match="follows a table of yours"):
        explain_row(tmp_path / "shop", 0)
