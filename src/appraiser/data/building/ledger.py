"""What became of every row so far, kept on disk: an interrupted build goes on where it stopped.

Pictures are appended to one file; a row enters the ledger after its pictures, in one transaction per batch. Whatever
lies in the file behind the last row of the ledger is what a killed build left, and is cut off.
"""

from __future__ import annotations

import errno
import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from appraiser.data.building.decoding import Decoded
from appraiser.data.reasons import Reason
from appraiser.errors import DataError

LEDGER_FORMAT = 2
_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE rows (
    row INTEGER PRIMARY KEY,
    reason TEXT,            -- NULL: kept
    detail TEXT,
    pictures TEXT,          -- JSON: [offset, length, sha256] of each
    look BLOB,              -- of the first picture
    width INTEGER,
    height INTEGER,
    CHECK ((reason IS NULL) = (pictures IS NOT NULL))
);
"""


@dataclass(frozen=True)
class Place:
    """Where a stored picture lies in the ledger's picture file."""

    offset: int
    length: int
    sha256: str


@dataclass(frozen=True)
class Kept:
    """A row whose pictures are stored."""

    row: int
    pictures: tuple[Place, ...]
    look: np.ndarray
    """[800] uint8: look of the first picture."""
    size: tuple[int, int]
    """(width, height) of the first picture."""

    @property
    def picture_hash(self) -> str:
        """One name for all pictures of the row together."""
        return ":".join(place.sha256 for place in self.pictures)


@dataclass(frozen=True)
class Quarantined:
    """A row that cannot be used, and why."""

    row: int
    reason: Reason
    detail: str


class Ledger:
    """Terminal states of rows, with the stored pictures. A context manager.

    Args:
        folder: where ledger and pictures lie; made if missing.
        source: what the rows come from, by content. Rows of another source are thrown away.
    """

    def __init__(self, folder: Path, source: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._pictures_path = folder / "pictures.bin"
        self._database = _connected(folder / "ledger.sqlite")
        facts = {"format": str(LEDGER_FORMAT), "source": source}
        if self._facts() != facts:
            self._begin_anew(facts)
        end = self._end_of_pictures()
        self._pictures = self._pictures_path.open("ab+")
        if self._pictures.seek(0, 2) < end:  # a power cut: rows were written down, their pictures were not
            self._begin_anew(facts)
            end = 0
        self._pictures.truncate(end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pictures.close()
        self._database.close()

    def done(self) -> set[int]:
        """Numbers of the rows that have their state."""
        return {row for (row,) in self._database.execute("SELECT row FROM rows")}

    def write(self, states: Iterable[tuple[int, Decoded] | Quarantined]) -> None:
        """Enter the states of rows, all or none of them.

        Raises:
            OSError: no space.
        """
        entries = [self._entry(state) for state in states]
        self._pictures.flush()
        self._database.execute("BEGIN")
        try:
            with self._database:  # commits, or rolls back on an error
                self._database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?)", entries)
        except sqlite3.OperationalError as error:
            raise OSError(errno.EIO, str(error)) from error

    def forget(self, reasons: Sequence[str]) -> int:
        """Take quarantined rows with these reasons out again, so that they are tried again; says how many."""
        marks = ", ".join("?" for _ in reasons)
        return self._database.execute(f"DELETE FROM rows WHERE reason IN ({marks})", list(reasons)).rowcount

    def kept(self) -> list[Kept]:
        """All kept rows by number."""
        query = "SELECT row, pictures, look, width, height FROM rows WHERE reason IS NULL ORDER BY row"
        return [
            Kept(
                row,
                tuple(Place(*place) for place in json.loads(pictures)),
                np.frombuffer(look, np.uint8),
                (width, height),
            )
            for row, pictures, look, width, height in self._database.execute(query)
        ]

    def quarantined(self) -> list[Quarantined]:
        """All quarantined rows by number."""
        query = "SELECT row, reason, detail FROM rows WHERE reason IS NOT NULL ORDER BY row"
        return [Quarantined(*row) for row in self._database.execute(query)]

    def picture(self, place: Place) -> bytes:
        """Bytes of a stored picture."""
        self._pictures.seek(place.offset)
        return self._pictures.read(place.length)

    def _entry(self, state: tuple[int, Decoded] | Quarantined) -> tuple[object, ...]:
        if isinstance(state, Quarantined):
            return (state.row, state.reason, state.detail, None, None, None, None)
        row, decoded = state
        places = []
        for picture in decoded.pictures:
            places.append((self._pictures.seek(0, 2), len(picture.data), picture.sha256))
            self._pictures.write(picture.data)
        first = decoded.pictures[0]
        look = decoded.look.tobytes()
        return (row, None, None, json.dumps(places), look, first.width, first.height)

    def _facts(self) -> dict[str, str] | None:
        if not self._database.execute("SELECT 1 FROM sqlite_master WHERE name = 'facts'").fetchone():
            return None
        return dict(self._database.execute("SELECT name, value FROM facts"))

    def _begin_anew(self, facts: dict[str, str]) -> None:
        self._database.executescript("DROP TABLE IF EXISTS facts; DROP TABLE IF EXISTS rows;" + _SCHEMA)
        self._database.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())

    def _end_of_pictures(self) -> int:
        # Rows end in any order: the last picture need not be the last row's.
        places = self._database.execute("SELECT pictures FROM rows WHERE reason IS NULL")
        return max((offset + length for (text,) in places for offset, length, _ in json.loads(text)), default=0)


def _connected(path: Path) -> sqlite3.Connection:
    """Open the database, and keep others out as long as it is open.

    Raises:
        DataError: another build has it open.
    """
    for attempt in ("as it is", "anew"):
        # One thread uses it at a time, but in a notebook that is not the thread that opened it.
        database = sqlite3.connect(path, timeout=0.5, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = WAL")
            # A killed process loses nothing; a power cut may cost the last rows, which are then done again.
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("BEGIN IMMEDIATE")
            database.execute("COMMIT")
            return database
        except sqlite3.OperationalError as error:
            database.close()
            raise DataError(
                f"another build is writing the same data set ({error})",
                where=str(path.parent),
                fix="wait for it, or name another folder",
            ) from None
        except sqlite3.DatabaseError:  # not a database: damaged, and everything in it can be made again
            database.close()
            if attempt == "anew":
                raise
            path.unlink()
    raise OSError(f"cannot make {path}")
