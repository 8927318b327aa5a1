"""Rows of a data set on their way out: their columns, their pictures, and the count of what was written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from appraiser.data.building.card import CARD_SPLITS
from appraiser.data.dataset import SPLIT_NAMES, ProductDataset
from appraiser.data.exports.names import picture_stem, picture_suffix

Row = dict[str, Any]
Counts = dict[str, tuple[int, int]]
"""Split, as layouts call it -> rows, pictures."""


@dataclass
class Written:
    """What a layout's writer says that it has written.

    Args:
        renamed: columns of the data set -> their names in the layout.
        picture_fields: WebDataset: names of a sample's pictures.
    """

    renamed: dict[str, str]
    counts: Counts = field(default_factory=dict)
    picture_fields: set[str] = field(default_factory=set)
    num_escaped_cells: int = 0
    num_rows: int = 0

    def count(self, split: str, num_pictures: int) -> None:
        """One more row of a split."""
        rows, pictures = self.counts.get(split, (0, 0))
        self.counts[split] = rows + 1, pictures + num_pictures
        self.num_rows += 1


def filled_splits(dataset: ProductDataset) -> Iterator[tuple[str, Iterator[Row]]]:
    """Splits that have rows, as `datasets` calls them, with these."""
    return ((CARD_SPLITS[name], dataset.stream_rows(name)) for name in SPLIT_NAMES if dataset.manifest.splits[name])


def value_columns(schema: pa.Schema) -> list[pa.Field]:
    """Columns of a data set without its pictures."""
    return [column for column in schema if column.name not in ("image", "images")]


def has_several_pictures(schema: pa.Schema) -> bool:
    """Whether a row may have more than one picture."""
    return "images" in schema.names


def pictures_of(row: Row) -> list[bytes]:
    """Bytes of a row's pictures."""
    return [picture["bytes"] for picture in (row["images"] if "images" in row else [row["image"]])]


def write_pictures(row: Row, folder: Path) -> list[str]:
    """Write a row's pictures, each to its own file; their names."""
    names = []
    for number, data in enumerate(pictures_of(row)):
        names.append(f"{picture_stem(row['id'], number)}.{picture_suffix(data)}")
        # x: two records must never share a file.
        with (folder / names[-1]).open("xb") as file:
            file.write(data)
    return names


def new_names(columns: Collection[str], is_taken: Callable[[str], bool]) -> dict[str, str]:
    """Other names for columns whose own ones mean something else in a layout."""
    renamed: dict[str, str] = {}
    for name in filter(is_taken, columns):
        other = f"{name}_of_source"
        while other in columns or other in renamed.values():
            other += "_"
        renamed[name] = other
    return renamed
