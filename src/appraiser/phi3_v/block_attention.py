"""Attention on a CPU: exact, in blocks of queries, as plain matrix products.

PyTorch's own CPU kernel reaches about a quarter of the machine's matrix rate and its backward took 30 % of a training
step. Written as batched matrix products over blocks of queries the same mathematics took 44 instead of 94 ms for five
crops of 577 tokens and 24 instead of 40 ms for 802 causal tokens; causal blocks skip the keys behind them:

    queries 0..127    keys 0..127
    queries 128..255  keys 0..255          one block at a time, so no full [S, S] matrix of all heads is ever held
    ...

Short rows are computed together, as many as stay in a core's cache.

While an answer is written, a few queries meet many keys: one product of each kind for all rows and heads. There
PyTorch's kernel took twice as long (eight rows of 800 tokens in bf16: 80 against 40 ms a token).

Long texts that are only read go to PyTorch's kernel, which needs no memory but its output's, takes half the time in
fp32 and the same in bf16. A chunk behind a cache is two calls of it, without a mask, joined by the sums of their
exponentials:

                       keys before the chunk    its own keys
    queries of chunk   all are seen             causal

1,024 queries and 32,768 keys of 8 heads took 1.5 s and 20 MB; with a mask 2.1 s and 160 MB, in blocks 2.5 s (fp32, one
core; in bf16 1.5, 1.9 and 1.4 s).

Chosen by `attn_implementation="blocks"`. With dropout, grouped heads or another device it hands over to PyTorch's
kernel, with a mask where one is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .growing_cache import whole_room

# Probabilities of one call are kept for the backward pass up to this many (bf16: 32 MB), else computed again.
KEPT_ELEMENTS = 16_000_000
# Measured on two Zen 4 cores: shorter blocks skip more of the causal half, longer ones make larger products.
SHORT_SEQUENCE, SHORT_BLOCK, LONG_BLOCK = 1024, 128, 256
FEW_QUERIES = 8
# Probabilities of rows that are computed in one product (bf16: 2 MB). Sixteen rows of 131 tokens took 5.6 ms forwards
# and backwards so, 10 ms one at a time, 9.7 ms written out.
TOGETHER_ELEMENTS = 1_000_000


def _blocks(num_queries: int, num_keys: int, size: int, is_causal: bool) -> Iterator[tuple[int, int, int]]:
    """(first query, end of queries, number of keys) of each block."""
    for start in range(0, num_queries, size):
        end = min(num_queries, start + size)
        yield start, end, end if is_causal else num_keys


def _rows(batch: int, num_probabilities: int) -> Iterator[slice]:
    """Rows that are computed together: short ones in one product, as many as stay in a core's cache."""
    number = max(1, TOGETHER_ELEMENTS // num_probabilities)
    for start in range(0, batch, number):
        yield slice(start, min(batch, start + number))


def _probabilities(query: Tensor, key: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
    """[G, n, d] scaled queries and [G, m, d] keys -> [G, n, m]; the last n of m keys are the queries' own.

    G is the heads of some rows, mask [rows, 1, n, m].
    """
    scores = torch.bmm(query, key.transpose(1, 2))
    if is_causal:
        n, m = scores.shape[1:]
        # Added: filling where a mask says so takes four times as long.
        scores[:, :, m - n :] += torch.full((n, n), float("-inf"), dtype=scores.dtype, device=scores.device).triu_(1)
    if mask is not None:
        scores.view(len(mask), -1, *scores.shape[1:]).masked_fill_(~mask, torch.finfo(scores.dtype).min)
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
        for rows in _rows(batch, heads * length * num_keys):
            q, k, v = (states[rows].flatten(0, 1) for states in (query, key, value))
            out = output[rows].transpose(1, 2)
            for start, end, num in _blocks(length, num_keys, size, is_causal):
                part = None if mask is None else mask[rows, :, start:end, :num]
                probabilities = _probabilities(q[:, start:end], k[:, :num], part, is_causal)
                out[:, :, start:end] = torch.bmm(probabilities, v[:, :num]).view(-1, heads, end - start, width)
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
        # Where several blocks add to the same keys, the sum is fp32 and rounded once.
        wide = torch.promote_types(query.dtype, torch.float32)
        remaining = iter(kept)
        for rows in _rows(batch, heads * length * num_keys):
            q_all, k_all, v_all, g_all = (states[rows].flatten(0, 1) for states in (query, key, value, gradient))
            sums = [torch.zeros(k_all.shape, dtype=wide) for _ in range(2)] if length > size else None
            for start, end, num in _blocks(length, num_keys, size, is_causal):
                q, g, k, v = q_all[:, start:end], g_all[:, start:end], k_all[:, :num], v_all[:, :num]
                part = None if mask is None else mask[rows, :, start:end, :num]
                probabilities = next(remaining) if kept else _probabilities(q, k, part, is_causal)
                d_scores = torch._softmax_backward_data(
                    torch.bmm(g, v.transpose(1, 2)), probabilities, -1, probabilities.dtype
                )
                d_query[rows, :, start:end] = torch.bmm(d_scores, k).mul_(scaling).view(-1, heads, end - start, width)
                found = torch.bmm(d_scores.transpose(1, 2), q), torch.bmm(probabilities.transpose(1, 2), g)
                if sums is None:
                    d_key[rows], d_value[rows] = (share.view(-1, heads, num_keys, width) for share in found)
                else:
                    for total, share in zip(sums, found, strict=True):
                        total[:, :num] += share
            if sums is not None:
                d_key[rows], d_value[rows] = (total.view(-1, heads, num_keys, width) for total in sums)
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
    """transformers' attention interface; see the module docstring for when PyTorch's kernel is used instead.

    Without a mask, causal queries are the last ones of the keys: `block_mask` sees to that.
    """
    causal = attention_mask is None and (module.is_causal if is_causal is None else is_causal)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    length, num_keys = query.shape[2], key.shape[2]
    # Under autocast the rotary tables leave query and key in fp32.
    query, key = query.to(value.dtype), key.to(value.dtype)
    is_plain = query.device.type == "cpu" and dropout == 0.0
    reads = is_plain and not torch.is_grad_enabled()
    fits = (
        is_plain and query.shape[1] == key.shape[1] and (attention_mask is None or attention_mask.dtype == torch.bool)
    )
    if causal and 1 < length < num_keys:
        if reads:
            return _behind_cache(query, key, value, scale), None
        attention_mask = torch.ones(1, 1, length, num_keys, dtype=torch.bool, device=key.device).tril(num_keys - length)
    if fits and reads and length < num_keys and length <= FEW_QUERIES:
        return _few_queries(query * scale, key, value, attention_mask), None
    if not fits or length != num_keys or (reads and length > SHORT_SEQUENCE):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal=is_causal, **kwargs
        )
    size = SHORT_BLOCK if causal and length <= SHORT_SEQUENCE else LONG_BLOCK
    if length < 1.5 * size:
        size = length  # a block of a few queries costs what a larger one does
    if not causal and not reads:
        size = length  # the backward pass would add up every block's share of the keys' gradients
    output: Tensor = BlockAttention.apply(query, key, value, attention_mask, scale, causal, size)  # type: ignore[no-untyped-call]
    return output, None


def _few_queries(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """[B, H, n, d] scaled queries over [B, H, m, d] keys and values, mask [B, 1, n, m] bool or None -> [B, n, H, d]."""
    num_keys, key_room, value_room = key.shape[2], whole_room(key), whole_room(value)
    if key_room is not None and value_room is not None:
        key, value = key_room, value_room
    scores = torch.matmul(query, key.transpose(2, 3))
    if mask is not None:
        scores[..., :num_keys].masked_fill_(~mask, torch.finfo(scores.dtype).min)
    scores[..., num_keys:] = float("-inf")
    return torch.matmul(torch.softmax(scores, -1), value).transpose(1, 2)


def _behind_cache(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """[B, H, n, d] queries, the last n of [B, H_kv, m, d] keys and values -> [B, n, H, d], without any [n, m]."""
    batch, heads, length, width = query.shape
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # it also returns log sum exp of the scores
    past, groups = key.shape[2] - length, heads // key.shape[1]
    # What came before is seen whole, so heads that share keys can stand behind each other as if they were more queries.
    shared = query.reshape(batch, key.shape[1], groups * length, width)
    before, before_sum = kernel(shared, key[:, :, :past], value[:, :, :past], 0.0, False, scale=scaling)
    own_key, own_value = (states[:, :, past:].repeat_interleave(groups, dim=1) for states in (key, value))
    own, own_sum = kernel(query, own_key, own_value, 0.0, True, scale=scaling)
    share = torch.sigmoid(before_sum.reshape(own_sum.shape) - own_sum)[..., None]
    output = torch.lerp(own.to(share.dtype), before.reshape(own.shape).to(share.dtype), share)
    return output.to(value.dtype).transpose(1, 2)


def _is_behind(padding: Tensor) -> bool:
    """Whether [B, m] has its zeros, if any, behind the ones."""
    return bool((padding[:, 1:] <= padding[:, :-1]).all())


def block_mask(*, allow_is_causal_skip: bool = True, **settings: Any) -> Tensor | None:
    """As for sdpa; none where a causal one is enough: the queries are the last of the keys, and padding, if any, is on
    the right, where no real query looks."""
    num_keys = settings["kv_offset"] + settings["kv_length"]
    padding = settings["attention_mask"]
    if (
        allow_is_causal_skip
        and settings["q_offset"] + settings["q_length"] == num_keys
        and (padding is None or (padding.shape[-1] == num_keys and _is_behind(padding)))
    ):
        return None
    mask: Tensor = sdpa_mask(allow_is_causal_skip=False, **settings)
    return mask


def register() -> None:
    """Make `attn_implementation="blocks"` known to transformers."""
    ALL_ATTENTION_FUNCTIONS.register("blocks", block_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register("blocks", block_mask)
