"""What is asked about: every picture of a folder, or every row of a table, numbered and in order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from appraiser.data.building.rows import RowProblem, is_url, local_picture, picture_places
from appraiser.data.dataset import is_dataset, open_dataset
from appraiser.data.exports.facts import is_export
from appraiser.data.records import FieldMap, guess_fields
from appraiser.data.sources import PICTURE_SUFFIXES, Source, open_source
from appraiser.errors import DataError
from appraiser.json_text import json_line

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
MAX_SHOWN = 2000
"""Characters of a picture's place in the output: data URLs hold whole pictures."""


@dataclass(frozen=True)
class InputRow:
    """One row of the source.

    Args:
        position: counted from 0.
        head: the first columns of its row in the output: `picture`, and `id` where the table has one.
        places: where its pictures are: paths, URLs, {"bytes": ...}; after `with_files` URLs and bytes alone, and
            after `Loader.gather` bytes alone.
        error: `reason: detail` where it cannot be used.
    """

    position: int
    head: Mapping[str, str | None]
    places: tuple[Any, ...] = ()
    error: str | None = None

    @property
    def num_bytes(self) -> int:
        return sum(len(place) for place in self.places if isinstance(place, bytes))

    def with_files(self, source: Source) -> InputRow:
        """The row with the bytes of all its pictures that are in the table or on this machine."""
        try:
            found = (place if is_url(place) else local_picture(place, source) for place in self.places)
            return replace(self, places=tuple(found))
        except RowProblem as problem:
            return replace(self, places=(), error=f"{problem.reason}: {problem.detail}")


@dataclass(frozen=True)
class Inputs:
    """All that is asked about.

    Args:
        total: number of rows.
        sha256: changes with the source; of loose pictures, with their names, sizes and times.
    """

    source: Source
    fields: FieldMap
    total: int
    sha256: str

    def rows(self) -> Iterator[InputRow]:
        """All rows, read one after the other.

        Raises:
            DataError: the source cannot be read on.
        """
        has_ids = "id" in self.fields.columns
        for position, (number, row) in enumerate(self.source.rows()):
            identifier = self.fields.value(row, "id") if has_ids else None
            ids = {"id": None if identifier is None else plain(str(identifier))} if has_ids else {}
            try:
                places = picture_places(row, self.fields)
            except RowProblem as problem:
                shown = f"row {number}"
                yield InputRow(position, {"picture": shown} | ids, error=f"{problem.reason}: {problem.detail}")
                continue
            yield InputRow(position, {"picture": _shown(places, number)} | ids, tuple(places))


def open_inputs(source: Path, mapping: Mapping[str, Sequence[str]] | None = None) -> Inputs:
    """Open a picture, a folder of pictures, a table, a data set folder or an export of one.

    Args:
        mapping: field -> columns where the guess is wrong: `image`, `id`.

    Raises:
        DataError: nothing there, or no pictures, or a table that cannot be read.
        ConfigError: a field that does not exist.
    """
    if source.suffix.lower() in TABLE_SUFFIXES and source.is_file():
        return _of_table(source, mapping or {})
    if source.is_dir():
        if is_dataset(source):
            return _of_table(source, mapping or {})
        found = sorted(path for path in source.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
        if not found and is_export(source):  # shards: the pictures are in them
            return _of_table(source, mapping or {})
        if not found:
            raise DataError(f"no pictures in {source}", fix=f"it needs files ending in {', '.join(PICTURE_SUFFIXES)}")
        return _of_pictures(source, found)
    if not source.is_file():
        raise DataError(f"no picture, folder or table at {source}", fix="check the path")
    return _of_pictures(source, [source])


def plain(text: str) -> str:
    """The text without half characters (lone surrogates), which no output could hold."""
    return text.encode("utf-8", "backslashreplace").decode()


def _of_pictures(name: Path, found: Sequence[Path]) -> Inputs:
    digest = hashlib.sha256()
    for path in found:
        try:
            stat = path.stat()
            state = (stat.st_size, stat.st_mtime_ns)
        except OSError:  # a link to nothing: its row will say so
            state = (-1, -1)
        digest.update(f"{path.relative_to(name)}\0{state}\n".encode("utf-8", "surrogateescape"))

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        yield from ((number, {"image": str(path)}) for number, path in enumerate(found, start=1))

    # Paths are as the user wrote them, so they start where the user is.
    source = Source(str(name), ("image",), rows, Path(), digest.hexdigest())
    return Inputs(source, FieldMap({"image": ("image",)}), len(found), source.sha256)


def _of_table(path: Path, mapping: Mapping[str, Sequence[str]]) -> Inputs:
    source = open_source(str(path))
    fields = guess_fields(source.columns, mapping, path.name, needs_labels=False)
    total = _num_rows(path, source)
    if not total:
        raise DataError(f"{path} has no rows", fix="the table needs one row per product")
    return Inputs(source, fields, total, source.sha256)


def _num_rows(path: Path, source: Source) -> int:
    """Rows of a source, without reading pictures where that can be known."""
    if path.suffix.lower() == ".parquet" and path.is_file():
        import pyarrow.parquet as pq

        return int(pq.read_metadata(path).num_rows)
    if is_dataset(path):
        return open_dataset(path).manifest.ok
    return sum(1 for _ in source.rows())  # a damaged line is found here, before anything is computed


def _shown(places: Sequence[Any], number: int) -> str:
    """A row's pictures as its table writes them; a JSON list of several."""
    names = [place.get("path") if isinstance(place, Mapping) else place for place in places]
    texts = [plain(name)[:MAX_SHOWN] if isinstance(name, str) else f"row {number}" for name in names]
    return texts[0] if len(texts) == 1 else json_line(texts)
