"""Block attention gives PyTorch's attention, forward and backward, kept or recomputed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from appraiser.phi3_v import block_attention as blocks


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
@pytest.mark.parametrize(("module", "masked"), [(Causal(), False), (Full(), False), (Causal(), True)])
def test_equals_pytorch(module: nn.Module, masked: bool, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "KEPT_ELEMENTS", kept)
    monkeypatch.setattr(blocks, "SHORT_BLOCK", 16)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 3, 50, 8, generator=generator, dtype=torch.float64) for _ in range(3)]
    mask = None
    if masked:
        mask = torch.ones(50, 50, dtype=torch.bool).tril()[None, None].repeat(2, 1, 1, 1)
        mask[1, :, :, :7] = False
        mask[1, :, :7, 0] = True
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
    with torch.no_grad():
        blocks.block_attention(Causal(), query[:, :, :2], query, query, None)  # which of the keys are behind?
        blocks.block_attention(Causal(), query, query, query, torch.zeros(1, 1, 6, 6))  # a mask to be added
    assert len(called) == 5


# Without a mask, more than one query behind a cache would not say which keys it may see.
@pytest.mark.parametrize(("num_queries", "masked"), [(1, False), (1, True), (3, True), (50, False), (50, True)])
def test_answering_equals_pytorch(num_queries: int, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "SHORT_BLOCK", 16)
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 50, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    mask = torch.rand(2, 1, num_queries, 50, generator=generator) < 0.7 if masked else None
    if masked:
        mask[..., 0] = True
    with torch.inference_mode():
        arguments = (Causal(), query[:, :, :num_queries], key, value, mask)
        ours, _ = blocks.block_attention(*arguments, scaling=0.3)
        theirs, _ = blocks.sdpa_attention_forward(*arguments, scaling=0.3, dropout=0.0)
    assert (ours - theirs).abs().max() < 1e-12  # float64
