"""Parameter groups, optimizer and learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from appraiser.config import Part

# Norm weights, biases and separators are scales and offsets: decaying them to zero has no meaning.
MIN_DECAYED_DIMENSIONS = 2


def trainable(model: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    """Named parameters that training changes."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def part_of(name: str) -> Part:
    """decoder, projector or tower, from a parameter's name."""
    if ".img_processor." in name:
        return "tower"
    if any(key in name for key in (".img_projection.", "glb_GN", "sub_GN")):
        return "projector"
    return "decoder"


def is_inner_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix inside a block or the projector: neither embedding, head nor adapter."""
    inside = ("encoder.layers.", "img_projection.", "model.layers.")
    return parameter.ndim == 2 and any(key in name for key in inside) and "lora_" not in name


def build_optimizers(
    model: nn.Module,
    *,
    learning_rate: float,
    part_rates: Mapping[Part, float | None] | None = None,
    muon_learning_rate: float | None = None,
    tower_muon_learning_rate: float | None = None,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    muon_parts: int = 1,
) -> list[Optimizer]:
    """AdamW with decayed and undecayed groups, and Muon for the inner matrices where its rate is given.

    `initial_lr` of each group is the peak that the schedule scales.

    Args:
        part_rates: AdamW's rate of single parts; None for the same as everything else.
        muon_learning_rate: None: everything by AdamW.
        tower_muon_learning_rate: Muon's rate of the tower; None for the same.
        muon_parts: Muons of about equal work that share the matrices, so that their steps can be taken side by side.

    Source of Muon: Jordan et al. 2024, an optimizer for the hidden layers of neural networks.
    """
    named = list(trainable(model))
    hidden = [p for name, p in named if muon_learning_rate is not None and is_inner_matrix(name, p)]
    chosen = {id(parameter) for parameter in hidden}
    in_tower = {id(parameter) for name, parameter in named if part_of(name) == "tower"}
    rates = dict(part_rates or {})
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        if id(parameter) not in chosen:
            rate = rates.get(part_of(name))
            is_decayed = parameter.ndim >= MIN_DECAYED_DIMENSIONS and "_GN" not in name
            groups.setdefault((learning_rate if rate is None else rate, is_decayed), []).append(parameter)
    settings = [
        {"params": parameters, "lr": rate, "weight_decay": weight_decay if decayed else 0.0}
        for (rate, decayed), parameters in groups.items()
    ]
    optimizers: list[Optimizer] = [AdamW(settings, betas=betas, fused=_can_fuse(model))] if settings else []
    if hidden and muon_learning_rate is not None:
        tower_rate = muon_learning_rate if tower_muon_learning_rate is None else tower_muon_learning_rate
        for part in _parts_of_equal_work(hidden, muon_parts):
            tower, others = [p for p in part if id(p) in in_tower], [p for p in part if id(p) not in in_tower]
            shares = [{"params": tower, "lr": tower_rate}, {"params": others, "lr": muon_learning_rate}]
            optimizers.append(
                torch.optim.Muon([group for group in shares if group["params"]], weight_decay=weight_decay)
            )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def _parts_of_equal_work(matrices: Sequence[nn.Parameter], num_parts: int) -> list[list[nn.Parameter]]:
    """Largest first, each to the part with the least work; orthogonalising m x n takes about m n min(m, n)."""
    parts: list[list[nn.Parameter]] = [[] for _ in range(min(num_parts, len(matrices)))]
    work = [0] * len(parts)
    for matrix in sorted(matrices, key=lambda matrix: -matrix.numel() * min(matrix.shape)):
        least = work.index(min(work))
        parts[least].append(matrix)
        work[least] += matrix.numel() * min(matrix.shape)
    return parts


def _can_fuse(model: nn.Module) -> bool:
    return all(parameter.dtype in (torch.float32, torch.bfloat16) for _, parameter in trainable(model))


def schedule_factor(step: int, num_steps: int, warmup_steps: int, final: float = 0.0) -> float:
    """Share of the peak rate at `step` (from 0): linear warm-up, then cosine down to `final` at the last step."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def set_learning_rate(optimizer: Optimizer, factor: float) -> None:
    """Scale every group's own peak rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
