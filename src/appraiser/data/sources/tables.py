"""Tables in files: CSV, TSV, JSONL, Parquet."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from appraiser.data.sources.conversations import read_conversations
from appraiser.data.sources.source import Rows, Source, licence_of, not_utf8
from appraiser.errors import DataError

MAX_CELL_CHARACTERS = 1_000_000
TABLE_NAMES = (
    "products.csv", "metadata.csv", "metadata.jsonl", "metadata.parquet", "labels.csv", "products.parquet",
    "products.jsonl",
)  # fmt: skip


def open_table(path: Path) -> Source:
    """Open a table file.

    Raises:
        DataError: nothing there, not a table, or a damaged one; the message names file and line.
    """
    if not path.is_file():
        raise DataError(
            f"no table at {path}",
            fix=f"name a table ({', '.join(READERS)}), a folder that holds one, class folders, or hub:owner/name",
        )
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path.name} is not a table this reads", fix=f"use one of {', '.join(READERS)}")
    columns, rows = reader(path)
    truth, sample = _sample_truth(path.parent)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Source(str(path), tuple(columns), rows, path.parent, sha256, licence_of(path.parent), truth, sample)


def _read_csv(path: Path) -> tuple[list[str], Rows]:
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            columns = list(csv.DictReader(file, delimiter=delimiter, strict=True).fieldnames or [])
        except UnicodeDecodeError:
            raise not_utf8(path) from None
        except csv.Error as error:
            raise DataError(
                f"{path.name} cannot be read: {error}", fix="save it as UTF-8 comma-separated text"
            ) from None
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if not columns or twice:
        what = f"names a column twice: {', '.join(map(repr, twice))}" if twice else "is empty"
        raise DataError(f"{path.name} {what}", fix="the first line names the columns, each once")

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        number = 0
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            try:
                for number, row in enumerate(reader, start=1):
                    if None in row:
                        raise DataError(
                            f"row {number} has more cells than the {len(columns)} columns",
                            where=f"{path.name}, line {reader.line_num}",
                            fix="put texts with commas between double quotes",
                        )
                    row.pop("", None)
                    yield number, row
            except UnicodeDecodeError:
                raise not_utf8(path) from None
            except csv.Error as error:
                raise DataError(
                    f"cannot read on after row {number}: {error}",
                    where=f"{path.name}, line {reader.reader.line_num}",
                    fix="save the table as UTF-8 with complete quotes",
                ) from None

    # pandas writes its row numbers under an empty name; nobody means them.
    return [name for name in columns if name], rows


def _read_jsonl(path: Path) -> tuple[list[str], Rows]:
    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _json_row(line, number, path)

    # No header names the columns, so one pass over the file does.
    return list(dict.fromkeys(name for _, row in rows() for name in row)), rows


def _json_row(line: bytes, number: int, path: Path) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError:
        raise not_utf8(path) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON: {error}", where=f"{path.name}, line {number}", fix="one object a line") from None
    if not isinstance(row, dict):
        raise DataError("not a JSON object", where=f"{path.name}, line {number}", fix="one object a line")
    return row


def _read_parquet(path: Path) -> tuple[list[str], Rows]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # By default the whole file would be read ahead: 4,096 pictures were 89 MB instead of 16.
        file = pq.ParquetFile(path, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path.name} is no Parquet file: {error}", fix="write it again") from None

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        number = 0
        try:
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"cannot read on after row {number}: {str(error)[:300]}", where=path.name, fix="write the file again"
            ) from None

    return list(file.schema_arrow.names), rows


def _sample_truth(folder: Path) -> tuple[Mapping[int, Mapping[str, Any]] | None, Mapping[str, Any] | None]:
    """Facts that `appraiser sample` writes beside its table: what an oracle would answer."""
    table, facts = folder / "truth.csv", folder / "truth.json"
    if not (table.is_file() and facts.is_file()):
        return None, None
    columns, rows = _read_csv(table)
    known = {"oracle_price": float, "visible_words": str}
    truth = {
        number: {f"truth_{key}": kind(row[key]) for key, kind in known.items() if key in columns}
        for number, row in rows()
    }
    return truth, json.loads(facts.read_text(encoding="utf-8"))


READERS: Mapping[str, Callable[[Path], tuple[list[str], Rows]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
    ".json": read_conversations,
}
