"""How much of what the machine can multiply a run uses: arithmetic of a step over arithmetic of large matrix products.

Counted are the matrix products of linear layers: 2 floating-point operations per weight and token forwards, as many for
the gradient of the inputs, as many again for the gradient of weights that are trained. Attention, norms and the work of
checkpointing twice are left out, so the share is what reaches the model, not what keeps the machine busy.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch
from torch import nn

from appraiser.backbone import Backbone
from appraiser.data.batches import Batch
from appraiser.training.preparation import blocks_of

MEASURED_SIDE = {"cpu": 1024, "cuda": 8192}
MEASURED_S = 0.2


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of square matrix products of this process, measured for a moment: the best of a few."""
    side = MEASURED_SIDE.get(device.type, 1024)
    a = torch.randn(side, side, device=device, dtype=dtype)
    best = 0.0
    torch.mm(a, a)
    until = time.monotonic() + MEASURED_S
    while best == 0.0 or time.monotonic() < until:  # once at least, also where others keep the machine busy
        _wait(device)
        begun = time.perf_counter()
        torch.mm(a, a)
        _wait(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - begun))
    return best


class StepWork:
    """Floating-point operations of a step, from what its batches hold."""

    def __init__(self, backbone: Backbone) -> None:
        self._vision = vision = backbone.network.model.vision_embed_tokens
        head = backbone.network.lm_head
        decoder, tower = blocks_of(backbone)
        self._per_patch, sees = _work(tower, False)
        self._per_image_token, sees = _work([vision.img_projection], sees)
        embeddings = backbone.network.model.embed_tokens.weight.requires_grad
        self._per_token, reads = _work(decoder, sees or embeddings)
        self._per_scored, _ = _work([head], reads)
        clip = backbone.config.clip_config
        self._patches_per_view = (clip["image_size"] // clip["patch_size"]) ** 2 + 1

    def of(self, batch: Batch) -> float:
        """FLOP of one micro-batch, forwards and backwards; kept features cost the tower nothing."""
        num_image_tokens = int((batch.inputs["input_ids"] < 0).sum())
        num_views = 0
        if "pixel_values" in batch.inputs:
            grids = self._vision.crop_grid(batch.inputs["image_sizes"])
            # A picture of one crop is its own global view, and is seen once.
            num_views = sum(1 + rows * columns if rows * columns > 1 else 1 for rows, columns in grids)
        return (
            batch.num_tokens * self._per_token
            + batch.num_supervised * self._per_scored
            + num_image_tokens * self._per_image_token
            + num_views * self._patches_per_view * self._per_patch
        )


def _work(blocks: Iterable[nn.Module], is_reached: bool) -> tuple[float, bool]:
    """FLOP per row of the linear layers of blocks in turn: 2 forwards, 2 for inputs and 2 for trained weights.

    Args:
        is_reached: the gradient goes on to what lies before the first block.

    Returns:
        The work, and whether the gradient comes to these blocks.
    """
    total = 0.0
    for block in blocks:
        is_reached = is_reached or any(parameter.requires_grad for parameter in block.parameters())
        for module in block.modules():
            if isinstance(module, nn.Linear):
                numbers = module.in_features * module.out_features
                total += numbers * (2 + 2 * is_reached + 2 * module.weight.requires_grad)
    return total, is_reached


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_gib(device: torch.device) -> float:
    """Most memory held so far: on the GPU, or by this process now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096 / 2**30
    except OSError:  # not Linux
        return 0.0
