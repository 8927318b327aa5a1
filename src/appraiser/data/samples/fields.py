"""Noise fields: periodic, smooth, made once per process and cut to size for each picture.

Drawing fresh noise for a picture costs more than painting it, so every texture and shadow takes a random window of one
of these fields. The seeds are fixed: the same window is the same noise on any machine.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.float32]

TEXELS = 512
"""Side of one period of a field."""

_SHAPES: dict[str, tuple[float, float]] = {
    # waves per period across and down; unequal numbers give streaks
    "soft": (5.0, 5.0),
    "folds": (9.0, 3.0),
    "blotch": (16.0, 16.0),
    "crinkle": (11.0, 11.0),
    "brush": (60.0, 12.0),
    "fleck": (70.0, 70.0),
    "grain": (170.0, 170.0),
}


@cache
def field(name: str) -> Image.Image:
    """The named field as a picture of floats, zero mean and unit spread, two periods wide and high."""
    across, down = _SHAPES[name]
    rng = np.random.default_rng(sum(map(ord, name)))
    white = np.fft.rfft2(rng.standard_normal((TEXELS, TEXELS)))
    frequency_y = np.fft.fftfreq(TEXELS)[:, None] * TEXELS
    frequency_x = np.fft.rfftfreq(TEXELS)[None, :] * TEXELS
    smooth = np.fft.irfft2(
        white * np.exp(-((frequency_x / across) ** 2 + (frequency_y / down) ** 2)), s=(TEXELS, TEXELS)
    )
    smooth = smooth / smooth.std()
    if name == "crinkle":  # sharp valleys where the noise crosses zero: creases with flat facets between them
        smooth = np.abs(smooth) ** 0.7 + 0.6 * np.abs(np.roll(smooth[::-1], TEXELS // 3, axis=1)) ** 0.7
        smooth = (smooth - smooth.mean()) / smooth.std()
    return Image.fromarray(np.tile(smooth, (2, 2)).astype(np.float32))


@cache
def _plane(name: str) -> Plane:
    return np.asarray(field(name))


def window(name: str, height: int, width: int, texels_per_pixel: float, rng: np.random.Generator) -> Plane:
    """A random window of a field, [height, width]; more texels per pixel make a finer texture."""
    if texels_per_pixel == 1.0 and max(height, width) <= TEXELS:
        left, top = (int(value) for value in rng.integers(TEXELS, size=2))
        return _plane(name)[top : top + height, left : left + width]
    wide, high = min(width * texels_per_pixel, TEXELS), min(height * texels_per_pixel, TEXELS)
    left, top = rng.random(2) * TEXELS
    box = (float(left), float(top), float(left + wide), float(top + high))
    return np.asarray(field(name).resize((width, height), Image.Resampling.BILINEAR, box=box))


def blur(plane: Plane, radius: float) -> Plane:
    """A smooth blur with about this Gaussian radius in pixels, done on a shrunk copy where the radius allows."""
    height, width = plane.shape
    shrink = max(1, int(radius / 1.4))
    small = Image.fromarray(plane)
    if shrink > 1:
        size = (max(2, round(width / shrink)), max(2, round(height / shrink)))
        small = small.resize(size, Image.Resampling.BOX)
    values = _smooth(_smooth(np.asarray(small), radius / shrink, axis=0), radius / shrink, axis=1)
    if shrink == 1:
        return values
    return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR))


def _smooth(plane: Plane, radius: float, axis: int) -> Plane:
    reach = max(1, int(np.ceil(radius * 2.2)))
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (steps / max(radius, 1e-3)) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    pad = [(0, 0), (0, 0)]
    pad[axis] = (reach, reach)
    padded = np.pad(plane, pad)
    length = plane.shape[axis]
    total = np.zeros_like(plane)
    for offset, weight in enumerate(weights):
        part = padded[offset : offset + length] if axis == 0 else padded[:, offset : offset + length]
        total += weight * part
    return total
