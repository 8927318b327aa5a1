"""Blocks under torch.compile compute what they compute without it."""

import shutil

import pytest
import torch
from tiny import formula_picture, tiny_backbone

from appraiser.training.preparation import blocks_of


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_compiled_blocks_have_the_same_loss_and_gradients(tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
    found = []
    for compiled in (False, True):
        backbone = tiny_backbone(tmp_path / str(compiled))
        if compiled:
            for block in [block for blocks in blocks_of(backbone) for block in blocks]:
                block.compile()
        inputs = backbone.processor(
            text="<|user|>\n<|image_1|>What is this?<|end|>\n<|assistant|>\nRed Bag<|end|>",
            images=[formula_picture(60, 40)],
            return_tensors="pt",
        )
        labels = inputs["input_ids"].masked_fill(inputs["input_ids"] < 0, -100)
        loss = backbone.model.train()(**inputs, labels=labels, use_cache=False).loss
        loss.backward()
        found.append((loss, {name: p.grad for name, p in backbone.model.named_parameters() if p.grad is not None}))
    (loss, gradients), (compiled_loss, compiled_gradients) = found
    torch.testing.assert_close(compiled_loss, loss, rtol=1e-5, atol=1e-6)
    assert gradients.keys() == compiled_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(compiled_gradients[name], gradient, rtol=1e-3, atol=1e-5, msg=name)
