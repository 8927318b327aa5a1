"""Block attention gives PyTorch's attention, forward and backward, kept or recomputed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import DynamicCache

from appraiser.phi3_v import block_attention as blocks
from appraiser.phi3_v.growing_cache import SPARE_PLACES, make_room, whole_room


class Causal(nn.Module):
    is_causal = True


class Full(nn.Module):
    is_causal = False


def attend(function, module, inputs, mask):
    query, key, value = (tensor.clone().requires_grad_() for tensor in inputs)
    output, _ = function(module, query, key, value, mask, scaling=0.3, dropout=0.0)
    (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)).sum().backward()
    return output.detach(), query.grad, key.grad, value.grad


@pytest.mark.parametrize("kept", [0, blocks.KEPT_ELEMENTS], ids=["recomputed", "kept"])
@pytest.mark.parametrize("together", [1, 2, 3], ids=lambda rows: f"{rows} rows together")
@pytest.mark.parametrize("block", [16, 40], ids=["four blocks", "one block"])
@pytest.mark.parametrize(("module", "masked"), [(Causal(), False), (Full(), False), (Causal(), True)])
def test_equals_pytorch(
    module: nn.Module, masked: bool, block: int, together: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "KEPT_ELEMENTS", kept)
    monkeypatch.setattr(blocks, "SHORT_BLOCK", block)
    monkeypatch.setattr(blocks, "TOGETHER_ELEMENTS", together * 3 * 50 * 50)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(3, 3, 50, 8, generator=generator, dtype=torch.float64) for _ in range(3)]
    mask = None
    if masked:
        mask = torch.ones(50, 50, dtype=torch.bool).tril()[None, None].repeat(3, 1, 1, 1)
        mask[1, :, :, :7] = False
        mask[1, :, :7, 0] = True
        mask[2, :, :, 30:33] = False
    ours = attend(blocks.block_attention, module, inputs, mask)
    theirs = attend(blocks.sdpa_attention_forward, module, inputs, mask)
    for mine, expected in zip(ours, theirs, strict=True):
        assert (mine - expected).abs().max() < 1e-12  # float64


def test_hands_over_what_it_does_not_cover(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def record(*arguments, **settings):
        called.append(settings)
        return torch.zeros(1), None

    monkeypatch.setattr(blocks, "sdpa_attention_forward", record)
    query, grouped = torch.randn(1, 4, 6, 8), torch.randn(1, 2, 6, 8)
    blocks.block_attention(Causal(), query, grouped, grouped, None)  # grouped heads
    blocks.block_attention(Causal(), query, query, query, None, dropout=0.1)
    blocks.block_attention(Causal(), query[:, :, :1], query, query, None)  # a cache in training
    blocks.block_attention(Causal(), query[:, :, :2], query, query, None)  # the same, more tokens at a time
    with torch.no_grad():
        blocks.block_attention(Causal(), query, query, query, torch.zeros(1, 1, 6, 6))  # a mask to be added
        monkeypatch.setattr(blocks, "SHORT_SEQUENCE", 5)
        blocks.block_attention(Causal(), query, query, query, None)  # a long text that is only read
    assert len(called) == 6


# (a view of) keys with room behind them, as a cache that grows in place has
@pytest.mark.parametrize("room", [0, 7])
@pytest.mark.parametrize(("num_queries", "masked"), [(1, False), (1, True), (3, True), (50, False), (50, True)])
def test_answering_equals_pytorch(num_queries: int, masked: bool, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "SHORT_BLOCK", 16)
    monkeypatch.setattr(blocks, "LONG_BLOCK", 16)
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, 3, 50 + room, 8, generator=generator, dtype=torch.float64)[:, :, :50] for _ in range(3)
    )
    mask = torch.rand(2, 1, num_queries, 50, generator=generator) < 0.7 if masked else None
    if masked:
        mask[..., 0] = True
    with torch.inference_mode():
        arguments = (Causal(), query[:, :, :num_queries], key, value, mask)
        ours, _ = blocks.block_attention(*arguments, scaling=0.3)
        theirs, _ = blocks.sdpa_attention_forward(*arguments, scaling=0.3, dropout=0.0)
    assert (ours - theirs).abs().max() < 1e-12  # float64


@pytest.mark.parametrize("masked", [False, True])
def test_what_is_behind_the_keys_of_a_room_changes_nothing(masked: bool) -> None:
    """A growing cache, cropped: its room holds keys and values that no longer count."""
    cache, generator = DynamicCache(), torch.Generator().manual_seed(0)
    make_room(cache, 1, 60)
    key, value = (torch.randn(2, 3, 50, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    query = torch.randn(2, 3, 1, 8, generator=generator, dtype=torch.float64)
    mask = torch.rand(2, 1, 1, 40, generator=generator) < 0.7 if masked else None
    with torch.inference_mode():
        cache.update(10 * key, 10 * value, 0)
        layer = cache.layers[0]
        views = layer.update(key[:, :, :0], value[:, :, :0])
        rooms = [whole_room(view) for view in views]
        assert [room.shape for room in rooms] == [(2, 3, 60 + SPARE_PLACES, 8)] * 2
        shorter = [room[:, :, :40] for room in rooms]
        for view, room in zip(shorter, rooms, strict=True):
            view.room = room
        ours, _ = blocks.block_attention(Causal(), query, *shorter, mask, scaling=0.3)
        theirs, _ = blocks.sdpa_attention_forward(
            Causal(), query, 10 * key[:, :, :40], 10 * value[:, :, :40], mask, scaling=0.3, dropout=0.0
        )
    assert (ours - theirs).abs().max() < 1e-12  # float64


@pytest.mark.parametrize("num_queries", [2, 9, 49])
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("with_gradient", [False, True])
def test_a_chunk_behind_a_cache_sees_the_cache_and_its_own_past(
    num_queries: int, kv_heads: int, with_gradient: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, num_queries, 8, generator=generator, dtype=torch.float64)
    key, value = (torch.randn(2, kv_heads, 50, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    module = Causal()
    module.num_key_value_groups = 4 // kv_heads
    mask = torch.ones(num_queries, 50, dtype=torch.bool).tril(50 - num_queries)[None, None]
    with torch.set_grad_enabled(with_gradient):
        ours, _ = blocks.block_attention(module, query, key, value, None, scaling=0.3)
    theirs, _ = blocks.sdpa_attention_forward(module, query, key, value, mask, scaling=0.3, dropout=0.0)
    assert (ours - theirs).abs().max() < 1e-12  # float64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_chunk_in_half_precision_is_rounded_once_more_at_most(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, n, 8, generator=generator).to(dtype) for n in (20, 60, 60))
    with torch.inference_mode():
        ours, _ = blocks.block_attention(Causal(), query, key, value, None)
        exact, _ = blocks.block_attention(Causal(), query.double(), key.double(), value.double(), None)
    assert ours.dtype == dtype
    # Values of about one: half a unit in the last place for each of the two parts and for their sum.
    assert (ours.double() - exact).abs().max() < 3 * torch.finfo(dtype).eps


def mask_for(num_queries: int, num_keys: int, offset: int, padding: torch.Tensor | None) -> torch.Tensor | None:
    settings = {"q_length": num_queries, "kv_length": num_keys, "q_offset": offset, "kv_offset": 0}
    return blocks.block_mask(batch_size=1, attention_mask=padding, **settings)


def test_a_mask_is_made_only_where_the_order_of_keys_does_not_tell() -> None:
    everything = torch.ones(1, 8, dtype=torch.bool)
    assert mask_for(8, 8, 0, None) is None
    assert mask_for(3, 8, 5, None) is None
    assert mask_for(3, 8, 5, everything) is None
    padded = everything.clone()
    padded[0, 0] = False
    causal = torch.ones(3, 8, dtype=torch.bool).tril(5)[None, None]
    assert torch.equal(mask_for(3, 8, 5, padded), causal & padded[:, None, None])
    # Padding behind the last real key is where no real query looks.
    behind, hole = everything.clone(), everything.clone()
    behind[0, 6:], hole[0, 4] = False, False
    assert mask_for(8, 8, 0, behind) is None
    assert torch.equal(mask_for(8, 8, 0, hole)[0, 0, 7], hole[0])
    # A cache of fixed size has places behind the queries.
    assert torch.equal(mask_for(3, 8, 0, None), torch.ones(3, 8, dtype=torch.bool).tril()[None, None])
    # transformers takes keys that a mask does not reach for padding.
    assert not mask_for(3, 8, 5, everything[:, :7])[..., 7].any()
