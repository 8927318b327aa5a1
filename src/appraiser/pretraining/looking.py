"""First stage: tower and projector learn to tell shape, colour, pattern, material, size and part.

    scenes ─▶ replay of pictures ─▶ shifted, mirrored views ─▶ tower ─▶ patches ─▶ what covers this patch?
                                                                └─▶ projector ─▶ tokens ─▶ what is in the picture?

Both kinds of heads are thrown away. Without this stage the decoder learns the language first and never looks (loss with
right and with shuffled pictures stayed equal to six digits after 650 steps). The question to every patch is what makes
small things visible: asked of whole pictures only, parts were not told apart after 25,000 of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from appraiser.backbone import Backbone
from appraiser.data.samples.textures import COLOURS, MATERIALS, PATTERNS
from appraiser.phi3_v import Phi3VForConditionalGeneration
from appraiser.pretraining.parts import PARTS
from appraiser.pretraining.scenes import Scene, draw
from appraiser.pretraining.shapes import SHAPES

# What the heads tell apart; index of a value = class.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": tuple(SHAPES),
    "colour": tuple(COLOURS),
    "pattern": PATTERNS,
    "material": MATERIALS,
    "size": ("small", "regular", "large"),
    "part": ("", *PARTS),
}
MOST_THINGS = 4
_PART = list(ATTRIBUTES).index("part")
_WHOLE_ONLY = ("size",)
"""What no patch can know by itself or needs to."""
_BARE_WEIGHT = 0.15
"""Weight of a patch without a part: there are far more of them than of those with one."""
_PART_SHARE = 0.08
"""A patch shows a part from this share of its area on."""
_MOST_SHIFT = 4


@dataclass(frozen=True)
class Look:
    """One drawn scene as the heads' questions need it."""

    pixels: Tensor
    """[3, S, S] half precision: the global view."""
    classes: NDArray[np.int64]
    """[MOST_THINGS, attributes]: classes of each thing, the main one first; missing ones repeat it."""
    things: NDArray[np.int64]
    """[side, side]: number of the thing that covers most of the patch, from 1; 0 is the ground."""
    parts: NDArray[np.int64]
    """[side, side]: number of the thing whose part the patch shows, from 1; 0 for none."""


def look_at(scene: Scene, backbone: Backbone, patches_per_side: int, px: int) -> Look:
    """Draw a scene at `px` pixels (a multiple of the patches per side) and note what every patch shows."""
    drawing = draw(scene, px)
    classes = [[values.index(getattr(thing, name)) for name, values in ATTRIBUTES.items()] for thing in scene.things]
    classes += [classes[0]] * (MOST_THINGS - len(classes))
    parts = _shares(drawing.parts, patches_per_side)[..., 1:]
    return Look(
        backbone.views(drawing.picture).pixels[0].half(),
        np.array(classes),
        _shares(drawing.things, patches_per_side).argmax(-1),
        np.where(parts.max(-1) >= _PART_SHARE, parts.argmax(-1) + 1, 0),
    )


def _shares(numbers: NDArray[np.uint8], side: int) -> NDArray[np.float64]:
    """[side, side, 1 + MOST_THINGS]: the share of each cell that each number covers."""
    cell = len(numbers) // side
    cells = numbers.reshape(side, cell, side, cell)
    return np.stack([(cells == number).mean(axis=(1, 3)) for number in range(1 + MOST_THINGS)], axis=-1)


def look_batch(looks: Sequence[Look], rng: np.random.Generator) -> LookBatch:
    """The pictures, each shifted by some pixels and mirrored by the toss of a coin: none is ever quite the same."""
    views, things, parts = [], [], []
    for look in looks:
        mirror = -1 if rng.random() < 0.5 else 1
        down, right = rng.integers(-_MOST_SHIFT, _MOST_SHIFT + 1, 2).tolist()
        views.append(_moved(look.pixels.float(), mirror, down, right))
        things.append(look.things[:, ::mirror])
        parts.append(look.parts[:, ::mirror])
    return LookBatch(
        torch.stack(views),
        torch.from_numpy(np.stack([look.classes for look in looks])),
        torch.from_numpy(np.stack(things)).flatten(1),
        torch.from_numpy(np.stack(parts)).flatten(1),
    )


