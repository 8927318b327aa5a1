"""Outlines as pieces of points, and masks made from them.

pieces, in drawing order:   body ── adds to the mask
                            hole ── takes away from it
                            detail ─ a mark on it (door, eye, seam) in another tone, never part of the mask
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

FloatArray = NDArray[np.float32]
Points = NDArray[np.float64]
Kind = Literal["body", "hole", "detail"]
Piece = tuple[Kind, Points]


@dataclass(frozen=True)
class Outline:
    """Pieces of one instance; the bodies touch the unit square on its longer side and are centred in it."""

    pieces: tuple[Piece, ...]


def rasterise(
    outline: Outline, matrix: NDArray[np.float64], shift: tuple[float, float], shape: tuple[int, int]
) -> tuple[FloatArray, FloatArray]:
    """Draw the pieces into an antialiased mask.

    Args:
        outline: pieces in the unit square.
        matrix: [2, 2]; takes a point relative to the centre of the unit square to pixels.
        shift: where that centre comes to lie, in pixels (x, y).
        shape: (height, width) of the masks.

    Returns:
        The body's mask and the details' mask (zero outside the body), float32 [height, width] in 0..1.
    """
    height, width = shape
    masks = [Image.new("L", (2 * width, 2 * height)) for _ in range(2)]  # twice as fine, averaged down: soft edges
    pens = [ImageDraw.Draw(mask) for mask in masks]
    for kind, points in outline.pieces:
        pixels = (2 * ((points - 0.5) @ matrix.T + np.array(shift))).ravel().tolist()
        pens[kind == "detail"].polygon(pixels, fill=0 if kind == "hole" else 255)
        if kind == "body":  # a later body covers an earlier detail
            pens[1].polygon(pixels, fill=0)
    body, detail = (np.asarray(mask.reduce(2), dtype=np.float32) * np.float32(1 / 255) for mask in masks)
    return body, np.minimum(body, detail)


def blurred(mask: FloatArray, radius: float) -> FloatArray:
    """The mean of [H, W] over a square of `radius` pixels to each side, at least one."""
    image = Image.fromarray((mask * 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(max(1.0, radius)))
    return np.asarray(image, dtype=np.float32) * np.float32(1 / 255)
