"""The work of one step: micro-batches one after the other, or several at a time, each on a core of its own.

A model of a few million parameters cannot fill two cores with one operation: threads inside operations used 1.3 of
them, micro-batches side by side use both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from appraiser.backbone import Backbone
from appraiser.config import RunConfig
from appraiser.data.batches import Batch
from appraiser.training.objectives import NextToken, Objective
from appraiser.training.replica import Replica

Part = tuple[float, dict[str, float], tuple[Tensor | None, ...]]
"""Loss, other sums and gradients of one micro-batch."""


@dataclass(frozen=True)
class StepLoss:
    """This rank's share: add up over ranks."""

    loss: float
    sums: dict[str, float]


class StepGradients:
    """Leaves the gradient of a step's mean loss in the trained parameters and returns that loss.

    The sum over micro-batches always has the same order, so a run can be made again bit by bit.
    """

    def __init__(
        self,
        config: RunConfig,
        replica: Replica,
        objective: Objective | None = None,
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        self.config = config
        self.replica = replica
        self.objective = objective or NextToken()
        self.parameters = list(replica.trained.values())
        self._pool = pool

    def __call__(self, batches: Sequence[Batch], num_items: int | None = None, draw: int = 0) -> StepLoss:
        """Gradients of a step.

        Args:
            num_items: what the summed loss is divided by, over all ranks; None: what these batches hold.
            draw: number of the step in the run, from which adapters' dropout follows.
        """
        # Sum here, divide once per step: micro-batches hold different numbers of supervised tokens.
        if num_items is None:
            num_items = sum(self.objective.num_items(batch) for batch in batches)
        if self._pool is not None:
            return self._sum_up(self._pool.map(lambda batch: self._separate(batch, num_items), batches))
        total, sums = 0.0, dict[str, float]()
        for number, batch in enumerate(batches):
            # Dropout is a function of (seed, step, micro-batch, rank): a resumed run draws what it would have drawn.
            torch.manual_seed(hash((self.config.run.seed, draw, number, self.replica.ranks.rank)) % (1 << 63))
            with self.replica.reducing(is_last=number == len(batches) - 1):
                loss, extra = self._loss(batch, num_items)
                # Gradients are averaged over ranks; losses are shares of a sum.
                (loss * self.replica.ranks.size).backward()  # type: ignore[no-untyped-call]
            total += loss.item()
            _add(sums, extra)
        return StepLoss(total, sums)

    def update(self, optimizers: Sequence[Optimizer]) -> None:
        """Take every optimizer's step, side by side where micro-batches are, and forget the gradients."""
        if self._pool is None:
            for optimizer in optimizers:
                optimizer.step()
        else:
            list(self._pool.map(lambda optimizer: optimizer.step(), optimizers))
        self.forget()

    def forget(self) -> None:
        """Leave no gradient behind."""
        for parameter in self.parameters:
            parameter.grad = None

    def _loss(self, batch: Batch, num_items: int) -> tuple[Tensor, dict[str, float]]:
        device = self.replica.ranks.device
        with autocast(self.config, device):
            return self.objective.loss(self.replica.model, batch.to(device), num_items)

    def _separate(self, batch: Batch, num_items: int) -> Part:
        """Loss and gradients of one micro-batch, nowhere added up: two threads must not write the same tensor."""
        loss, extra = self._loss(batch, num_items)
        return loss.item(), extra, torch.autograd.grad(loss, self.parameters, allow_unused=True)

    def _sum_up(self, parts: Iterator[Part]) -> StepLoss:
        total, sums = 0.0, dict[str, float]()
        for loss, extra, gradients in parts:
            total += loss
            _add(sums, extra)
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                if gradient is None:
                    continue
                if parameter.grad is None:
                    parameter.grad = gradient
                else:
                    parameter.grad += gradient
        return StepLoss(total, sums)


def _add(sums: dict[str, float], more: dict[str, float]) -> None:
    for key, value in more.items():
        sums[key] = sums.get(key, 0.0) + value


@contextmanager
def step_gradients(
    config: RunConfig, replica: Replica | Backbone, objective: Objective | None = None
) -> Iterator[StepGradients]:
    """`StepGradients` with `run.micro_batches_at_once` threads while the body runs; on a GPU, and with several ranks,
    one after the other."""
    replica = replica if isinstance(replica, Replica) else Replica(replica)
    at_once = config.run.micro_batches_at_once
    if at_once == 1 or replica.ranks.device.type != "cpu" or replica.ranks.size > 1:
        yield StepGradients(config, replica, objective)
        return
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield StepGradients(config, replica, objective, pool)
    finally:
        torch.set_num_threads(threads)  # the workers' number reaches libraries that keep one for the whole process


def autocast(config: RunConfig, device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 arithmetic on float32 weights, where the run asks for it."""
    if not config.computes_in_bfloat16:
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
