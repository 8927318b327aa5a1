"""What a sample takes from a user's own table: marginals and structure, never a row.

Every number stands on at least five rows. Categories keep their names and shares. Titles and ids are kept as hashes
alone, so that no sample can repeat one by chance.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from appraiser.data.samples.matching import Match, match_categories
from appraiser.data.samples.shop_prices import (
    MIN_GROUP,
    PriceEndings,
    PriceShape,
    price_endings,
    price_shape,
    slope_of,
)
from appraiser.data.samples.textures import COLOURS
from appraiser.data.samples.title_shapes import TitleShape, title_shape
from appraiser.data.tables import ProductTable, plain_title
from appraiser.errors import DataError

MIN_ROWS = 20
_CASES = {"capitals": "Title Case", "lower": "lower case", "upper": "UPPER CASE"}


@dataclass(frozen=True, slots=True)
class CategoryProfile:
    """One of the shop's categories.

    Args:
        name: as the shop writes it; None where the table has no categories, and the sample keeps its own.
        share: of the rows that have a category.
        prices: None where the table has no prices.
    """

    name: str | None
    share: float
    rows: int
    match: Match | None
    prices: PriceShape | None


@dataclass(frozen=True, slots=True)
class Profile:
    """A table's numbers; equal profiles give equal samples.

    Args:
        source: the file's name, without folders.
        categories: largest first.
        titles, endings: None where the table has no titles, no prices.
        title_hashes, id_hashes: what no sample may repeat.
    """

    source: str
    rows: int
    currency: str | None
    categories: tuple[CategoryProfile, ...]
    titles: TitleShape | None
    endings: PriceEndings | None
    title_hashes: frozenset[bytes] = field(repr=False)
    id_hashes: frozenset[bytes] = field(repr=False)

    def facts(self) -> dict[str, Any]:
        """Everything but the hashes, as JSON-able data; what the table does not have is left out."""
        facts = {
            "source": self.source,
            "rows": self.rows,
            "currency": self.currency,
            "categories": [_category_facts(category) for category in self.categories],
            "titles": self.titles and {
                "words": dict(self.titles.words), "mentions": dict(self.titles.mentions), "case": self.titles.case
            },
            "price_endings_in_cents": self.endings and list(self.endings.endings),
        }  # fmt: skip
        return {key: value for key, value in facts.items() if value is not None}

    def drawn_as(self) -> dict[str, str]:
        """What each category is drawn as, and why, in words."""
        return {category.name: _drawn_as(category.match) for category in self.categories
                if category.name is not None and category.match is not None}  # fmt: skip

    def habits(self) -> list[tuple[str, str]]:
        """(name, text) of what was taken over besides categories."""
        found = []
        if self.endings:
            listed = ", ".join(f"{_ending(*ending[:2])} {ending[2]:.0%}" for ending in self.endings.endings[:8])
            found.append(("Price endings", listed))
        if self.titles:
            words = ", ".join(f"{number} words {share:.0%}" for number, share in self.titles.words)
            told = ", ".join(f"{slot} {share:.0%}" for slot, share in self.titles.mentions)
            found += [("Titles", f"{words}; written in {_CASES[self.titles.case]}"), ("Titles speak of", told)]
        return found


def make_profile(table: ProductTable) -> Profile:
    """The profile of a table.

    Raises:
        DataError: too few rows, or nothing in them to take a profile from.
    """
    titles = [title for title in table.titles if title is not None]
    prices = [price for price in table.prices if price is not None]
    if len(table) < MIN_ROWS:
        raise DataError(
            f"{table.name} has {len(table)} rows; a profile of so few would tell of single products",
            fix=f"name a table of {MIN_ROWS} rows or more",
        )
    if table.num_unreadable_prices == len(table):
        raise DataError(
            f"none of the {len(table)} prices of {table.name} can be read",
            fix="say how they are written, e.g. --price-locale de, or name another column: --map price=COLUMN",
        )
    has_categories = any(category is not None for category in table.categories)
    if not has_categories and len(titles) < MIN_ROWS and len(prices) < MIN_ROWS:
        raise DataError(
            f"{table.name} has no category, and fewer than {MIN_ROWS} titles and prices that can be read",
            fix="name the columns: --map category=COLUMN --map title=COLUMN --map price=COLUMN",
        )
    return Profile(
        source=table.name,
        rows=len(table),
        currency=table.currency,
        categories=_categories(table, prices),
        titles=title_shape(titles) if len(titles) >= MIN_ROWS else None,
        endings=price_endings(prices) if len(prices) >= MIN_ROWS else None,
        title_hashes=frozenset(title_hash(title) for title in titles),
        id_hashes=frozenset(text_hash(name) for name in table.ids if name is not None),
    )


def title_hash(title: str) -> bytes:
    """What a title is known by, whatever its case and spaces."""
    return text_hash(plain_title(title))


def text_hash(text: str) -> bytes:
    """What a text is known by."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:12]


