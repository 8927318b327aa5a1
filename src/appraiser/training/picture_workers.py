"""Pictures decoded and processed by worker processes, ahead of the step that needs them.

A worker gets the data set's folder, not its pictures, and a processor, not the model.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler

from appraiser.backbone import Reader
from appraiser.config import RunConfig
from appraiser.data.augmentation import Augmentation
from appraiser.data.dataset import open_dataset, share_of
from appraiser.data.examples import ExampleSource
from appraiser.data.task import Task
from appraiser.training.order import RecordOrder
from appraiser.training.ranks import Ranks

STEPS_AHEAD = 2
"""Of every worker."""
ENDLESS = 1 << 40


@dataclass
class StepItems(Dataset[list[Any]]):
    """The items of every step of one rank; made anew in each worker."""

    config: RunConfig
    reader: Reader
    task: Task
    rank: int
    num_ranks: int
    _source: ExampleSource | None = field(default=None, init=False)

    def __getitem__(self, step: int) -> list[Any]:
        source = self._opened()
        order = RecordOrder(len(source), self.config.run.batch_size, self.config.run.seed)
        return [source.draw(*draw) for draw in order.step(step, self.rank, self.num_ranks)]

    def _opened(self) -> ExampleSource:
        if self._source is None:
            data, config = open_dataset(Path(self.config.data.dataset)), self.config
            self._source = ExampleSource(
                share_of(data.split("train"), config.data.train_share, config.run.seed),
                self.reader,
                self.task,
                cache_bytes=0,
                max_tokens=config.data.max_tokens,
                augmentation=Augmentation(config.augment.mirror, config.augment.shift, config.run.seed),
            )
        return self._source


def items_from(
    first_step: int, last_step: int | None, config: RunConfig, reader: Reader, task: Task, ranks: Ranks
) -> Iterator[list[Any]]:
    """The items of `first_step` and of every step after it, in order, from `data.workers` processes."""
    loader = DataLoader(
        StepItems(config, Reader(reader.processor, reader.name), task, ranks.rank, ranks.size),
        sampler=_Steps(first_step, last_step),
        batch_size=None,
        num_workers=config.data.workers,
        prefetch_factor=STEPS_AHEAD,
        # Not fork: this process has threads, and may have a GPU.
        multiprocessing_context="spawn" if sys.platform == "win32" else "forkserver",
    )
    return iter(loader)


class _Steps(Sampler[int]):
    """The steps of a run, which may have no fixed end."""

    def __init__(self, first_step: int, last_step: int | None) -> None:
        self.steps = range(first_step, ENDLESS if last_step is None else last_step)

    def __iter__(self) -> Iterator[int]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)
