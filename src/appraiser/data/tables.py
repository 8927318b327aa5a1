"""The labels of a product table in memory, column by column: what profiles are taken from and samples compared on.

Pictures are not held here: their places are read again from the source, one row at a time.
"""

from __future__ import annotations

import html
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from appraiser.data.prices import check_locale, parse_price_cell
from appraiser.data.records import FieldMap, guess_fields
from appraiser.data.sources import Source


@dataclass(frozen=True)
class ProductTable:
    """One entry per row in every column; None where the row has no value, or the table no such column.

    Args:
        name: the file's name without its folders, or the Hub's name.
        prices: in `currency`; prices in other currencies are None.
        currency: the most common one.
        num_other_currencies, num_unreadable_prices: rows whose price was left out for that.
    """

    name: str
    ids: tuple[str | None, ...]
    titles: tuple[str | None, ...]
    categories: tuple[str | None, ...]
    prices: tuple[float | None, ...]
    currency: str | None
    num_other_currencies: int
    num_unreadable_prices: int

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, keep: Sequence[int]) -> ProductTable:
        """Some of the rows, as a table of their own."""
        return replace(
            self,
            ids=tuple(self.ids[row] for row in keep),
            titles=tuple(self.titles[row] for row in keep),
            categories=tuple(self.categories[row] for row in keep),
            prices=tuple(self.prices[row] for row in keep),
        )


def read_table(source: Source, fields: FieldMap) -> ProductTable:
    """The labels of every row.

    Raises:
        DataError: the source cannot be read on.
    """
    ids: list[str | None] = []
    titles: list[str | None] = []
    categories: list[str | None] = []
    prices: list[float | None] = []
    currencies: list[str | None] = []
    num_unreadable = 0
    kept: dict[str, str] = {}
    for _, row in source.rows():
        ids.append(_text(row, fields, "id"))
        titles.append(_text(row, fields, "title"))
        category, currency = _text(row, fields, "category"), _text(row, fields, "currency")
        # One text per category, not one per row: large tables repeat them endlessly.
        categories.append(None if category is None else kept.setdefault(category, category))
        currencies.append(None if currency is None else kept.setdefault(currency, currency))
        prices.append(parse_price_cell(fields.value(row, "price"), fields.price_locale))
        num_unreadable += "price" in fields.columns and prices[-1] is None
    known = Counter(currency for currency in currencies if currency is not None)
    main = min(known, key=lambda name: (-known[name], name)) if known else None
    others = [main is not None and currency != main for currency in currencies]
    return ProductTable(
        name=source_name(source),
        ids=tuple(ids),
        titles=tuple(titles),
        categories=tuple(categories),
        prices=tuple(None if other else price for price, other in zip(prices, others, strict=True)),
        currency=main,
        num_other_currencies=sum(o and p is not None for o, p in zip(others, prices, strict=True)),
        num_unreadable_prices=num_unreadable,
    )


def table_fields(source: Source, mapping: Mapping[str, Sequence[str]], price_locale: str | None = None) -> FieldMap:
    """The fields of a table that need not have pictures.

    Raises:
        ConfigError: a field or locale that does not exist.
        DataError: a column that does not exist, or no column with a label.
    """
    fields = guess_fields(source.columns, mapping, source_name(source), needs_pictures=False)
    return replace(fields, price_locale=check_locale(price_locale)) if price_locale else fields


def source_name(source: Source) -> str:
    """What may be told about where a table lies: its name, without the folders of this machine."""
    return source.name if source.folder is None else Path(source.name).name


def picture_rows(source: Source, fields: FieldMap) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(place counted from 0, row) of every row, to find its pictures; nothing where there is no such column."""
    if "image" not in fields.columns:
        return
    for index, (_, row) in enumerate(source.rows()):
        yield index, row


def plain_title(title: str) -> str:
    """What two titles have in common when a reader would call them the same: letters' form, case, spaces aside."""
    return " ".join(unicodedata.normalize("NFKC", title).casefold().split())


def _text(row: Mapping[str, Any], fields: FieldMap, field: str) -> str | None:
    value = fields.value(row, field)
    # Web shops leave HTML entities in their tables.
    return None if value is None else " ".join(html.unescape(str(value)).split()) or None
