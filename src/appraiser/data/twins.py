"""Twins of a data set: pairs of pictures that differ in one attribute, and what that changes in the price.

twins.csv beside a table    attribute, first_image, second_image, log_price_change (ln of second price / first price)
twins.parquet in a data set the same with the pictures inside

They are for evaluation alone: does a model's price move as the truth does? No split holds them, and no pair belongs to
a record: a data set that is built from another one takes all of them over.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from appraiser.data.dataset import is_dataset, open_dataset
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


def store_twins(source: Path | None, folder: Path) -> int:
    """Write the twins that lie in a source's folder into a data set folder, as `twins.parquet`.

    Args:
        source: where a table lies, or a data set.

    Returns:
        The number of pairs; without any, nothing is written.

    Raises:
        DataError: a column is missing, or a row that cannot be used; twins are few and made on purpose.
    """
    if source is None:
        return 0
    if is_dataset(source):
        wanted = open_dataset(source).manifest.twins
        count = _write(map(asdict, read_twins(source)), folder) if wanted else 0
        if count != wanted:
            raise DataError(
                f"{FILE} has {count} pairs, the manifest counts {wanted}",
                where=str(source),
                fix="build that data set again",
            )
        return count
    table = source / TABLE
    return _write(_rows_of(table), folder) if table.is_file() else 0


def _rows_of(table: Path) -> Iterator[dict[str, Any]]:
    source = open_table(table)
    missing = [name for name in NEEDED if name not in source.columns]
    if missing:
        raise DataError(
            f"{TABLE} has no column {', '.join(missing)}",
            where=str(table),
            fix=f"give {', '.join(NEEDED)}, or move the file away: it is read for evaluation only",
        )
    for number, row in source.rows():
        yield _stored(row, table.parent, number)


def _write(pairs: Iterable[dict[str, Any]], folder: Path) -> int:
    """Write pairs, some at a time; returns their number."""
    waiting = iter(pairs)
    count = 0
    with pq.ParquetWriter(folder / FILE, SCHEMA, compression="none") as writer:
        while rows := list(islice(waiting, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
            count += len(rows)
    return count


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
