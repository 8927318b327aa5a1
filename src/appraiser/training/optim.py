"""Parameter groups, optimizer and learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

# Norm weights, biases and separators are scales and offsets: decaying them to zero has no meaning.
MIN_DECAYED_DIMENSIONS = 2


def trainable(model: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    """Named parameters that training changes."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def is_vision(name: str) -> bool:
    """Whether a parameter belongs to the tower (not to the projector behind it)."""
    return ".img_processor." in name


def is_inner_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix inside a block or the projector: neither embedding, head nor adapter."""
    inside = ("encoder.layers.", "img_projection.", "model.layers.")
    return parameter.ndim == 2 and any(key in name for key in inside) and "lora_" not in name


def build_optimizers(
    model: nn.Module,
    *,
    learning_rate: float,
    vision_learning_rate: float | None = None,
    muon_learning_rate: float | None = None,
    vision_muon_learning_rate: float | None = None,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    muon_parts: int = 1,
) -> list[Optimizer]:
    """AdamW with decayed and undecayed groups, and Muon for the inner matrices where its rate is given.

    `initial_lr` of each group is the peak that the schedule scales.

    Args:
        vision_learning_rate: AdamW's rate of the tower; None for the same as everything else.
        muon_learning_rate: None: everything by AdamW.
        vision_muon_learning_rate: Muon's rate of the tower; None for the same.
        muon_parts: Muons of about equal work that share the matrices, so that their steps can be taken side by side.

    Source of Muon: Jordan et al. 2024, an optimizer for the hidden layers of neural networks.
    """
    named = list(trainable(model))
    hidden = [p for name, p in named if muon_learning_rate is not None and is_inner_matrix(name, p)]
    chosen = {id(parameter) for parameter in hidden}
    in_tower = {id(parameter) for name, parameter in named if is_vision(name)}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        if id(parameter) not in chosen:
            key = (is_vision(name), parameter.ndim >= MIN_DECAYED_DIMENSIONS and "_GN" not in name)
            groups.setdefault(key, []).append(parameter)
    vision_rate = learning_rate if vision_learning_rate is None else vision_learning_rate
    settings = [
        {
            "params": parameters,
            "lr": vision_rate if vision else learning_rate,
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for (vision, decayed), parameters in groups.items()
    ]
    optimizers: list[Optimizer] = [AdamW(settings, betas=betas, fused=_can_fuse(model))] if settings else []
    if hidden and muon_learning_rate is not None:
        tower_rate = muon_learning_rate if vision_muon_learning_rate is None else vision_muon_learning_rate
        for part in _parts_of_equal_work(hidden, muon_parts):
            tower, others = [p for p in part if id(p) in in_tower], [p for p in part if id(p) not in in_tower]
            rates = [{"params": tower, "lr": tower_rate}, {"params": others, "lr": muon_learning_rate}]
            optimizers.append(
                torch.optim.Muon([group for group in rates if group["params"]], weight_decay=weight_decay)
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
