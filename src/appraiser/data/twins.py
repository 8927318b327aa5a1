"""Twins of a data set: pairs of pictures that differ in one attribute, and what that changes in the price.

twins.csv beside a table    attribute, first_image, second_image, log_price_change (ln of second price / first price)
twins.parquet in a data set the same with the pictures inside

They are for evaluation alone: does a model's price move as the truth does? No split holds them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from appraiser.data.pictures import PictureError, prepare, read_bytes
from appraiser.data.sources.tables import open_table
from appraiser.errors import DataError

TABLE = "twins.csv"
FILE = "twins.parquet"
NEEDED = ("attribute", "first_image", "second_image", "log_price_change")
ROWS_AT_ONCE = 64
SCHEMA = pa.schema([
    ("attribute", pa.string()),
    ("first", pa.string()),
    ("second", pa.string()),
    ("first_image", pa.binary()),
    ("second_image", pa.binary()),
    ("log_price_change", pa.float64()),
])  # fmt: skip


@dataclass(frozen=True)
class TwinPair:
    """Two pictures of what is one product but for one attribute.

    Args:
        first_image, second_image: encoded pictures.
        first, second: values of the attribute; empty if the table does not say.
        log_price_change: ln of the second's price over the first's.
    """

    attribute: str
    first: str
    second: str
    first_image: bytes
    second_image: bytes
    log_price_change: float


def find_twins(folder: Path | None) -> Path | None:
    """The table of twins that lies beside a source's own table."""
    path = folder / TABLE if folder else None
    return path if path and path.is_file() else None


def store_twins(table: Path, folder: Path) -> int:
    """Write `twins.parquet` into a data set folder; returns the number of pairs.

    Raises:
        DataError: a column is missing, or a row that cannot be used; twins are few and made on purpose.
    """
    source = open_table(table)
    missing = [name for name in NEEDED if name not in source.columns]
    if missing:
        raise DataError(
            f"{TABLE} has no column {', '.join(missing)}",
            where=str(table),
            fix=f"give {', '.join(NEEDED)}, or move the file away: it is read for evaluation only",
        )
    count = 0
    with pq.ParquetWriter(folder / FILE, SCHEMA, compression="none") as writer:
        rows: list[dict[str, Any]] = []
        for number, row in source.rows():
            rows.append(_stored(row, table.parent, number))
            if len(rows) == ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                count, rows = count + len(rows), []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    return count + len(rows)


def _stored(row: dict[str, Any], folder: Path, number: int) -> dict[str, Any]:
    where = f"{TABLE}, row {number}"
    try:
        change = float(row["log_price_change"])
    except (TypeError, ValueError):
        change = math.nan
    if not math.isfinite(change):
        raise DataError(f"log_price_change is {row['log_price_change']!r}", where=where, fix="write a number")
    pictures = {}
    for name in ("first_image", "second_image"):
        path = (folder / str(row[name])).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise DataError(f"{name} lies outside of {folder}", where=where, fix="name a path below the table's folder")
        try:
            pictures[name] = prepare(read_bytes(path)).data
        except (OSError, PictureError) as error:
            raise DataError(f"{name} cannot be read: {error}", where=where, fix="mend or leave out the pair") from None
    values = {name: str(row.get(name) or "") for name in ("attribute", "first", "second")}
    return values | pictures | {"log_price_change": change}


def read_twins(folder: Path) -> Iterator[TwinPair]:
    """The twins of a data set folder, some at a time; none where it has none."""
    path = folder / FILE
    if not path.is_file():
        return
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
                yield from (TwinPair(**row) for row in batch.to_pylist())
    except (pa.ArrowException, OSError, TypeError) as error:
        raise DataError(f"cannot read the twins of {folder}: {error}", fix="build the data set again") from None
