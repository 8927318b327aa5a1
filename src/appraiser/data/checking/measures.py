"""What can be measured on one picture: size, light, sharpness, the product's part of it, and its background.

Product pictures stand on white paper, which is bright, flat and without any edge. So light is judged by the brightest
part of a picture and sharpness by the part that is not background.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appraiser.data.looks import look_of
from appraiser.data.pictures import PictureError, decode

SIDE = 336
"""Pictures are measured at the size that the model sees one crop in; smaller ones as they are."""
CORNER_SHARE = 0.10
Plane = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Measured:
    """One picture.

    Args:
        width, height: as stored, in pixels.
        sha256: first 16 bytes of the hash of the stored bytes.
        look: [800] bytes, the fingerprint that near duplicates are found by.
        light: luminance of the brightest percent of the pixels, 0..1.
        range: luminance between the darkest and the brightest half percent, 0..1.
        blur: 0 for sharp edges to 1 for none, in the product's part of the picture; see `blur_of`.
        product: share of the picture that differs from its background.
        corners: [16] mean red, green, blue and spread of luminance of the four corners, 0..1.
    """

    width: int
    height: int
    num_bytes: int
    sha256: bytes
    look: bytes
    light: float
    range: float
    blur: float
    product: float
    corners: NDArray[np.float32]


def measure(data: bytes) -> Measured | str:
    """Measure a stored picture; the reason if it cannot be decoded."""
    try:
        image = decode(data)
    except PictureError as problem:
        return problem.reason
    width, height = image.size
    # Before shrinking: it has to be the look that the builder grouped by.
    look = look_of(image).tobytes()
    image.thumbnail((SIDE, SIDE), reducing_gap=2.0)
    pixels = np.asarray(image, dtype=np.float32) / np.float32(255.0)
    light = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    low, high, top = np.quantile(light, (0.005, 0.995, 0.99))
    mask = foreground(pixels)
    return Measured(
        width=width,
        height=height,
        num_bytes=len(data),
        sha256=hashlib.sha256(data).digest()[:16],
        look=look,
        light=float(top),
        range=float(high - low),
        blur=blur_of(_part(light, mask)),
        product=float(mask.mean()),
        corners=corners_of(pixels, light),
    )


def foreground(pixels: Plane) -> NDArray[np.bool_]:
    """Where a picture differs from its border: [H, W, 3] -> [H, W]. Everywhere if the border is not of one colour."""
    height, width = pixels.shape[:2]
    edge = max(1, round(0.03 * min(height, width)))
    ring = np.concatenate(
        [
            pixels[:edge].reshape(-1, 3), pixels[-edge:].reshape(-1, 3),
            pixels[:, :edge].reshape(-1, 3), pixels[:, -edge:].reshape(-1, 3),
        ]
    )  # fmt: skip
    colour = np.median(ring, axis=0)
    spread = float(np.median(np.abs(ring - colour).max(axis=1)))
    if spread > 0.10:
        return np.ones((height, width), dtype=bool)
    return np.abs(pixels - colour).max(axis=2) > max(0.08, 4 * spread)


def _part(light: Plane, mask: NDArray[np.bool_]) -> Plane:
    """The box around the product; the whole picture where nothing stands out."""
    rows, columns = np.flatnonzero(mask.mean(axis=1) > 0.01), np.flatnonzero(mask.mean(axis=0) > 0.01)
    if len(rows) < 8 or len(columns) < 8:
        return light
    return light[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def blur_of(light: Plane) -> float:
    """How little a picture changes when it is blurred once more: 0 sharp, 1 without any edge left to lose.

    After Crete et al., The Blur Effect (2007): neighbouring differences are summed before and after a mean over nine
    pixels, along both axes; the duller axis counts. Contrast and content do not matter, only how steep edges are.
    """
    found = []
    for plane in (light, light.T):
        if plane.shape[1] < 12:
            continue
        sums = np.cumsum(np.pad(plane, ((0, 0), (1, 0))), axis=1, dtype=np.float64)
        again = ((sums[:, 9:] - sums[:, :-9]) / 9).astype(np.float32)
        before = np.abs(np.diff(plane[:, 4:-4], axis=1))
        lost = np.maximum(0.0, before - np.abs(np.diff(again, axis=1)))
        total = float(before.sum())
        found.append((total - float(lost.sum())) / total if total > 0 else 1.0)
    return max(found, default=0.0)


def corners_of(pixels: Plane, light: Plane) -> NDArray[np.float32]:
    """Colour and unrest of the four corners, where a product hardly ever is."""
    height, width = light.shape
    down, across = max(1, round(CORNER_SHARE * height)), max(1, round(CORNER_SHARE * width))
    places = [(rows, columns) for rows in (slice(0, down), slice(-down, None))
              for columns in (slice(0, across), slice(-across, None))]  # fmt: skip
    return np.array(
        [value for place in places for value in (*pixels[place].mean(axis=(0, 1)), light[place].std())],
        dtype=np.float32,
    )
