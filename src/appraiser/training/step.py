"""One optimizer update: gradients of all micro-batches, over all ranks, checked, clipped, applied."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import nn

from appraiser.errors import DataError
from appraiser.training.feed import StepData
from appraiser.training.gradients import StepGradients, StepLoss
from appraiser.training.optim import part_of, schedule_factor, set_learning_rate
from appraiser.training.run_state import StepStats
from appraiser.training.session import Session

SCHEDULE_TICKS = 10_000


def take_step(session: Session, gradients: StepGradients, done: float) -> StepStats:
    """One optimizer update over all micro-batches; `done` is the share of the run that lies behind."""
    optim = session.config.optim
    begun = time.monotonic()
    data = session.feed.take(session.state.step)
    session.backbone.model.train()
    factor = schedule_factor(
        round(done * SCHEDULE_TICKS), SCHEDULE_TICKS, round(optim.warmup_share * SCHEDULE_TICKS), optim.final_share
    )
    for optimizer in session.optimizers:
        set_learning_rate(optimizer, factor)
    found = _gradients(session, data, gradients)
    norms = _part_norms(session)
    norm = math.hypot(*norms.values())
    loss, *sums = session.ranks.sum([found.loss, *found.sums.values()])
    if not math.isfinite(loss) or not math.isfinite(norm):
        mine = [row.record_id for row in session.source.rows(data.items)]
        ids = [record_id for part in session.ranks.gather(mine) for record_id in part]
        raise DataError(
            f"loss or gradient is not a number (loss {loss}, norm {norm}) at step {session.state.step + 1}",
            where=f"records {', '.join(ids[:8])}{' ...' if len(ids) > 8 else ''}",
            fix="lower optim.learning_rate; the weights before this step are in the last checkpoint",
        )
    if norm > optim.max_grad_norm:
        for parameter in gradients.parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(optim.max_grad_norm / (norm + 1e-6))
    gradients.update(session.optimizers)
    num_tokens, num_pictures, work = session.ranks.sum(
        [
            sum(batch.num_tokens for batch in data.batches),
            sum(len(batch.inputs.get("image_sizes", ())) for batch in data.batches),
            sum(session.work.of(batch) for batch in data.batches),
        ]
    )
    return StepStats(
        loss=loss,
        grad_norm=norm,
        part_norms=norms,
        learning_rate=optim.learning_rate * factor,
        num_tokens=int(num_tokens),
        num_pictures=int(num_pictures),
        seconds=time.monotonic() - begun,
        data_wait_s=data.wait_s,
        work=work,
        extra=dict(zip(found.sums, sums, strict=True)),
    )


def _gradients(session: Session, data: StepData, gradients: StepGradients) -> StepLoss:
    """The step's gradients; where memory does not suffice, with smaller micro-batches of the same examples."""
    batches = data.batches
    while True:
        num_items = session.ranks.sum([sum(gradients.objective.num_items(batch) for batch in batches)])
        try:
            return gradients(batches, int(num_items[0]), session.state.step)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not session.can_make_room(error):
                raise
        gradients.forget()
        session.make_room(f"at step {session.state.step + 1}")
        batches = session.feed.regroup(data.items)


def _part_norms(session: Session) -> dict[str, float]:
    """Gradient norm of every trained part, over all ranks' shares."""
    parts: dict[str, list[torch.Tensor]] = {}
    for name, parameter in session.replica.trained.items():
        if parameter.grad is not None:
            parts.setdefault(part_of(name), []).append(parameter.grad)
    norms = {}
    for part, gradients in sorted(parts.items()):
        norm: Any = nn.utils.get_total_norm(gradients)
        norms[part] = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
    return norms
