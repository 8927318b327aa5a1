"""Product tables as their owners keep them: every row as a plain dict of its own columns.

CSV, TSV, JSONL, Parquet            products.csv | a folder that holds one
class folders                       FOLDER/coats/17.jpg: the folder's name is the category
conversations                       the JSON that other trainers read: pictures, and what was said about them
the Hub                             hub:owner/name
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appraiser.data.task import Task
from appraiser.errors import DataError

MAX_CELL_CHARACTERS = 1_000_000
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif")
TABLE_NAMES = ("products.csv", "metadata.csv", "metadata.jsonl", "labels.csv", "products.parquet", "products.jsonl")
SPLIT_FOLDERS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test"})
Rows = Callable[[], Iterator[tuple[int, dict[str, Any]]]]


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


def open_source(name: str) -> Source:
    """Open a table, a folder that holds one or class folders, a conversation file, or `hub:owner/name`.

    Raises:
        DataError: nothing there, not a table, or a damaged one; the message names file and line.
    """
    if name.startswith("hub:"):
        return _open_hub(name.removeprefix("hub:"))
    path = Path(name)
    if path.is_dir():
        table = next((path / table for table in TABLE_NAMES if (path / table).is_file()), None)
        if table is None:
            return _open_class_folders(path)
        path = table
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
    return Source(str(path), tuple(columns), rows, path.parent, sha256, _licence(path.parent), truth, sample)


def _licence(folder: Path) -> str | None:
    return next((file.name for file in folder.glob("LICEN[CS]E*")), None)


def _open_class_folders(folder: Path) -> Source:
    """Pictures in folders named after their category, in train/ and test/ folders or not."""
    found = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    has_splits = bool(found) and all(path.parts[0].lower() in SPLIT_FOLDERS for path in found)
    depth = 1 if has_splits else 0
    loose = [path for path in found if len(path.parts) < depth + 2]
    if not found or loose:
        raise DataError(
            f"{loose[0]} lies in no category's folder" if found else f"no table in {folder}",
            where=str(folder),
            fix=f"put one of {', '.join(TABLE_NAMES)} there, name the file itself, or give every category a folder",
        )
    names = [path.as_posix() for path in found]

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        for number, (path, name) in enumerate(zip(found, names, strict=True), start=1):
            row = {"image": name, "category": path.parts[depth]}
            yield number, row | ({"source_split": path.parts[0]} if has_splits else {})

    columns = ("image", "category", "source_split") if has_splits else ("image", "category")
    sha256 = hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()
    return Source(str(folder), columns, rows, folder, sha256, _licence(folder))


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


def _read_conversations(path: Path) -> tuple[list[str], Rows]:
    """Pictures and what was said about them, as LLaVA (`conversations`) or chat (`messages`) files have it.

    The first answer counts: taken apart where all are in the form of ours, a title otherwise.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path.name} is no JSON: {error}", fix="write it again") from None
    if not isinstance(entries, list):
        raise DataError(f"{path.name} is no list of conversations", fix="one object per conversation, in a list")
    table = [_conversation(entry, number, path) for number, entry in enumerate(entries, start=1)]
    parsed = [Task().parse(row["answer"]) for row in table if row["answer"]]
    if parsed and all(answer.is_complete for answer in parsed):
        answers = iter(parsed)
        table = [row | (next(answers).fields if row["answer"] else {}) for row in table]
    else:
        table = [row | {"title": row["answer"]} for row in table]
    columns = list(dict.fromkeys(name for row in table for name in row))
    return columns, lambda: iter(enumerate(table, start=1))


def _conversation(entry: Any, number: int, path: Path) -> dict[str, Any]:
    """id, images, question, answer of one conversation; the whole of it as well where it has more than that."""
    turns = (entry.get("conversations") or entry.get("messages")) if isinstance(entry, Mapping) else None
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise DataError(
            f"entry {number} has neither conversations nor messages",
            where=path.name,
            fix='it needs "conversations": [{"from": "human", "value": ...}, ...] or "messages": [{"role": ...}, ...]',
        )
    said: dict[str, list[str]] = {"user": [], "assistant": []}
    shown: list[str] = []
    for turn in turns:
        speaker = str(turn.get("from", turn.get("role", ""))).lower()
        role = {"human": "user", "gpt": "assistant"}.get(speaker, speaker)
        texts, pictures = _content(turn.get("value", turn.get("content")))
        said.setdefault(role, []).extend(texts)
        shown += pictures
    images = entry.get("images", entry.get("image", shown))
    row = {
        "id": entry.get("id"),
        "images": [images] if isinstance(images, str) else images,
        "question": next(iter(said["user"]), None),
        "answer": next(iter(said["assistant"]), None),
    }
    if sum(map(len, said.values())) > 2:
        row["conversation"] = json.dumps(turns, ensure_ascii=False)
    return row


def _content(content: Any) -> tuple[list[str], list[str]]:
    """Texts and pictures of a turn, which is a text or a list of parts."""
    texts: list[str] = []
    pictures: list[str] = []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif isinstance(part, Mapping):
            place = part.get("image", part.get("image_url", part.get("url")))
            place = place.get("url") if isinstance(place, Mapping) else place
            pictures += [place] if isinstance(place, str) else []
    return texts, pictures


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


READERS: Mapping[str, Callable[[Path], tuple[list[str], Rows]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
    ".json": _read_conversations,
}
