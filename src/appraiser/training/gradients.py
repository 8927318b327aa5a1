"""The work of one step: micro-batches one after the other, or several at a time, each on a core of its own.

A model of a few million parameters cannot fill two cores with one operation: threads inside operations used 1.3 of
them, micro-batches side by side use both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from appraiser.backbone import Backbone
from appraiser.config import RunConfig
from appraiser.data.batches import Batch
from appraiser.training.optim import trainable


class StepGradients:
    """Leaves the gradient of a step's mean loss in the trained parameters and returns that loss.

    The sum over micro-batches always has the same order, so a run can be made again bit by bit.
    """

    def __init__(self, config: RunConfig, backbone: Backbone, pool: ThreadPoolExecutor | None = None) -> None:
        self.config = config
        self.backbone = backbone
        self.parameters = [parameter for _, parameter in trainable(backbone.model)]
        self._pool = pool

    def __call__(self, batches: Sequence[Batch]) -> float:
        # Sum here, divide once per step: micro-batches hold different numbers of supervised tokens.
        num_supervised = sum(batch.num_supervised for batch in batches)
        if self._pool is None:
            total = 0.0
            for batch in batches:
                loss = self._loss(batch, num_supervised)
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.item()
            return total
        return self._sum_up(self._pool.map(lambda batch: self._separate(batch, num_supervised), batches))

    def update(self, optimizers: Sequence[Optimizer]) -> None:
        """Take every optimizer's step, side by side where micro-batches are, and forget the gradients."""
        if self._pool is None:
            for optimizer in optimizers:
                optimizer.step()
        else:
            list(self._pool.map(lambda optimizer: optimizer.step(), optimizers))
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _loss(self, batch: Batch, num_supervised: int) -> Tensor:
        device = self.backbone.device
        batch = batch.to(device)
        with autocast(self.config, device):
            loss: Tensor = self.backbone.model(
                **batch.inputs,
                labels=batch.labels,
                answer_only=True,
                num_items_in_batch=num_supervised,
                use_cache=False,
            ).loss
        return loss

    def _separate(self, batch: Batch, num_supervised: int) -> tuple[float, tuple[Tensor | None, ...]]:
        """Loss and gradients of one micro-batch, nowhere added up: two threads must not write the same tensor."""
        loss = self._loss(batch, num_supervised)
        return loss.item(), torch.autograd.grad(loss, self.parameters, allow_unused=True)

    def _sum_up(self, parts: Iterator[tuple[float, tuple[Tensor | None, ...]]]) -> float:
        total = 0.0
        for loss, gradients in parts:
            total += loss
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                if gradient is None:
                    continue
                if parameter.grad is None:
                    parameter.grad = gradient
                else:
                    parameter.grad += gradient
        return total


@contextmanager
def step_gradients(config: RunConfig, backbone: Backbone) -> Iterator[StepGradients]:
    """`StepGradients` with `run.micro_batches_at_once` threads while the body runs; on a GPU one after the other."""
    at_once = config.run.micro_batches_at_once
    if at_once == 1 or backbone.device.type != "cpu":
        yield StepGradients(config, backbone)
        return
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield StepGradients(config, backbone, pool)
    finally:
        torch.set_num_threads(threads)  # the workers' number reaches libraries that keep one for the whole process


def autocast(config: RunConfig, device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 arithmetic on float32 weights, where the run asks for it."""
    if not config.run.autocast:
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
