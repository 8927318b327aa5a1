"""Rows that are finished, kept on disk until the output is written: a run that was killed goes on where it stopped.

`.predictions.parquet.progress` lies beside `predictions.parquet` for as long as that is not written. Rows enter in one
transaction per batch and are on the disk when it ends; whoever has it open keeps all others from writing that output.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from appraiser.errors import ConfigError, DataError
from appraiser.json_text import json_line

LEDGER_FORMAT = "1"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rows (position INTEGER PRIMARY KEY, failed INTEGER NOT NULL, entry TEXT NOT NULL);
"""
MAX_SHOWN = 16


class Ledger:
    """Finished rows of one output. A context manager; one that is left without any row leaves no file.

    Args:
        out: the file that is to be written.
        facts: what its rows depend on: name -> value. They go on only under the same.
        fresh: throw away what is there.

    Raises:
        ConfigError: the rows that are there depend on something else; or another process writes the same output.
        DataError: the file is damaged, or cannot be made.
    """

    def __init__(self, out: Path, facts: Mapping[str, str], *, fresh: bool = False) -> None:
        self.out = out
        self.path = out.with_name(f".{out.name}.progress")
        facts = {"format": LEDGER_FORMAT} | dict(facts)
        self._database = self._connected()
        try:
            self._begin(facts, fresh)
        except sqlite3.Error as error:
            self._database.close()
            raise self._cannot(error) from error
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.path.exists() and not self._has_rows():
            self.remove()
        self._database.close()

    def done(self, total: int) -> bytearray:
        """1 for every row that is finished, 0 for the others."""
        done = bytearray(total)
        for (position,) in self._database.execute("SELECT position FROM rows"):
            done[position] = 1
        return done

    def write(self, batch: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """Enter finished rows, all or none of them; they are on the disk when this returns.

        Raises:
            DataError: no space.
        """
        entries = [(position, "error" in row, json_line(dict(row))) for position, row in batch]
        try:
            with self._database:  # commits, or rolls back on an error
                self._database.execute("BEGIN")
                self._database.executemany("INSERT INTO rows VALUES (?, ?, ?)", entries)
        except sqlite3.OperationalError as error:
            raise self._cannot(error) from error

    def rows(self) -> Iterator[dict[str, Any]]:
        """All finished rows by position, read one after the other."""
        for (entry,) in self._database.execute("SELECT entry FROM rows ORDER BY position"):
            yield json.loads(entry)

    def num_failed(self) -> int:
        """Finished rows that are errors."""
        (count,) = self._database.execute("SELECT count(*) FROM rows WHERE failed").fetchone()
        return int(count)

    def remove(self) -> None:
        """Remove the file; others may write the output from now on."""
        # First the log of writes goes into the file: a log that stayed behind would be played into the next ledger.
        # MEMORY, as any other mode would leave another file.
        self._database.execute("PRAGMA journal_mode = MEMORY")
        self.path.unlink(missing_ok=True)

    def _begin(self, facts: Mapping[str, str], fresh: bool) -> None:
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            if fresh:
                self._database.execute("DROP TABLE IF EXISTS facts")
                self._database.execute("DROP TABLE IF EXISTS rows")
            for statement in filter(str.strip, _SCHEMA.split(";")):
                self._database.execute(statement)
            found = dict(self._database.execute("SELECT name, value FROM facts"))
            if found and found != facts and self._has_rows():
                raise self._other(found, facts)
            self._database.execute("DELETE FROM facts")
            self._database.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())

    def _has_rows(self) -> bool:
        return self._database.execute("SELECT 1 FROM rows LIMIT 1").fetchone() is not None

    def _connected(self) -> sqlite3.Connection:
        """The database, with its lock: it ends with the process, however that ends."""
        while True:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                before = _inode(self.path)
                # One thread uses it at a time, but in a notebook that is not the thread that opened it.
                database = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
            except (OSError, sqlite3.Error) as error:
                raise self._cannot(error) from error
            try:
                database.execute("PRAGMA locking_mode = EXCLUSIVE")
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                database.execute("BEGIN IMMEDIATE")
                database.execute("COMMIT")
            except sqlite3.Error as error:
                database.close()
                if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise ConfigError(
                        f"another process is writing {self.out}", fix="wait for it, or name another file"
                    ) from None
                if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                    raise self._damaged(error) from None
                raise self._cannot(error) from error
            after = _inode(self.path)
            if after is not None and before in (None, after):
                return database
            database.close()  # its owner finished and removed it while it was opened: begin another one

    def _other(self, found: Mapping[str, str], facts: Mapping[str, str]) -> ConfigError:
        differing = [name for name in dict.fromkeys([*found, *facts]) if found.get(name) != facts.get(name)]
        (count,) = self._database.execute("SELECT count(*) FROM rows").fetchone()
        then_and_now = (f"{name} {_short(found.get(name))} then, {_short(facts.get(name))} now" for name in differing)
        return ConfigError(
            f"{count} row(s) of {self.out} are finished, with another {' and another '.join(differing)}",
            where=f"{self.path}: {'; '.join(then_and_now)}",
            fix="start it as it was begun and it goes on, or throw these rows away: add --fresh",
        )

    def _damaged(self, error: Exception) -> DataError:
        return DataError(
            f"{self.path} is damaged ({error}): what was finished cannot be read",
            fix="remove it and begin anew",
        )

    def _cannot(self, error: Exception) -> DataError:
        if isinstance(error, sqlite3.DatabaseError) and error.sqlite_errorcode & 0xFF in (
            sqlite3.SQLITE_NOTADB,
            sqlite3.SQLITE_CORRUPT,
        ):
            return self._damaged(error)
        said = getattr(error, "strerror", None) or error
        return DataError(f"cannot write {self.path}: {said}", fix="check space and permissions, then start again")


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _short(value: str | None) -> str:
    """Hashes by their beginning."""
    return "unset" if value is None else value if len(value) <= 3 * MAX_SHOWN else f"{value[:MAX_SHOWN]}..."
