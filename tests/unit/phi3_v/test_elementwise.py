"""Gradients written by hand equal autograd's, in fp64 to rounding and in the dtypes that training uses nearly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from appraiser.phi3_v.elementwise import (
    QuickGelu,
    RmsNorm,
    Rotation,
    plain_quick_gelu,
    plain_rms_norm,
    plain_rotate,
)


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


CASES = {
    "quick gelu": (QuickGelu, plain_quick_gelu, lambda dtype: (numbers(3, 5, 8, dtype=dtype),)),
    "rotation": (
        Rotation,
        plain_rotate,
        lambda dtype: (numbers(2, 3, 5, 8, dtype=dtype), numbers(2, 1, 5, 8, seed=1, dtype=dtype).requires_grad_(False),
                       numbers(2, 1, 5, 8, seed=2, dtype=dtype)),
    ),
    "norm": (
        RmsNorm,
        plain_rms_norm,
        lambda dtype: (numbers(3, 5, 8, dtype=dtype), numbers(8, seed=3, dtype=dtype), 1e-5),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_autograds(name, dtype, tolerance):
    function, plain, make = CASES[name]
    results = []
    for compute in (function.apply, plain):
        inputs = make(dtype)
        trained = [inputs[0].requires_grad_(True)]
        if name == "norm":
            trained.append(inputs[1].requires_grad_(True))
        output = compute(*inputs)
        gradients = torch.autograd.grad(output, trained, numbers(*output.shape, seed=9, dtype=output.dtype))
        results.append((output, *gradients))
    for found, expected in zip(*results, strict=True):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_values_are_equal_to_the_bit():
    """Outputs keep the published order of roundings."""
    for function, plain, make in CASES.values():
        for dtype in (torch.float32, torch.bfloat16):
            inputs = make(dtype)
            assert torch.equal(function.apply(*inputs), plain(*inputs))


def test_inputs_are_left_unchanged():
    for function, _, make in CASES.values():
        inputs = make(torch.float32)
        before = [value.clone() if isinstance(value, Tensor) else value for value in inputs]
        output = function.apply(inputs[0].requires_grad_(True), *inputs[1:])
        output.sum().backward()
        for value, same in zip(inputs, before, strict=True):
            assert not isinstance(value, Tensor) or torch.equal(value, same)


def test_mixed_dtypes_follow_torchs_rules():
    """Under autocast states are bfloat16 and tables or weights float32."""
    states = numbers(2, 3, 5, 8, dtype=torch.bfloat16).requires_grad_(True)
    tables = [numbers(2, 1, 5, 8, seed=seed, dtype=torch.float32) for seed in (1, 2)]
    output = Rotation.apply(states, *tables)
    assert output.dtype == torch.float32
    output.sum().backward()
    assert states.grad is not None
    assert states.grad.dtype == torch.bfloat16
    assert RmsNorm.apply(states, numbers(8, dtype=torch.float32), 1e-5).dtype == torch.float32
