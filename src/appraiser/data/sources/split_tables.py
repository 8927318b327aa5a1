"""Picture folders as `datasets` knows them: train/metadata.csv, test/metadata.csv, ..., with `file_name` in each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from appraiser.data.sources.class_folders import PICTURE_SUFFIXES, SPLIT_FOLDERS
from appraiser.data.sources.source import Source, licence_of, numbered, sha256_of
from appraiser.data.sources.tables import open_table
from appraiser.errors import DataError

METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def has_split_tables(folder: Path) -> bool:
    """Whether there is a table in one of the folder's split folders."""
    return any(_tables(place) for place in _split_folders(folder))


def open_split_tables(folder: Path) -> Source:
    """Open all of them as one table: paths start at `folder`, and `source_split` is the name of the split's folder.

    Raises:
        DataError: a split folder has pictures but no table, or two, or a table without a column of file names.
    """
    tables = {place.name: _table(place) for place in _split_folders(folder) if _tables(place) or _has_pictures(place)}
    sources = {split: open_table(path) for split, path in tables.items()}
    for split, source in sources.items():
        if not any(map(_names_files, source.columns)):
            raise DataError(
                f"{tables[split].name} has no column file_name",
                where=f"{tables[split]}: {', '.join(source.columns)}",
                fix="name the pictures there, as paths from the table's folder",
            )

    def rows() -> Iterator[dict[str, Any]]:
        for split, source in sources.items():
            for _, row in source.rows():
                placed = {name: _placed(value, split) if _names_files(name) else value for name, value in row.items()}
                yield placed | {"source_split": split}

    columns = dict.fromkeys(column for source in sources.values() for column in source.columns)
    return Source(
        name=str(folder),
        columns=(*columns, "source_split"),
        rows=numbered(rows),
        folder=folder,
        sha256=sha256_of(tables.values()),
        licence=licence_of(folder),
    )


def _split_folders(folder: Path) -> list[Path]:
    return sorted(place for place in folder.iterdir() if place.is_dir() and place.name.lower() in SPLIT_FOLDERS)


def _tables(place: Path) -> list[Path]:
    return [place / name for name in METADATA_NAMES if (place / name).is_file()]


def _has_pictures(place: Path) -> bool:
    return any(path.suffix.lower() in PICTURE_SUFFIXES for path in place.rglob("*"))


def _table(place: Path) -> Path:
    tables = _tables(place)
    if len(tables) != 1:
        raise DataError(
            f"{place} has {'two tables' if tables else 'pictures but no table'}",
            where=", ".join(path.name for path in tables) or None,
            fix=f"keep one of {', '.join(METADATA_NAMES)} beside the pictures",
        )
    return tables[0]


def _names_files(column: str) -> bool:
    return column.endswith(("file_name", "file_names"))


def _placed(value: Any, split: str) -> Any:
    """A path, or several, as seen from the folder above."""
    if isinstance(value, list):
        return [_placed(part, split) for part in value]
    is_relative = isinstance(value, str) and value and "://" not in value and not Path(value).is_absolute()
    return f"{split}/{value}" if is_relative else value
