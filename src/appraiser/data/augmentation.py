"""Another view of a training picture in every epoch: mirrored by the toss of a coin, shifted by a few pixels.

A model that sees the very same pixels in every epoch learns by heart which picture costs what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Augmentation:
    """How far training pictures may be changed; evaluation and prediction always see them as they are.

    Args:
        mirror: half of the draws are mirrored left to right, all pictures of a record together.
        shift: most of a move along each axis as a share of that side; the border is repeated.
    """

    mirror: bool = False
    shift: float = 0.0
    seed: int = 0

    @property
    def changes_anything(self) -> bool:
        return self.mirror or self.shift > 0

    def __call__(self, images: Sequence[Image.Image], epoch: int, position: int) -> list[Image.Image]:
        """The pictures of one record; a pure function of (seed, epoch, position) and the pictures. Sizes stay."""
        rng = np.random.default_rng([self.seed, epoch, position])
        is_mirrored = self.mirror and bool(rng.random() < 0.5)
        return [self._one(image, is_mirrored, rng) for image in images]

    def _one(self, image: Image.Image, is_mirrored: bool, rng: np.random.Generator) -> Image.Image:
        if is_mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        right, down = np.rint(rng.uniform(-self.shift, self.shift, 2) * image.size).astype(int).tolist()
        if right or down:
            rows = (np.arange(image.height) - down).clip(0, image.height - 1)
            image = Image.fromarray(_moved_right(np.asarray(image).take(rows, axis=0), right))
        return image


def _moved_right(pixels: np.ndarray, by: int) -> np.ndarray:
    """[H, W, 3] moved along its rows; the column at the border is repeated. Much faster than an index of columns."""
    if by == 0:
        return pixels
    moved = np.empty_like(pixels)
    if by > 0:
        moved[:, by:] = pixels[:, :-by]
        moved[:, :by] = pixels[:, :1]
    else:
        moved[:, :by] = pixels[:, -by:]
        moved[:, by:] = pixels[:, -1:]
    return moved
