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
    blocks.block_attention(Causal(), query[:, :, :1], query, query, None)  # a cache
    with torch.no_grad():
        blocks.block_attention(Causal(), query, query, query, None)
    assert len(called) == 4
