"""Predictions as a table: CSV, JSONL or Parquet, streamed, whole or not at all."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

from appraiser.durable import sync
from appraiser.errors import DataError
from appraiser.json_text import json_line

OUTPUT_SUFFIXES = (".csv", ".jsonl", ".parquet")
ROWS_PER_GROUP = 4096
Row = Mapping[str, Any]
Rows = Callable[[], Iterable[Row]]
"""Begins to read all rows in order; they are read twice, as tables name their columns first."""


def check_output(out: Path) -> None:
    """Refuse an output that could not be written, before anything is computed."""
    if out.suffix not in OUTPUT_SUFFIXES:
        raise DataError(f"cannot write {out.name}", fix="end the name in .csv, .jsonl or .parquet")
    if out.is_dir():
        raise DataError(f"{out} is a folder", fix="name a file")


def write_rows(rows: Rows, out: Path) -> None:
    """Write predictions as .csv, .jsonl or .parquet, whole or not at all; on the disk when this returns.

    Raises:
        DataError: it cannot be written.
    """
    check_output(out)
    write = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}[out.suffix]
    temporary = out.with_name(f".{out.name}.writing")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(rows, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(out)
        sync(out.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"cannot write {out}: {error.strerror}", fix="check space and permissions") from error


def _write_jsonl(rows: Rows, file: IO[bytes]) -> None:
    for row in rows():
        file.write(f"{json_line(dict(row))}\n".encode())


def _write_csv(rows: Rows, file: IO[bytes]) -> None:
    writer = csv.writer(_Encoded(file))
    names = list(_kinds(rows))
    writer.writerow(names)
    for row in rows():
        writer.writerow([row.get(name) for name in names])


class _Encoded:
    """What `csv` writes texts to; a TextIOWrapper would close the file that has to be brought to the disk."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, text: str) -> None:
        self._file.write(text.encode())


def _write_parquet(rows: Rows, file: IO[bytes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types: dict[type | None, pa.DataType] = {
        bool: pa.bool_(),
        int: pa.int64(),
        float: pa.float64(),
        str: pa.string(),
        None: pa.null(),
    }
    kinds = _kinds(rows)
    schema = pa.schema([(name, types[kind]) for name, kind in kinds.items()])
    with pq.ParquetWriter(file, schema) as writer:
        left = iter(rows())
        while group := list(islice(left, ROWS_PER_GROUP)):
            columns = {name: [_as(kind, row.get(name)) for row in group] for name, kind in kinds.items()}
            writer.write_table(pa.Table.from_pydict(columns, schema))


def _kinds(rows: Rows) -> dict[str, type | None]:
    """The columns of all rows, in order of their first appearance, each with what holds all its values."""
    found: dict[str, set[type]] = {}
    for row in rows():
        for name, value in row.items():
            kinds = found.setdefault(name, set())
            if value is not None:
                kinds.add(type(value))
    return {name: _common(kinds) for name, kinds in found.items()}


def _common(kinds: set[type]) -> type | None:
    if len(kinds) <= 1:
        return next(iter(kinds), None)
    return float if kinds == {int, float} else str


def _as(kind: type | None, value: Any) -> Any:
    return str(value) if kind is str and value is not None else value


def in_order(rows: Mapping[int, Row]) -> Iterator[Row]:
    """Rows by position."""
    return (rows[position] for position in sorted(rows))
