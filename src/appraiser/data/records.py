"""Which columns of a table hold title, category, price and picture, and the record that comes of a row.

A guess is made from the usual names, shown to the user, and can be overridden.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from appraiser.data.corrections import NO_CORRECTIONS, Corrections
from appraiser.errors import ConfigError, DataError

# Real tables write these where a value is missing; N.A. is the luxury shops' own sentinel.
MISSING = frozenset({"", "n.a.", "n/a", "na", "nan", "none", "null", "-"})

# First column found wins; several columns are fallbacks for each other, in this order.
GUESSES: dict[str, list[list[str]]] = {
    "id": [["product_code"], ["id"], ["sku"], ["product_id"], ["asin"]],
    "image": [["image", "imageurl"], ["images"], ["local_image_path"], ["file_name"], ["image_path"], ["picture"],
              ["image_url"], ["imageurl"], ["img"], ["file_names"], ["images_file_names"]],
    "title": [["title"], ["product_name"], ["name"], ["product_title"]],
    "category": [["category3_code", "category2_code", "category1_code"], ["category"], ["label"], ["class"]],
    "price": [["full_price"], ["price"]],
    "currency": [["currency_code"], ["currency"]],
    "group": [["group"], ["group_id"]],
}  # fmt: skip

# Fields of an answer that are no column of the source's own.
OWN_FIELDS = ("title", "category", "price", "currency")


@dataclass(frozen=True)
class FieldMap:
    """How the rows of a table are read.

    Args:
        columns: field -> columns to try in order; fields without a column are absent.
        price_locale: how prices are written; None for plain numbers only.
        corrections: what the user decided about single products.
    """

    columns: dict[str, tuple[str, ...]]
    price_locale: str | None = None
    corrections: Corrections = NO_CORRECTIONS

    @property
    def identity(self) -> str:
        """Changes with anything that could give a row another state."""
        return f"{self.describe()} {self.price_locale} {self.corrections.sha256}"

    def value(self, row: Mapping[str, Any], field: str) -> Any:
        """The first present value of a field's columns, None if all are missing."""
        for column in self.columns.get(field, ()):
            value = row.get(column)
            if not is_missing(value):
                return value
        return None

    def describe(self) -> str:
        """`title=title, category=category3_code|category2_code`, as `--map` takes it."""
        return ", ".join(f"{field}={'|'.join(columns)}" for field, columns in self.columns.items())


@dataclass(frozen=True)
class ProductRecord:
    """One product as the pipeline uses it.

    Args:
        images: encoded JPEG or PNG bytes, one or more pictures of the product.
        extra: the source's own columns and, for sample data, `truth_*` columns.
    """

    id: str
    images: tuple[bytes, ...]
    group: str
    title: str | None = None
    category: str | None = None
    price: float | None = None
    currency: str | None = None
    extra: Mapping[str, Any] | None = None

    def value(self, field: str) -> str | float | None:
        """The record's value of one of its own fields, or of a column of its source; None if it has none."""
        found: str | float | None = getattr(self, field) if field in OWN_FIELDS else (self.extra or {}).get(field)
        return found

    def values(self, fields: Sequence[str]) -> dict[str, str | float]:
        """The record's values for a task's fields.

        Raises:
            DataError: a field that this record does not have.
        """
        found: dict[str, str | float] = {}
        for field in fields:
            value = self.value(field)
            if value is None:
                raise DataError(
                    f"record {self.id!r} has no value for the field {field!r}",
                    fix="build the data set with that field, or leave it out of the task's fields",
                )
            found[field] = value
        return found


def is_missing(value: Any) -> bool:
    """Whether a cell says that it has no value."""
    if value is None or (isinstance(value, float) and value != value):
        return True
    return isinstance(value, str) and value.strip().lower() in MISSING


def guess_fields(
    columns: Sequence[str],
    override: Mapping[str, Sequence[str]],
    source: str,
    *,
    needs_labels: bool = True,
    needs_pictures: bool = True,
) -> FieldMap:
    """Fields of a table by the usual column names, with the user's own mapping on top.

    Args:
        needs_labels: False where only the pictures matter.
        needs_pictures: False where only the labels matter.

    Raises:
        ConfigError: a mapped field that does not exist.
        DataError: a mapped column that the table does not have, or no column with pictures.
    """
    present = {column.lower(): column for column in columns}
    found: dict[str, tuple[str, ...]] = {}
    for field, candidates in GUESSES.items():
        for names in candidates:
            if names[0] in present:
                found[field] = tuple(present[name] for name in names if name in present)
                break
    for field, chosen in override.items():
        names = list(chosen)
        if field not in GUESSES:
            nearest = difflib.get_close_matches(field, GUESSES, n=1)
            raise ConfigError(
                f"there is no field {field!r}" + (f"; did you mean {nearest[0]}?" if nearest else ""),
                where=f"--map {field}={'|'.join(names)}",
                fix=f"map one of {', '.join(GUESSES)}; all other columns are kept under their own names",
            )
        unknown = [name for name in names if name not in columns]
        if unknown:
            raise DataError(
                f"{source} has no column {', '.join(map(repr, unknown))}",
                where=f"--map {field}={'|'.join(names)}",
                fix=f"choose from its columns: {', '.join(columns)}",
            )
        if not names:
            found.pop(field, None)
        else:
            found[field] = tuple(names)
    if needs_pictures and "image" not in found:
        raise DataError(
            f"{source} has no column that looks like pictures",
            where=f"columns: {', '.join(columns)}",
            fix="name it: --map image=COLUMN (paths or URLs)",
        )
    if needs_labels and not any(field in found for field in ("title", "category", "price")):
        raise DataError(
            f"{source} has neither title, category nor price",
            where=f"columns: {', '.join(columns)}",
            fix="name at least one: --map title=COLUMN, --map category=COLUMN or --map price=COLUMN",
        )
    return FieldMap(found)
