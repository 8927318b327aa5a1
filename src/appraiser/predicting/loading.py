"""Pictures of rows, ready for the model: read or fetched here, decoded in worker processes, ahead of who takes them.

An event loop in a thread of its own does the work, so that it goes on while the model answers. However large the
pictures are, those that wait have a bounded number of bytes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import islice
from threading import Thread
from types import TracebackType
from typing import Any, Self, TypeVar

from appraiser.data.building.decoding import CORES, Undecodable, pixels_apart
from appraiser.data.fetch import Fetcher, FetchPolicy
from appraiser.data.pictures import Pixels
from appraiser.data.sources import Source
from appraiser.predicting.inputs import InputRow, plain

T = TypeVar("T")
R = TypeVar("R", "InputRow", "Loaded")
Step = Callable[[InputRow], Coroutine[Any, Any, R]]
BYTES_AHEAD = 256 << 20
"""Decoded pictures that may wait; a 12-megapixel photo has 36 MB."""
BYTES_PER_PART = 256 << 20
"""Decoded pictures that are handed to the model at a time."""
MAX_LOADING = 64
"""Rows that are read, fetched or decoded at the same time."""


@dataclass(frozen=True)
class Loaded:
    """A row with its pictures, or with its `error` and none."""

    row: InputRow
    pictures: tuple[Pixels, ...] = ()
    error: str | None = None

    @property
    def num_bytes(self) -> int:
        return sum(len(picture.data) for picture in self.pictures)


class Loader:
    """Loads pictures in a thread; a context manager that ends it. Several threads may take rows at once.

    Args:
        source: where paths of rows start; None where rows hold bytes alone, as `gather` gives them.
        num_decoders: processes that decode.
    """

    def __init__(self, policy: FetchPolicy, source: Source | None, num_decoders: int = CORES) -> None:
        self._policy = policy
        self._source = source
        self._num_decoders = num_decoders
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="pictures", daemon=True)
        self._fetcher: Fetcher | None = None
        self._gate = asyncio.Lock()
        self._slots = asyncio.Semaphore(MAX_LOADING)
        self._num_bytes_waiting = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._begin(self._end()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def load(self, rows: Iterable[InputRow], num_ahead: int) -> Iterator[Loaded]:
        """Rows with their pictures, in the order given; the next `num_ahead` are under way from now on."""
        return self._in_order(self._load, rows, num_ahead)

    def gather(self, rows: Iterable[InputRow], num_ahead: int) -> Iterator[InputRow]:
        """Rows with the bytes of their pictures, read and fetched but not decoded; in order and ahead as `load`."""
        return self._in_order(self._gather, rows, num_ahead)

    def _in_order(self, step: Step[R], rows: Iterable[InputRow], num_ahead: int) -> Iterator[R]:
        begun = (self._begin(self._behind_the_gate(step, row)) for row in rows)
        return self._taken_in_order(begun, deque(islice(begun, num_ahead)), num_ahead)

    def _taken_in_order(self, begun: Iterator[Future[R]], under_way: deque[Future[R]], num_ahead: int) -> Iterator[R]:
        try:
            while True:
                under_way += islice(begun, num_ahead + 1 - len(under_way))
                if not under_way:
                    return
                result = under_way.popleft().result()
                self._loop.call_soon_threadsafe(self._taken, result.num_bytes)
                yield result
        finally:
            for one in under_way:
                one.cancel()

    def _begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _taken(self, num_bytes: int) -> None:
        self._num_bytes_waiting -= num_bytes

    async def _behind_the_gate(self, step: Step[R], row: InputRow) -> R:
        # One behind the other: a row that came past an earlier one here could fill the room that the earlier one needs.
        async with self._gate:
            while self._num_bytes_waiting >= BYTES_AHEAD:
                await asyncio.sleep(0.01)
            await self._slots.acquire()
        try:
            result = await step(row)
        finally:
            self._slots.release()
        self._num_bytes_waiting += result.num_bytes
        return result

    async def _load(self, row: InputRow) -> Loaded:
        row = await self._gather(row)
        bare = InputRow(row.position, row.head)  # the bytes have been read: nobody needs them twice
        if row.error is not None:
            return Loaded(bare, error=row.error)
        decoded = await pixels_apart(row.places, self._num_decoders)
        if isinstance(decoded, Undecodable):
            return Loaded(bare, error=f"{decoded.reason}: {decoded.detail}")
        return Loaded(bare, decoded)

    async def _gather(self, row: InputRow) -> InputRow:
        if self._source is None or row.error is not None:
            return row
        row = await asyncio.to_thread(row.with_files, self._source)
        pictures: list[bytes] = []
        for place in row.places:
            if isinstance(place, str):
                fetched = await self._fetch(place)
                if isinstance(fetched, str):
                    return replace(row, places=(), error=plain(fetched))
                place = fetched
            pictures.append(place)
        return replace(row, places=tuple(pictures))

    async def _fetch(self, url: str) -> bytes | str:
        """Bytes of a URL, or the error."""
        if self._fetcher is None:
            self._fetcher = Fetcher(self._policy)
        fetched = await self._fetcher.fetch(url)
        return f"{fetched.reason}: {url[:200]}: {fetched.detail}" if fetched.reason else fetched.data or b""

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._fetcher is not None:
            await self._fetcher.__aexit__(None, None, None)
        await self._loop.shutdown_default_executor()


def parts(loaded: Iterable[Loaded], rows_at_once: int) -> Iterator[list[Loaded]]:
    """Rows in the parts that the model is handed: about `BYTES_PER_PART` at most, and none across a multiple of rows.

    The same rows come together wherever a run begins and whoever works on them, since what an answer is put together
    with can change its last digits.
    """
    part: list[Loaded] = []
    num_bytes = 0
    for one in loaded:
        if part and one.row.position // rows_at_once != part[-1].row.position // rows_at_once:
            yield part  # the rows between were finished before
            part, num_bytes = [], 0
        part.append(one)
        num_bytes += one.num_bytes
        if (one.row.position + 1) % rows_at_once == 0 or num_bytes >= BYTES_PER_PART:
            yield part
            part, num_bytes = [], 0
    if part:
        yield part
