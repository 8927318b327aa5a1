"""Product tables as their owners keep them -> rows with named fields.

Readers give every row of a source as a plain dict of its own columns; `FieldMap` says which columns hold title,
category, price and picture. A guess is made from the usual names, shown to the user, and can be overridden.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from appraiser.errors import ConfigError, DataError

# Real tables write these where a value is missing; N.A. is the luxury shops' own sentinel.
MISSING = frozenset({"", "n.a.", "n/a", "na", "nan", "none", "null", "-"})
MAX_CELL_CHARACTERS = 1_000_000

# First column found wins; several columns are fallbacks for each other, in this order.
GUESSES: dict[str, list[list[str]]] = {
    "id": [["product_code"], ["id"], ["sku"], ["product_id"], ["asin"]],
    "image": [["image", "imageurl"], ["images"], ["local_image_path"], ["file_name"], ["image_path"], ["picture"],
              ["image_url"], ["imageurl"], ["img"]],
    "title": [["title"], ["product_name"], ["name"], ["product_title"]],
    "category": [["category3_code", "category2_code", "category1_code"], ["category"], ["label"], ["class"]],
    "price": [["full_price"], ["price"]],
    "currency": [["currency_code"], ["currency"]],
    "group": [["group"], ["group_id"]],
}  # fmt: skip
Rows = Callable[[], Iterator[tuple[int, dict[str, Any]]]]
PRICE_TEXT = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True)
class Source:
    """A table and where its relative picture paths start.

    Args:
        rows: begins to read (row number counted from 1, column -> value).
        sha256: changes with the table's contents.
        truth: per row number, facts known only of sample data (oracle price, visible words).
    """

    name: str
    columns: tuple[str, ...]
    rows: Rows
    folder: Path | None
    sha256: str
    licence: str | None = None
    truth: Mapping[int, Mapping[str, Any]] | None = None
    sample: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class FieldMap:
    """Field -> columns to try in order. Fields without a column are absent."""

    columns: dict[str, tuple[str, ...]]

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

    def values(self, fields: Sequence[str]) -> dict[str, str | float]:
        """The record's values for a task's fields.

        Raises:
            DataError: a field that this record does not have.
        """
        found: dict[str, str | float] = {}
        for field in fields:
            value = getattr(self, field) if field in ("title", "category", "price") else (self.extra or {}).get(field)
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


def parse_price_cell(value: Any) -> float | None:
    """A positive price from a cell, or None. Texts must be plain numbers such as 1290 or 109.99.

    `1.290`, `1,290`, `$12` or `1e9` could mean several prices or none; such rows are quarantined, not guessed.
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float | Decimal):
        try:
            price = float(value)
        except (OverflowError, ValueError):
            return None
    else:
        text = str(value).strip()
        if not PRICE_TEXT.fullmatch(text) or re.fullmatch(r"\d{1,3}\.\d{3}", text):
            return None
        price = float(text)
    # What an answer can write: at least one cent, at most thirteen digits before the point.
    return price if 0.005 < price < 1e13 - 0.01 else None


def guess_fields(
    columns: Sequence[str], override: Mapping[str, Sequence[str]], source: str, *, needs_labels: bool = True
) -> FieldMap:
    """Fields of a table by the usual column names, with the user's own mapping on top.

    Args:
        needs_labels: False where only the pictures matter.

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
    if "image" not in found:
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


def open_source(name: str) -> Source:
    """Open a table: `products.csv`, .tsv, .jsonl, .parquet, a folder holding one, or `hub:owner/name`.

    Raises:
        DataError: nothing there, not a table, or a damaged one; the message names file and line.
    """
    if name.startswith("hub:"):
        return _open_hub(name.removeprefix("hub:"))
    path = Path(name)
    if path.is_dir():
        path = _table_in(path)
    if not path.is_file():
        raise DataError(
            f"no table at {path}",
            fix="name a .csv, .tsv, .jsonl or .parquet file, a folder that holds one, or hub:owner/name",
        )
    readers = {".csv": _read_csv, ".tsv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path.name} is not a table this reads", fix=f"use one of {', '.join(readers)}")
    columns, rows = reader(path)
    truth, sample = _sample_truth(path.parent)
    licence = next((file.name for file in path.parent.glob("LICEN[CS]E*")), None)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Source(str(path), tuple(columns), rows, path.parent, sha256, licence, truth, sample)


def _table_in(folder: Path) -> Path:
    names = ("products.csv", "metadata.csv", "metadata.jsonl", "labels.csv", "products.parquet", "products.jsonl")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"no table in {folder}", fix=f"put one of {', '.join(names)} there, or name the file itself")


def _read_csv(path: Path) -> tuple[list[str], Rows]:
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            columns = list(csv.DictReader(file, delimiter=delimiter, strict=True).fieldnames or [])
        except UnicodeDecodeError:
            raise _not_utf8(path) from None
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
                raise _not_utf8(path) from None
            except csv.Error as error:
                raise DataError(
                    f"cannot read on after row {number}: {error}",
                    where=f"{path.name}, line {reader.reader.line_num}",
                    fix="save the table as UTF-8 with complete quotes",
                ) from None

    # pandas writes its row numbers under an empty name; nobody means them.
    return [name for name in columns if name], rows


def _not_utf8(path: Path) -> DataError:
    """The error for a table in another encoding, with the line: decoders only know the place within a block."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return DataError(
                    f"not UTF-8: byte {line[error.start]:#04x} after {line[: error.start][-20:].decode()!r}",
                    where=f"{path.name}, line {number}",
                    fix="save the table as UTF-8 (spreadsheets call it CSV UTF-8)",
                )
    return DataError(f"{path.name} is not UTF-8", fix="save the table as UTF-8")


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
        raise _not_utf8(path) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON: {error}", where=f"{path.name}, line {number}", fix="one object a line") from None
    if not isinstance(row, dict):
        raise DataError("not a JSON object", where=f"{path.name}, line {number}", fix="one object a line")
    return row


def _read_parquet(path: Path) -> tuple[list[str], Rows]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
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


def _open_hub(name: str) -> Source:
    from datasets import Image as ImageFeature
    from datasets import load_dataset

    try:
        loaded = load_dataset(name, split="train")
    except Exception as error:  # the Hub client raises some fifteen kinds; all mean the same to the user
        raise DataError(
            f"cannot load {name} from the Hub: {(str(error) or type(error).__name__).splitlines()[0][:300]}",
            fix="check the name and the network, or HF_ENDPOINT; a private set needs a token (hf auth login)",
        ) from error
    for column, feature in loaded.features.items():
        if isinstance(feature, ImageFeature):
            loaded = loaded.cast_column(column, ImageFeature(decode=False))
    licence = loaded.info.license or None

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        return ((number, dict(row)) for number, row in enumerate(loaded, start=1))

    # The fingerprint follows the files' content and what was done to it.
    version = hashlib.sha256(f"{name} {loaded._fingerprint}".encode()).hexdigest()
    return Source(f"hub:{name}", tuple(loaded.column_names), rows, None, version, licence)


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
