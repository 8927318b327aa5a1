"""The micro-batches of each step, made ready while the step before is computed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

from appraiser.backbone import Reader
from appraiser.config import RunConfig
from appraiser.data.batches import Batch, Example, collate, pack
from appraiser.data.examples import ExampleSource
from appraiser.training.order import RecordOrder, micro_batches, split_into
from appraiser.training.ranks import Ranks


@dataclass(frozen=True)
class StepData:
    """What one rank computes in a step."""

    examples: list[Example]
    batches: list[Batch]
    wait_s: float
    """How long the step had to wait for it."""


class Feed:
    """Micro-batches of any step; use as a context manager.

    Args:
        last_step: no step from this on is made ready; None: the run has no fixed end.
    """

    def __init__(
        self,
        source: ExampleSource,
        reader: Reader,
        config: RunConfig,
        ranks: Ranks,
        *,
        last_step: int | None,
        micro_batch_size: int | None = None,
    ) -> None:
        self.source, self.reader, self.config, self.ranks = source, reader, config, ranks
        self.order = RecordOrder(len(source), config.run.batch_size, config.run.seed)
        self.last_step = last_step
        self.micro_batch_size = micro_batch_size or config.run.micro_batch_size
        self._pool = ThreadPoolExecutor(1)
        self._following: tuple[int, Future[tuple[list[Example], list[list[Example]]]]] | None = None

    def take(self, step: int) -> StepData:
        """The examples of a step, counted from 0; the next step's are begun."""
        begun = time.monotonic()
        if self._following is not None and self._following[0] == step:
            future = self._following[1]
        else:
            future = self._pool.submit(self._prepare, step)
        examples, groups = future.result()
        if self.last_step is None or step + 1 < self.last_step:
            self._following = (step + 1, self._pool.submit(self._prepare, step + 1))
        batches = self.group(examples, groups)
        return StepData(examples, batches, time.monotonic() - begun)

    def peek(self, step: int) -> tuple[list[list[Example]], list[Batch]]:
        """The groups of a step and their micro-batches, before the run begins."""
        _, groups = self._prepare(step)
        return groups, self.group((), groups)

    def group(self, examples: Sequence[Example], groups: list[list[Example]] | None = None) -> list[Batch]:
        """Micro-batches of these examples, equally many on every rank."""
        groups = self._groups(examples) if groups is None else groups
        if self.config.run.micro_batch_tokens is not None:  # otherwise equal sizes make equal numbers
            groups = split_into(groups, int(self.ranks.largest([len(groups)])[0]))
        join = pack if self.config.run.packing else collate
        return [join(group, self.reader) for group in groups]

    def _prepare(self, step: int) -> tuple[list[Example], list[list[Example]]]:
        draws = self.order.step(step, self.ranks.rank, self.ranks.size)
        examples = [self.source.draw(epoch, position) for epoch, position in draws]
        return examples, self._groups(examples)

    def _groups(self, examples: Sequence[Example]) -> list[list[Example]]:
        run = self.config.run
        return micro_batches(
            examples, lambda example: len(example.input_ids), self.micro_batch_size, run.micro_batch_tokens
        )

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
