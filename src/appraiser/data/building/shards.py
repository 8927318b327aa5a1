"""Records -> Parquet shards with the pictures inside and the Image feature that `datasets` shows.

Column types are found in a first pass over all rows, so that all splits share them; rows are written in a second pass.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from appraiser.data.building.ledger import Kept, Place, Quarantined
from appraiser.data.building.rows import RowValues
from appraiser.data.records import is_missing

ROWS_PER_SHARD = 4096
ROWS_PER_GROUP = 256
WHOLE_TEXT = re.compile(r"0|-?[1-9][0-9]{0,17}")  # fits an int64
# At most 15 digits and a point: what a float64 gives back as it was written.
NUMBER_TEXT = re.compile(r"-?(?=[0-9.]{1,16}$)(0|[1-9][0-9]{0,14})(\.[0-9]+)?")
IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class ColumnTypes:
    """Types of the source's own columns: whole numbers, numbers, or text, found row by row.

    Text like 007, 1e5 or 1_000 stays text, a number is never rounded.
    """

    def __init__(self) -> None:
        self._is_whole: dict[str, bool] = {}
        self._is_number: dict[str, bool] = {}
        self._names: dict[str, None] = {}

    def see(self, extra: dict[str, Any]) -> None:
        """Take one row's values into account."""
        for name, value in extra.items():
            self._names[name] = None
            if not is_missing(value):
                self._is_whole[name] = self._is_whole.get(name, True) and _is_whole(value)
                self._is_number[name] = self._is_number.get(name, True) and _is_number(value)

    def found(self) -> dict[str, pa.DataType]:
        """Column -> type, in the order of first appearance."""
        return {name: self._of(name) for name in self._names}

    def _of(self, name: str) -> pa.DataType:
        if self._is_whole.get(name, False):
            return pa.int64()
        return pa.float64() if self._is_number.get(name, False) else pa.string()


@dataclass(frozen=True)
class Layout:
    """Columns that all splits share: `datasets` opens them as one table.

    Args:
        currency: of rows that do not name their own.
    """

    fields: frozenset[str]
    currency: str | None
    has_several_pictures: bool
    extra: dict[str, pa.DataType]

    def schema(self) -> pa.Schema:
        """Columns in order, with the features that `datasets` reads."""
        columns: dict[str, pa.DataType] = {"id": pa.string()}
        if self.has_several_pictures:
            columns["images"] = pa.list_(IMAGE_TYPE)
        else:
            columns["image"] = IMAGE_TYPE
        columns |= {name: pa.string() for name in ("title", "category") if name in self.fields}
        columns |= {"price": pa.float64()} if "price" in self.fields else {}
        columns |= {"currency": pa.string(), "group": pa.string()} | self.extra
        features = {name: _feature(name, kind) for name, kind in columns.items()}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        return pa.schema(list(columns.items()), metadata=metadata)


@dataclass(frozen=True)
class Record:
    """One row on its way into a shard."""

    kept: Kept
    values: RowValues
    group: str


@dataclass
class _Split:
    num_shards: int
    num_written: int = 0
    waiting: list[Record] = field(default_factory=list)
    writer: pq.ParquetWriter | None = None


class ShardWriter:
    """Writes `<split>-00000-of-00002.parquet` files; a context manager.

    Args:
        sizes: rows of each split, as file names say how many shards there are.
        picture: bytes of a stored picture.
    """

    def __init__(self, folder: Path, layout: Layout, sizes: dict[str, int], picture: Callable[[Place], bytes]) -> None:
        self.folder = folder
        self.layout = layout
        self.schema = layout.schema()
        self._picture = picture
        self._splits = {name: _Split(math.ceil(size / ROWS_PER_SHARD)) for name, size in sizes.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, split in self._splits.items():
            if kind is None:
                self._flush(name, split)
            if split.writer is not None:
                split.writer.close()

    def write(self, split: str, record: Record) -> None:
        """Append a record to a split."""
        state = self._splits[split]
        state.waiting.append(record)
        shard_is_full = (state.num_written + len(state.waiting)) % ROWS_PER_SHARD == 0
        if len(state.waiting) == ROWS_PER_GROUP or shard_is_full:
            self._flush(split, state)
            if shard_is_full and state.writer is not None:
                state.writer.close()
                state.writer = None

    def _flush(self, name: str, split: _Split) -> None:
        if not split.waiting:
            return
        if split.writer is None:
            shard = split.num_written // ROWS_PER_SHARD
            path = self.folder / f"{name}-{shard:05d}-of-{split.num_shards:05d}.parquet"
            split.writer = pq.ParquetWriter(path, self.schema)
        split.writer.write_table(self._table(split.waiting), row_group_size=ROWS_PER_GROUP)
        split.num_written += len(split.waiting)
        split.waiting = []

    def _table(self, records: Sequence[Record]) -> pa.Table:
        columns: dict[str, list[Any]] = {
            "id": [record.values.fields["id"] for record in records],
            "currency": [record.values.fields.get("currency", self.layout.currency) for record in records],
            "group": [record.group for record in records],
        }
        pictures = [
            [{"bytes": self._picture(place), "path": None} for place in record.kept.pictures] for record in records
        ]
        columns |= {"images": pictures} if self.layout.has_several_pictures else {"image": [p[0] for p in pictures]}
        for name in ("title", "category", "price"):
            if name in self.layout.fields:
                columns[name] = [record.values.fields[name] for record in records]
        for name, kind in self.layout.extra.items():
            columns[name] = [_converted(record.values.extra.get(name), kind) for record in records]
        return pa.Table.from_pydict(columns, schema=self.schema)


def write_quarantine(path: Path, states: Sequence[Quarantined]) -> None:
    """Row number, reason and detail of every row that was left out."""
    columns = {
        "row": pa.array([state.row for state in states], pa.int64()),
        "reason": pa.array([state.reason for state in states], pa.string()),
        "detail": pa.array([state.detail for state in states], pa.string()),
    }
    pq.write_table(pa.table(columns), path)


def _feature(name: str, kind: pa.DataType) -> dict[str, Any]:
    if name == "image":
        return {"_type": "Image"}
    if name == "images":
        return {"feature": {"_type": "Image"}, "_type": "List"}
    return {"dtype": str(kind).replace("double", "float64"), "_type": "Value"}


def _is_whole(value: Any) -> bool:
    if isinstance(value, str):
        return WHOLE_TEXT.fullmatch(value) is not None
    return isinstance(value, int) and abs(value) < 2**63


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return NUMBER_TEXT.fullmatch(value) is not None
    return isinstance(value, int | float | Decimal) and -(2**53) < value < 2**53


def _converted(value: Any, kind: pa.DataType) -> str | int | float | None:
    if pa.types.is_string(kind):
        return None if value is None else str(value)
    if is_missing(value):
        return None
    return int(value) if pa.types.is_integer(kind) else float(value)
