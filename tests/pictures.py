"""Pictures and looks for tests of what is alike."""

import io

import numpy as np
from PIL import Image

from appraiser.data.looks import SMALL_BYTES


def scene(number: int, side: int = 160) -> Image.Image:
    """A soft random picture; unrelated for different numbers."""
    cells = np.random.default_rng(number).integers(0, 255, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((side, side), Image.Resampling.BICUBIC)


def stored(image: Image.Image, quality: int) -> Image.Image:
    """The picture as it comes back from a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def looks_with(hashes: np.ndarray) -> np.ndarray:
    """Looks that differ in their [n, 256] hashes alone."""
    small = np.random.default_rng(1).integers(0, 255, SMALL_BYTES, dtype=np.uint8)
    return np.concatenate([np.packbits(hashes, axis=1), np.tile(small, (len(hashes), 1))], axis=1)


def random_hashes(count: int, seed: int = 0) -> np.ndarray:
    """[n, 256] bool."""
    return np.random.default_rng(seed).random((count, 256)) < 0.5


def random_looks(count: int, seed: int = 0) -> np.ndarray:
    """Looks far from each other."""
    return looks_with(random_hashes(count, seed))


def chain(length: int) -> np.ndarray:
    """Looks of which each differs from the one before by five bits, and the ends in everything."""
    hashes = np.repeat(random_hashes(1), length, axis=0)
    for row in range(1, length):
        hashes[row:, 5 * row : 5 * row + 5] ^= True
    return looks_with(hashes)
