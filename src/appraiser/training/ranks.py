"""The processes of a run: one, or several that `torchrun` (or Ray) started, each with its own device.

Nothing here knows the model. Every rank calls the same functions in the same order; a rank that fails ends its process,
and the launcher ends the others.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed
from torch.distributed import distributed_c10d

COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""Ranks wait this long for each other: the first may be writing a large checkpoint. Death is noticed at once."""

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums over all ranks, in float64."""
        return self._reduced(values, distributed.ReduceOp.SUM)

    def largest(self, values: Sequence[float]) -> list[float]:
        """Maxima over all ranks."""
        return self._reduced(values, distributed.ReduceOp.MAX)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in order, on every rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Until every rank is here."""
        if self.size > 1:
            distributed.barrier()

    def _reduced(self, values: Sequence[float], operation: Any) -> list[float]:
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor, operation)
        return tensor.tolist()


@contextmanager
def join() -> Iterator[Ranks]:
    """The ranks of this run, from the launcher's environment; alone without one."""
    size, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    has_gpu = torch.cuda.is_available()
    device = torch.device("cuda", local) if has_gpu else torch.device("cpu")
    if size == 1:
        yield Ranks(device=torch.device("cuda") if has_gpu else device)
        return
    if distributed.is_initialized():  # Ray Train has joined them already
        yield Ranks(distributed.get_rank(), distributed.get_world_size(), device)
        return
    if has_gpu:
        torch.cuda.set_device(device)
    distributed.init_process_group("cuda:nccl,cpu:gloo" if has_gpu else "gloo", timeout=COLLECTIVE_TIMEOUT)
    try:
        yield Ranks(distributed.get_rank(), size, device)
    finally:
        _keep_groups()
        distributed.destroy_process_group()


def _keep_groups() -> None:
    """Let no process group be destructed before the process ends.

    Whoever lets go of a gloo group last, DDP's reducer for one, waits for the group's thread while holding the
    interpreter's lock; the thread may be waiting for that lock, to let go of a tensor. Ranks then hung at their very
    end, or after another one's failure (torch 2.13).
    """
    for group in list(distributed_c10d._world.pg_map):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))
