"""Elementwise parts of the model with gradients written by hand: the same values, fewer passes over memory.

Autograd keeps every intermediate and walks through each of them again. In a small model that was half of a training
step's time; in a large one it is memory: quick-GELU keeps one tensor instead of three.

Under torch.compile the plain formulas run instead: the compiler fuses them, and cannot trace what writes into views.

Source of the formulas: plain calculus; `tests/unit/phi3_v/test_elementwise.py` holds them against autograd.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

QUICK = 1.702


class QuickGelu(torch.autograd.Function):
    """x sigmoid(1.702 x), any shape; with z = 1.702 x its derivative is that of z sigmoid(z)."""

    @staticmethod
    def forward(ctx: Any, states: Tensor) -> Tensor:
        scaled = states * QUICK
        ctx.save_for_backward(scaled)
        return torch.sigmoid(scaled).mul_(states)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (scaled,) = ctx.saved_tensors
        return torch.ops.aten.silu_backward(gradient, scaled)


class Rotation(torch.autograd.Function):
    """Half-split rotary embedding: states [B, H, S, d], tables [B, 1, S, d] -> [B, H, S, d], in the tables' dtype."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.dtype = states.dtype
        half = states.shape[-1] // 2
        # As published, x cos + rotate_half(x) sin: each product and each sum is rounded once.
        signed = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
        return (states * cos).add_(_halves_swapped(states) * signed)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        half = gradient.shape[-1] // 2
        signed = torch.cat([sin[..., half:], -sin[..., :half]], dim=-1)
        return (gradient * cos).add_(_halves_swapped(gradient) * signed).to(ctx.dtype), None, None


def _halves_swapped(states: Tensor) -> Tensor:
    """Whole rows are faster than halves of them: four times at 32 columns in bf16, one core."""
    half = states.shape[-1] // 2
    return torch.cat([states[..., half:], states[..., :half]], dim=-1)


class RmsNorm(torch.autograd.Function):
    """states [..., D] and weight [D] -> weight times states over their root mean square, fp32 inside.

    The published order of roundings: normalised in fp32, cast back, then times weight.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = states.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(states, weight, scale)
        return weight * (wide * scale).to(states.dtype)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        states, weight, scale = ctx.saved_tensors
        normal = states.float() * scale
        d_states = d_weight = None
        wide = gradient.float()
        if ctx.needs_input_grad[1]:
            d_weight = (wide * normal).flatten(0, -2).sum(0).to(weight.dtype)
        if ctx.needs_input_grad[0]:
            inner = wide * weight
            pull = (inner * normal).mean(-1, keepdim=True)
            d_states = inner.sub_(normal.mul_(pull)).mul_(scale).to(states.dtype)
        return d_states, d_weight, None


def quick_gelu(states: Tensor) -> Tensor:
    """x sigmoid(1.702 x), any shape."""
    if torch.compiler.is_compiling():
        return plain_quick_gelu(states)
    return QuickGelu.apply(states)  # type: ignore[no-untyped-call]


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Half-split rotary embedding of [B, H, S, d] by tables [B, 1, S, d]."""
    if torch.compiler.is_compiling():
        return plain_rotate(states, cos, sin)
    return Rotation.apply(states, cos, sin)  # type: ignore[no-untyped-call]


def rms_norm(states: Tensor, weight: Tensor, eps: float) -> Tensor:
    """weight [D] times states [..., D] over their root mean square, fp32 inside."""
    if torch.compiler.is_compiling():
        return plain_rms_norm(states, weight, eps)
    return RmsNorm.apply(states, weight, eps)  # type: ignore[no-untyped-call]


def plain_quick_gelu(states: Tensor) -> Tensor:
    """`quick_gelu` as published, differentiated by autograd."""
    return states * torch.sigmoid(QUICK * states)


def plain_rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rotate` as published, differentiated by autograd."""
    half = states.shape[-1] // 2
    turned = torch.cat([-states[..., half:], states[..., :half]], dim=-1)
    return states * cos + turned * sin


def plain_rms_norm(states: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`rms_norm` as published, differentiated by autograd."""
    wide = states.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return weight * wide.to(states.dtype)
