"""The micro-batches of each step, made ready while the step before is computed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from appraiser.backbone import Features, Views
from appraiser.config import RunConfig
from appraiser.data.batches import Batch, Example
from appraiser.data.examples import RecordSequence
from appraiser.training.order import RecordOrder, micro_batches, split_into
from appraiser.training.ranks import Ranks


class Source(Protocol):
    """What a run trains on, by position: `ExampleSource`, or `PairSource`."""

    @property
    def records(self) -> RecordSequence: ...
    def __len__(self) -> int: ...
    def draw(self, epoch: int, position: int) -> Any:
        """One item as it is shown in an epoch."""

    def length(self, item: Any, /) -> int:
        """Tokens of its longest row."""

    def join(self, items: Sequence[Any], *, packed: bool = False) -> Batch:
        """One micro-batch."""

    def rows(self, items: Sequence[Any], /) -> list[Example]:
        """Its rows, in their order."""

    def truth(self, epoch: int, position: int) -> list[tuple[str, Sequence[Views | Features]]]:
        """Answer and pictures of an item's rows, made anew from the record."""


@dataclass(frozen=True)
class StepData:
    """What one rank computes in a step."""

    items: list[Any]
    batches: list[Batch]
    wait_s: float
    """How long the step had to wait for it."""


class Feed:
    """Micro-batches of any step; use as a context manager.

    Args:
        last_step: no step from this on is made ready; None: the run has no fixed end.
        micro_batch_size: a smaller one than the settings'.
        items_from: the items of a step and of those after it, made elsewhere; None: in a thread here.
    """

    def __init__(
        self,
        source: Source,
        config: RunConfig,
        ranks: Ranks,
        *,
        last_step: int | None,
        micro_batch_size: int | None = None,
        items_from: Callable[[int], Iterator[list[Any]]] | None = None,
    ) -> None:
        self.source, self.config, self.ranks = source, config, ranks
        self.order = RecordOrder(len(source), config.run.batch_size, config.run.seed)
        self.last_step = last_step
        self.micro_batch_size = micro_batch_size or config.run.micro_batch_size
        self._items_from = items_from
        self._items: Iterator[list[Any]] | None = None
        self._pool = ThreadPoolExecutor(1)
        self._following: tuple[int, Future[tuple[list[Any], list[list[Any]]]]] | None = None

    def take(self, step: int) -> StepData:
        """The items of a step, counted from 0; the next step's are begun."""
        begun = time.monotonic()
        if self._items_from is not None:
            self._items = self._items or self._items_from(step)
            items = next(self._items)
            return StepData(items, self.regroup(items), time.monotonic() - begun)
        if self._following is not None and self._following[0] == step:
            future = self._following[1]
        else:
            future = self._pool.submit(self._prepare, step)
        items, groups = future.result()
        if self.last_step is None or step + 1 < self.last_step:
            self._following = (step + 1, self._pool.submit(self._prepare, step + 1))
        batches = self.batches(groups)
        return StepData(items, batches, time.monotonic() - begun)

    def regroup(self, items: Sequence[Any]) -> list[Batch]:
        """The micro-batches of these items in the present size."""
        return self.batches(self._groups(items))

    def batches(self, groups: list[list[Any]]) -> list[Batch]:
        """Micro-batches, equally many on every rank."""
        if self.config.run.micro_batch_tokens is not None:  # otherwise equal sizes make equal numbers
            groups = split_into(groups, int(self.ranks.largest([len(groups)])[0]))
        return [self.source.join(group, packed=self.config.run.packing) for group in groups]

    def first_group(self, step: int) -> list[tuple[int, int]]:
        """The draws of a step's first micro-batch, in its order."""
        draws = self.order.step(step, self.ranks.rank, self.ranks.size)
        lengths = {draw: self.source.length(self.source.draw(*draw)) for draw in draws}
        run = self.config.run
        return micro_batches(draws, lengths.__getitem__, self.micro_batch_size, run.micro_batch_tokens)[0]

    def _prepare(self, step: int) -> tuple[list[Any], list[list[Any]]]:
        draws = self.order.step(step, self.ranks.rank, self.ranks.size)
        items = [self.source.draw(epoch, position) for epoch, position in draws]
        return items, self._groups(items)

    def _groups(self, items: Sequence[Any]) -> list[list[Any]]:
        run = self.config.run
        return micro_batches(items, self.source.length, self.micro_batch_size, run.micro_batch_tokens)

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._items = None  # ends the workers
