"""Several processes that train one model: each on its own pictures, with the mean of all gradients.

At a few million parameters the operations are too small to be worth splitting over threads (1.3 of two cores used), so
every process gets one core. The processes meet over a file and loopback; rank 0 is the caller's own process.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn


@dataclass(frozen=True)
class Team:
    """This process's place among the processes."""

    rank: int
    size: int

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes; all must have gradients for the same parameters."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.size
        for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


@contextmanager
def team_of(size: int, work: Callable[..., Any], *arguments: Any) -> Iterator[Team]:
    """Start `size - 1` more processes that run `work(team, *arguments)`; the caller does the same in the body.

    A process that dies breaks the connection, so the others stop with an error instead of waiting.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # nobody outside this machine takes part
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        others = [
            context.Process(target=_join, args=(Path(folder), rank, size, work, arguments), daemon=True)
            for rank in range(1, size)
        ]
        for process in others:
            process.start()
        try:
            yield _meet(Path(folder), 0, size)
            for process in others:
                process.join()
        finally:
            for process in others:
                process.terminate()
            if distributed.is_initialized():
                distributed.destroy_process_group()
            torch.set_num_threads(threads)


def _meet(folder: Path, rank: int, size: int) -> Team:
    if size > 1:
        place = f"file://{folder / 'meeting'}"
        distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=size)
    return Team(rank, size)


def _join(folder: Path, rank: int, size: int, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    work(_meet(folder, rank, size), *arguments)
    distributed.destroy_process_group()