def _moved(pixels: Tensor, mirror: int, down: int, right: int) -> Tensor:
    """[3, S, S] shifted by whole pixels, the border repeated, and mirrored where `mirror` is -1."""
    places = torch.arange(pixels.shape[-1])
    last = len(places) - 1
    columns = (places - right).clamp(0, last)
    return pixels[:, (places - down).clamp(0, last)][:, :, columns.flip(0) if mirror < 0 else columns]


@dataclass(frozen=True)
class LookBatch:
    """[B, 3, S, S] views; [B, MOST_THINGS, attributes] classes; [B, P] numbers of things and of parts per patch."""

    views: Tensor
    classes: Tensor
    things: Tensor
    parts: Tensor


class TokenHeads(nn.Module):
    """Per attribute of the main thing a learned query that attends to the image tokens, and a classifier."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.zeros(len(ATTRIBUTES), width))  # zero: starts as the mean token
        self.heads = nn.ModuleList(nn.Linear(width, len(values)) for values in ATTRIBUTES.values())

    def forward(self, tokens: Tensor, classes: Tensor) -> Tensor:
        """[attributes] cross-entropies of [B, T, D] image tokens against [B, attributes] classes."""
        tokens = self.norm(tokens.float())
        weights = (tokens @ self.queries.T).softmax(dim=1)  # [B, T, attributes]
        pooled = torch.einsum("bta,btd->abd", weights, tokens)
        losses = [functional.cross_entropy(head(pooled[i]), classes[:, i]) for i, head in enumerate(self.heads)]
        return torch.stack(losses)


class PatchHeads(nn.Module):
    """For every patch what covers it: the attributes of the thing there, and of the part there if any."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, sum(map(len, ATTRIBUTES.values())))

    def forward(self, patches: Tensor, batch: LookBatch) -> Tensor:
        """[attributes asked] cross-entropies of [B, P, C] patches."""
        logits = self.head(self.norm(patches.float())).split([len(v) for v in ATTRIBUTES.values()], dim=-1)
        covered = batch.things > 0
        here = _of_thing(batch.classes, batch.things)[covered]
        losses = [
            functional.cross_entropy(logits[index][covered], here[:, index])
            for index, name in enumerate(ATTRIBUTES)
            if index != _PART and name not in _WHOLE_ONLY
        ]
        shown = batch.parts > 0
        part = torch.where(shown, _of_thing(batch.classes, batch.parts)[..., _PART], 0)
        weight = torch.where(shown, 1.0, _BARE_WEIGHT).flatten()
        each = functional.cross_entropy(logits[_PART].flatten(0, 1), part.flatten(), reduction="none")
        return torch.stack([*losses, (each * weight).sum() / weight.sum()])


def _of_thing(classes: Tensor, numbers: Tensor) -> Tensor:
    """[B, P, attributes]: the classes of the thing with each patch's number; of the first one where it is 0."""
    index = (numbers - 1).clamp(min=0)[..., None].expand(-1, -1, classes.shape[-1])
    return classes.gather(1, index)


class Looking(nn.Module):
    """What the first stage trains: the vision part of a model, and the heads that ask it."""

    def __init__(self, model: Phi3VForConditionalGeneration) -> None:
        super().__init__()
        self.vision_embed_tokens = model.model.vision_embed_tokens  # this name sorts it into the optimizers' groups
        self.token_heads = TokenHeads(model.config.hidden_size)
        self.patch_heads = PatchHeads(model.config.clip_config["hidden_size"])

    def forward(self, batch: LookBatch) -> Tensor:
        """Summed loss. A one-crop picture shows the same view twice, so the tower runs it once."""
        vision = self.vision_embed_tokens
        patches = vision.img_processor.vision_model(batch.views)
        side = batch.views.shape[-1]
        tokens = vision.project(patches.repeat_interleave(2, dim=0), torch.tensor([[side, side]] * len(batch.views)))
        tokens = tokens.reshape(len(batch.views), -1, tokens.shape[-1])
        with torch.autocast("cpu", enabled=False):
            return self.token_heads(tokens, batch.classes[:, 0]).sum() + self.patch_heads(patches, batch).sum()