def _categories(table: ProductTable, prices: Sequence[float]) -> tuple[CategoryProfile, ...]:
    rows: Counter[str] = Counter(category for category in table.categories if category is not None)
    names = sorted(rows, key=lambda name: (-rows[name], name))
    by_category: dict[str, list[float]] = {name: [] for name in names}
    titles: dict[str, list[str]] = {name: [] for name in names}
    for category, title, price in zip(table.categories, table.titles, table.prices, strict=True):
        if category is not None and price is not None:
            by_category[category].append(price)
        # Small categories are not looked into: what their titles speak of would tell of single products.
        if category is not None and title is not None and rows[category] >= MIN_GROUP:
            titles[category].append(title)
    whole = price_shape(prices) if len(prices) >= MIN_ROWS else None
    if not names:
        return (CategoryProfile(None, 1.0, len(table), None, whole),)
    slope = _usual_slope(by_category, prices)
    matches = match_categories(titles)
    return tuple(
        CategoryProfile(
            name,
            rows[name] / rows.total(),
            rows[name],
            matches[name],
            # Of fewer than five prices nothing is taken: such a category is priced like the whole shop.
            whole and (price_shape(by_category[name], slope) or whole),
        )
        for name in names
    )


def _usual_slope(by_category: Mapping[str, Sequence[float]], prices: Sequence[float]) -> float:
    """How much prices differ within a category of this shop."""
    slopes = [slope_of(found) for found in by_category.values() if len(found) >= 2 * MIN_GROUP]
    return fmean(slopes) if slopes else slope_of(prices) if prices else 0.0


def _category_facts(category: CategoryProfile) -> dict[str, Any]:
    facts: dict[str, Any] = {"share": round(category.share, 6), "rows": category.rows}
    if category.match:
        facts |= {
            "name": category.name,
            "drawn_as": [{"type": look.type, "share": round(look.share, 6), "colours": list(look.colours)}
                         for look in category.match.looks],
            "matched_by": category.match.by,
            "nouns": list(category.match.nouns),
        }  # fmt: skip
    if category.prices:
        facts["prices"] = {
            "normal_scores": [round(score, 4) for score in category.prices.scores],
            "geometric_means": [float(f"{math.exp(value):.4g}") for value in category.prices.logs],
        }
    return facts


def _drawn_as(found: Match) -> str:
    looks = ", ".join(
        look.type
        + (f" {look.share:.0%}" if len(found.looks) > 1 else "")
        + (f" in {', '.join(look.colours)}" if len(look.colours) < len(COLOURS) else "")
        for look in found.looks
    )
    nouns = ", ".join(found.nouns)
    match found.by:
        case "name":
            return f"{looks} (its name says {nouns})"
        case "titles":
            return f"{looks} (the nearest to what its titles say: {nouns})"
        case "nothing":
            return f"{looks} (CANNOT BE DRAWN: nothing here looks like it, this is a stand-in)"


def _ending(modulus: int, ending: int) -> str:
    """`...9.99` for 999 of 1000 cents, `.99` for 99 of 100."""
    digits = len(str(modulus)) - 3
    whole = f"...{ending // 100:0{digits}d}" if digits > 0 else ""
    return f"{whole}.{ending % 100:02d}"
