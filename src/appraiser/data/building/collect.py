"""Every row of a source -> one state in the ledger: its pictures stored, or the reason why not.

rows that have no state yet ─▶ values checked ─▶ pictures fetched or read ─▶ decoded in a worker ─▶ ledger

Some hundred rows are on their way at any time; memory does not grow with the table. Fetching and decoding can be done
elsewhere (`on_ray.py`); values are checked, files read and states written down here in any case.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from appraiser.data.building.decoding import CORES, Decoded, Undecodable, decode_apart
from appraiser.data.building.ledger import Ledger, Quarantined
from appraiser.data.building.previous import Previous
from appraiser.data.building.rows import RowProblem, is_url, local_picture, picture_places, row_values
from appraiser.data.fetch import Fetcher, FetchPolicy, run_to_end
from appraiser.data.records import FieldMap
from appraiser.data.sources import Source
from appraiser.errors import DataError

PROBE_ROWS = 20
MIN_ON_THE_WAY = 64
ROWS_PER_WRITE = 64
SECONDS_PER_WRITE = 1.0
ROWS_ELSEWHERE = 10_000
BYTES_ELSEWHERE = 256 << 20
"""What is handed to other machines at a time, and held here meanwhile."""

State = tuple[int, Decoded] | Quarantined


@dataclass(frozen=True)
class Pending:
    """A row whose values are good, and whose pictures are not stored yet.

    Args:
        pictures: the URL of each or its bytes; first also places on this machine, until `_with_files` has read them.
    """

    row: int
    pictures: tuple[Any, ...]

    @property
    def num_bytes(self) -> int:
        return sum(len(picture) for picture in self.pictures)


@dataclass(frozen=True)
class Finished:
    """A row's state, with the number of pictures that came from a URL."""

    state: State
    num_fetched: int

    @property
    def row(self) -> int:
        return self.state.row if isinstance(self.state, Quarantined) else self.state[0]


Elsewhere = Callable[[list[Pending]], Iterable[Finished]]
"""Finishes rows in any order, each once."""


async def finish(pending: Pending, fetcher: Fetcher, num_decoders: int = CORES) -> Finished:
    """Fetch and decode the pictures of a row."""
    pictures: list[bytes] = []
    num_fetched = 0
    for picture in pending.pictures:
        if isinstance(picture, str):
            fetched = await fetcher.fetch(picture)
            if fetched.reason is not None:
                problem = RowProblem(fetched.reason, f"{picture[:200]}: {fetched.detail}")
                return Finished(_quarantined(pending.row, problem), num_fetched)
            num_fetched += 1
            picture = fetched.data or b""
        pictures.append(picture)
    decoded = await decode_apart(pictures, num_decoders)
    if isinstance(decoded, Undecodable):
        return Finished(Quarantined(pending.row, decoded.reason, decoded.detail), num_fetched)
    return Finished((pending.row, decoded), num_fetched)


def _quarantined(number: int, problem: RowProblem) -> Quarantined:
    return Quarantined(number, problem.reason, problem.detail)


@dataclass(frozen=True)
class Forecast:
    """What the first rows with URLs gave, before the others are asked for."""

    num_rows: int
    num_ok: int
    reasons: Mapping[str, int]


