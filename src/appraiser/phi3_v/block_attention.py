"""Attention on a CPU: exact, in blocks of queries, as plain matrix products.

PyTorch's own CPU kernel reaches about a quarter of the machine's matrix rate and its backward took 30 % of a training
step. Written as batched matrix products over blocks of queries the same mathematics took 44 instead of 94 ms for five
crops of 577 tokens and 24 instead of 40 ms for 802 causal tokens; causal blocks skip the keys behind them:

    queries 0..127    keys 0..127
    queries 128..255  keys 0..255          one block at a time, so no full [S, S] matrix of all heads is ever held
    ...

While an answer is written, a few queries meet many keys: one product of each kind for all rows and heads. There
PyTorch's kernel took twice as long (eight rows of 800 tokens in bf16: 80 against 40 ms a token).

Chosen by `attn_implementation="blocks"`. With dropout, grouped heads, another device, or many queries behind a cache,
it hands over to PyTorch's kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

# Probabilities of one call are kept for the backward pass up to this many (bf16: 32 MB), else computed again.
KEPT_ELEMENTS = 16_000_000
# Measured on two Zen 4 cores: shorter blocks skip more of the causal half, longer ones make larger products.
SHORT_SEQUENCE, SHORT_BLOCK, LONG_BLOCK = 1024, 128, 256
FEW_QUERIES = 8


def _blocks(num_queries: int, num_keys: int, size: int, is_causal: bool) -> Iterator[tuple[int, int, int]]:
    """(first query, end of queries, number of keys) of each block."""
    for start in range(0, num_queries, size):
        end = min(num_queries, start + size)
        yield start, end, end if is_causal else num_keys


def _probabilities(query: Tensor, key: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
    """[H, n, d] scaled queries and [H, m, d] keys -> [H, n, m]; the last n of m keys are the queries' own."""
    scores = torch.bmm(query, key.transpose(1, 2))
    if is_causal:
        n, m = scores.shape[1:]
        future = torch.ones(n, n, dtype=torch.bool, device=scores.device).triu_(1)
        scores[:, :, m - n :].masked_fill_(future, float("-inf"))
    if mask is not None:
        scores.masked_fill_(~mask, torch.finfo(scores.dtype).min)
    return torch.softmax(scores, -1)


class BlockAttention(torch.autograd.Function):
    """query [B, H, S, d], key and value [B, H, T, d], mask [B, 1, S, T] bool or None -> [B, S, H, d]."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scaling: float,
        is_causal: bool,
        size: int,
    ) -> Tensor:
        batch, heads, length, width = query.shape
        num_keys = key.shape[2]
        query, key, value = (query * scaling).contiguous(), key.contiguous(), value.contiguous()
        output = torch.empty(batch, length, heads, width, dtype=query.dtype)
        num_probabilities = batch * heads * length * num_keys // (2 if is_causal else 1)
        keeps = num_probabilities <= KEPT_ELEMENTS and any(ctx.needs_input_grad)
        kept: list[Tensor] = []
        for row in range(batch):
            rows = output[row].transpose(0, 1)
            for start, end, num in _blocks(length, num_keys, size, is_causal):
                part = None if mask is None else mask[row, :, start:end, :num]
                probabilities = _probabilities(query[row, :, start:end], key[row, :, :num], part, is_causal)
                rows[:, start:end] = torch.bmm(probabilities, value[row, :, :num])
                if keeps:
                    kept.append(probabilities)
        ctx.save_for_backward(query, key, value, mask, *kept)
        ctx.settings = scaling, is_causal, size
        return output

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask, *kept = ctx.saved_tensors
        scaling, is_causal, size = ctx.settings
        batch, heads, length, width = query.shape
        num_keys = key.shape[2]
        gradient = gradient.transpose(1, 2).contiguous()
        d_query, d_key, d_value = (
            torch.empty(batch, n, heads, width, dtype=query.dtype).transpose(1, 2) for n in (length, num_keys, num_keys)
        )
        # Several blocks add to the same keys: summed in fp32, rounded once.
        wide = torch.promote_types(query.dtype, torch.float32)
        remaining = iter(kept)
        for row in range(batch):
            key_sum = torch.zeros(heads, num_keys, width, dtype=wide)
            value_sum = torch.zeros_like(key_sum)
            for start, end, num in _blocks(length, num_keys, size, is_causal):
                q, g = query[row, :, start:end], gradient[row, :, start:end]
                k, v = key[row, :, :num], value[row, :, :num]
                part = None if mask is None else mask[row, :, start:end, :num]
                probabilities = next(remaining) if kept else _probabilities(q, k, part, is_causal)
                d_scores = torch._softmax_backward_data(
                    torch.bmm(g, v.transpose(1, 2)), probabilities, -1, probabilities.dtype
                )
                torch.mul(torch.bmm(d_scores, k), scaling, out=d_query[row, :, start:end])
                key_sum[:, :num] += torch.bmm(d_scores.transpose(1, 2), q)
                value_sum[:, :num] += torch.bmm(probabilities.transpose(1, 2), g)
            d_key[row].copy_(key_sum)
            d_value[row].copy_(value_sum)
        return d_query, d_key, d_value, None, None, None, None


def block_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """transformers' attention interface; see the module docstring for when PyTorch's kernel is used instead."""
    causal = attention_mask is None and (module.is_causal if is_causal is None else is_causal)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    fits = (
        query.device.type == "cpu"
        and dropout == 0.0
        and query.shape[1] == key.shape[1]
        and (attention_mask is None or attention_mask.dtype == torch.bool)
    )
    writes = not torch.is_grad_enabled() and query.shape[2] < key.shape[2] and query.shape[2] <= FEW_QUERIES
    if fits and writes and (attention_mask is not None or query.shape[2] == 1):
        return _few_queries(query.to(value.dtype) * scale, key.to(value.dtype), value, attention_mask), None
    if not fits or query.shape[2] != key.shape[2]:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal=is_causal, **kwargs
        )
    # Under autocast the rotary tables leave query and key in fp32.
    query, key = query.to(value.dtype), key.to(value.dtype)
    length = query.shape[2]
    size = length if not causal else SHORT_BLOCK if length <= SHORT_SEQUENCE else LONG_BLOCK
    output: Tensor = BlockAttention.apply(query, key, value, attention_mask, scale, causal, size)  # type: ignore[no-untyped-call]
    return output, None


def _few_queries(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """[B, H, n, d] scaled queries over [B, H, m, d] keys and values, mask [B, 1, n, m] bool or None -> [B, n, H, d]."""
    scores = torch.matmul(query, key.transpose(2, 3))
    if mask is not None:
        scores.masked_fill_(~mask, torch.finfo(scores.dtype).min)
    return torch.matmul(torch.softmax(scores, -1), value).transpose(1, 2)


def register() -> None:
    """Make `attn_implementation="blocks"` known to transformers; masks are built as for sdpa."""
    ALL_ATTENTION_FUNCTIONS.register("blocks", block_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register("blocks", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
