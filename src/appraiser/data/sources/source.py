"""What every source gives: rows as plain dicts of their own columns, and the facts about them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appraiser.errors import DataError

Rows = Callable[[], Iterator[tuple[int, dict[str, Any]]]]


@dataclass(frozen=True)
class Source:
    """A table and where its relative picture paths start.

    Args:
        rows: begins to read (row number counted from 1, column -> value).
        sha256: changes with the table's contents.
        columns: those that fields can be taken from; rows may have more.
        truth: per row number, facts known only of sample data (oracle price, visible words).
        notes: what lies there and is not read, for the user to know.
    """

    name: str
    columns: tuple[str, ...]
    rows: Rows
    folder: Path | None
    sha256: str
    licence: str | None = None
    truth: Mapping[int, Mapping[str, Any]] | None = None
    sample: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


def licence_of(folder: Path) -> str | None:
    """Name of the licence file in a folder."""
    return next((file.name for file in folder.glob("LICEN[CS]E*")), None)


def sha256_of(paths: Iterable[Path]) -> str:
    """Hash over the contents of files, in this order."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def numbered(rows: Callable[[], Iterator[dict[str, Any]]]) -> Rows:
    """Rows with their numbers."""
    return lambda: enumerate(rows(), start=1)


def not_utf8(path: Path) -> DataError:
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