class Collector:
    """Brings rows to their states.

    Args:
        previous: an earlier build of the source, whose states are taken over.
        elsewhere: finishes all rows but the first; unset: they are finished here.
        progress: called with the number of rows that have their state.
        on_forecast: called once if there are URLs, after the first of them.
    """

    def __init__(
        self,
        source: Source,
        fields: FieldMap,
        ledger: Ledger,
        policy: FetchPolicy,
        previous: Previous | None = None,
        progress: Callable[[int], None] | None = None,
        on_forecast: Callable[[Forecast], None] | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.source = source
        self.fields = fields
        self.ledger = ledger
        self.policy = policy
        self.previous = previous
        self.progress = progress
        self.on_forecast = on_forecast
        self.elsewhere = elsewhere
        self.num_fetched = 0
        """Pictures that came from a URL."""
        self.num_resumed = 0
        """Rows that had their state before."""
        self._states: list[State] = []
        self._num_done = 0
        self._written_at = time.monotonic()

    def run(self) -> None:
        """Bring all rows to their states.

        Raises:
            DataError: none of the first URLs gave a picture, or the source cannot be read on.
        """
        done = self.ledger.done()
        self._num_done = self.num_resumed = len(done)
        rows = ((number, row) for number, row in self.source.rows() if number not in done)
        try:
            passed_over = run_to_end(self._here(rows))
            if self.elsewhere is not None:
                self._all_elsewhere(chain(passed_over, rows), self.elsewhere)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            self._write()

    async def _here(self, rows: Iterator[tuple[int, dict[str, Any]]]) -> list[tuple[int, dict[str, Any]]]:
        """Bring the first rows to their states, and unless it is done elsewhere all others; returns what is left."""
        async with Fetcher(self.policy) as fetcher:
            passed_over = await self._probe(rows, fetcher)
            if self.elsewhere is not None:
                return passed_over
            await self._all(chain(passed_over, rows), fetcher)
            return []

    def _all_elsewhere(self, rows: Iterable[tuple[int, dict[str, Any]]], elsewhere: Elsewhere) -> None:
        waiting: list[Pending] = []
        num_bytes = 0
        for number, row in rows:
            try:
                waiting.append(self._with_files(self._pending(number, row)))
            except RowProblem as problem:
                self._enter(_quarantined(number, problem))
                continue
            num_bytes += waiting[-1].num_bytes
            if len(waiting) == ROWS_ELSEWHERE or num_bytes >= BYTES_ELSEWHERE:
                self._enter_all(elsewhere(waiting))
                waiting, num_bytes = [], 0
        if waiting:
            self._enter_all(elsewhere(waiting))

    def _enter_all(self, finished: Iterable[Finished]) -> None:
        self._write()  # it may take a while until the first of them ends
        for one in finished:
            self.num_fetched += one.num_fetched
            self._enter(one.state)

    async def _probe(
        self, rows: Iterator[tuple[int, dict[str, Any]]], fetcher: Fetcher
    ) -> list[tuple[int, dict[str, Any]]]:
        """Bring the first rows with URLs to their states; where none of them works, the others are not tried.

        Returns:
            Rows without URLs that were passed over.
        """
        chosen: list[tuple[int, dict[str, Any]]] = []
        others: list[tuple[int, dict[str, Any]]] = []
        for number, row in rows:
            (chosen if self._needs_fetch(number, row) else others).append((number, row))
            if len(chosen) == PROBE_ROWS or len(others) == PROBE_ROWS:
                break
        if chosen:
            states = await asyncio.gather(*(self._state(number, row, fetcher) for number, row in chosen))
            reasons: Counter[str] = Counter(state.reason for state in states if isinstance(state, Quarantined))
            for state in states:
                self._enter(state)
            if self.on_forecast:
                self.on_forecast(Forecast(len(chosen), len(chosen) - reasons.total(), dict(reasons)))
            if reasons.total() == len(chosen) == PROBE_ROWS:
                example = next(state for state in states if isinstance(state, Quarantined))
                raise DataError(
                    f"none of the first {PROBE_ROWS} pictures could be fetched: "
                    + ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()),
                    where=f"row {example.row}: {example.detail}",
                    fix="check one address in a browser; the remaining rows were not tried",
                )
        return others

    def _needs_fetch(self, number: int, row: Mapping[str, Any]) -> bool:
        try:
            values = row_values(number, row, self.source, self.fields)
            is_known = self.previous is not None and self.previous.pictures(values.fields["id"]) is not None
            return not is_known and any(map(is_url, picture_places(row, self.fields)))
        except RowProblem:
            return False

    async def _all(self, rows: Iterator[tuple[int, dict[str, Any]]], fetcher: Fetcher) -> None:
        slots = asyncio.Semaphore(max(MIN_ON_THE_WAY, 2 * self.policy.num_parallel))

        async def one(number: int, row: dict[str, Any]) -> None:
            try:
                await self._one(number, row, fetcher)
            finally:
                slots.release()

        async with asyncio.TaskGroup() as tasks:
            for number, row in rows:
                await slots.acquire()
                tasks.create_task(one(number, row))

    async def _one(self, number: int, row: dict[str, Any], fetcher: Fetcher) -> None:
        self._enter(await self._state(number, row, fetcher))

    async def _state(self, number: int, row: Mapping[str, Any], fetcher: Fetcher) -> State:
        try:
            pending = self._pending(number, row)
            if not all(map(is_url, pending.pictures)):
                pending = await asyncio.to_thread(self._with_files, pending)
        except RowProblem as problem:
            return _quarantined(number, problem)
        finished = await finish(pending, fetcher)
        self.num_fetched += finished.num_fetched
        return finished.state

    def _pending(self, number: int, row: Mapping[str, Any]) -> Pending:
        """The row, with its pictures or where they are.

        Raises:
            RowProblem: it cannot be used.
        """
        if self.previous is not None and number in self.previous.quarantined:
            known = self.previous.quarantined[number]
            raise RowProblem(known.reason, known.detail)
        values = row_values(number, row, self.source, self.fields)
        pictures = self.previous.pictures(values.fields["id"]) if self.previous is not None else None
        return Pending(number, tuple(picture_places(row, self.fields)) if pictures is None else pictures)

    def _with_files(self, pending: Pending) -> Pending:
        """The row with the bytes of all its pictures that are in the table or on this machine."""
        pictures = (
            picture if isinstance(picture, bytes) or is_url(picture) else local_picture(picture, self.source)
            for picture in pending.pictures
        )
        return Pending(pending.row, tuple(pictures))

    def _enter(self, state: State) -> None:
        self._states.append(state)
        self._num_done += 1
        if len(self._states) >= ROWS_PER_WRITE or time.monotonic() - self._written_at > SECONDS_PER_WRITE:
            self._write()

    def _write(self) -> None:
        self.ledger.write(self._states)
        self._states = []
        self._written_at = time.monotonic()
        if self.progress:
            self.progress(self._num_done)
