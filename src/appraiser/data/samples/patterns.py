"""Patterns as small repeating tiles, drawn once per process and laid over a surface by its own coordinates.

A tile holds three weights per texel, 0..1: how much of the second colour, how much of the third colour, and the height
of the cloth (0.5 is flat). Looking a tile up is one indexing step, so every pattern costs the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from appraiser.data.samples.fields import TEXELS, Plane, field

PERIODS: dict[str, tuple[float, float]] = {
    "plain": (1.0, 1.0),
    "striped": (1.0, 0.14),
    "check": (0.20, 0.20),
    "argyle": (0.19, 0.29),
    "houndstooth": (0.165, 0.165),
    "polka dot": (0.17, 0.17),
    "quilted": (0.16, 0.16),
    "camouflage": (0.70, 0.70),
    "chevron": (0.22, 0.13),
    "heart": (0.25, 0.25),
}
"""Width and height of one repeat, in parts of the object's size. Bold, because a small model sees 128 pixels."""

PATTERNS: tuple[str, ...] = tuple(PERIODS)

_TILE = 256  # texels; a power of two, so that wrapping is a bit mask


def lay(pattern: str, across: Plane, down: Plane, pixel: float, scale: float = 1.0) -> Plane | None:
    """Weights of the pattern at the given surface coordinates.

    Args:
        across, down: [H, W] positive coordinates on the cloth, in parts of the object's size.
        pixel: size of one pixel in the same unit; chooses how far the tile is blurred before it is read.
        scale: 2.0 makes the repeat twice as large.

    Returns:
        [3, H, W]: second colour, third colour, height; None for a plain cloth.
    """
    if pattern == "plain":
        return None
    wide, high = PERIODS[pattern]
    footprint = pixel / (min(wide, high) * scale) * _TILE
    tile = _filtered(pattern, int(np.clip(np.ceil(np.log2(max(footprint, 1.0)) - 0.4), 0, 4)))
    side = tile.shape[-1]
    column = (across * np.float32(side / (wide * scale))).astype(np.int32) & (side - 1)
    row = (down * np.float32(side / (high * scale))).astype(np.int32) & (side - 1)
    return np.take(tile.reshape(3, -1), row * side + column, axis=1)


@cache
def _filtered(pattern: str, level: int) -> Plane:
    """The tile blurred to 2**level texels but kept twice as fine: read at the nearest texel, edges stay smooth."""
    if level == 0:
        return _level(pattern, 0)
    return _smooth(_level(pattern, level - 1))


@cache
def _level(pattern: str, level: int) -> Plane:
    """The tile at 1 / 2**level of its size."""
    if level == 0:
        return np.ascontiguousarray(np.stack(_TILES[pattern]()), dtype=np.float32)
    return np.ascontiguousarray(_smooth(_level(pattern, level - 1))[:, ::2, ::2])


def _smooth(tile: Plane) -> Plane:
    """Each texel a weighted mean with its neighbours, wrapped at the borders."""
    for axis in (1, 2):
        tile = np.float32(0.5) * tile + np.float32(0.25) * (np.roll(tile, 1, axis) + np.roll(tile, -1, axis))
    return tile


Weights = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def _grid() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    line = (np.arange(_TILE) + 0.5) / _TILE
    across, down = np.meshgrid(line, line)
    return across, down


def _inside(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 where the distance (in repeats) is positive, with an edge two texels soft."""
    return np.clip(distance * _TILE / 2 + 0.5, 0.0, 1.0)


def _wave(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Triangle wave of period 1: 1 at whole numbers, 0 half-way between them."""
    return np.abs((value % 1.0) - 0.5) * 2.0


def _to_whole(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance to the nearest whole number."""
    return np.abs(value - np.round(value))


def _flat() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.zeros((_TILE, _TILE)), np.full((_TILE, _TILE), 0.5)


def _striped() -> Weights:
    _, down = _grid()
    none, level = _flat()
    return _inside(_wave(down) - 0.56), none, level


def _check() -> Weights:
    across, down = _grid()
    _, level = _flat()
    # Bands let the main colour through and leave it most of the area: a grey check must not look white.
    bands = 0.43 * (_inside(_wave(across) - 0.63) + _inside(_wave(down) - 0.63))
    thin = np.maximum(_inside(_wave(across + 0.5) - 0.87), _inside(_wave(down + 0.5) - 0.87))
    return bands, thin * 0.9, level


def _argyle() -> Weights:
    across, down = _grid()
    _, level = _flat()
    diamonds = _inside((_wave(across) + _wave(down) - 1.1) / 2)
    lines = np.maximum(_inside(0.022 - _to_whole(across + down)), _inside(0.022 - _to_whole(across - down)))
    return diamonds, lines, level


def _houndstooth() -> Weights:
    """The weave itself: four dark and four light threads both ways in a two-by-two twill."""
    threads = np.arange(8)
    warp_on_top = (threads[None, :] - threads[:, None]) % 4 < 2
    weave = np.where(warp_on_top, (threads < 4)[None, :], (threads < 4)[:, None]).astype(np.float64)
    cloth = np.kron(weave, np.ones((_TILE // 8, _TILE // 8)))
    for axis in (0, 1):  # round the steps of the threads, as a press does
        cloth = np.mean([np.roll(cloth, shift, axis) for shift in range(-14, 15)], axis=0)
    none, level = _flat()
    return np.clip((cloth - 0.5) * 6.0 + 0.5, 0.0, 1.0), none, level


def _polka_dot() -> Weights:
    across, down = _grid()
    none, level = _flat()
    centre = np.hypot((across % 1.0) - 0.5, (down % 1.0) - 0.5)
    corner = np.hypot(((across + 0.5) % 1.0) - 0.5, ((down + 0.5) % 1.0) - 0.5)
    return _inside(0.225 - np.minimum(centre, corner)), none, level


def _quilted() -> Weights:
    """Diamond puffs between sunk seams; no second colour."""
    across, down = _grid()
    none, _ = _flat()
    puff = np.abs(np.sin(np.pi * (across + down)) * np.sin(np.pi * (across - down)))
    return none, none, np.asarray(puff**0.45, dtype=np.float64)


def _camouflage() -> Weights:
    _, level = _flat()
    # Every second texel of the periodic field: still periodic, so the tile closes without a seam.
    patches = np.asarray(field("soft"), dtype=np.float64)[:TEXELS:2, :TEXELS:2]
    other = np.roll(patches.T, (91, 37), (0, 1))
    return _inside((patches - 0.45) / 12), _inside((other - 0.75) / 12), level


def _chevron() -> Weights:
    across, down = _grid()
    none, level = _flat()
    return _inside((_wave(down + 0.5 * _wave(across)) - 0.58) / 2), none, level


def _heart() -> Weights:
    across, down = _grid()
    none, level = _flat()
    weight = np.zeros_like(across)
    for shift in (0.0, 0.5):
        x = (((across + shift) % 1.0) - 0.5) / 0.215
        y = 0.12 - (((down + shift) % 1.0) - 0.5) / 0.215
        inside = x**2 * y**3 - (x**2 + y**2 - 1.0) ** 3
        weight = np.maximum(weight, np.clip(inside * 25.0 + 0.5, 0.0, 1.0))
    return weight, none, level


_TILES: dict[str, Callable[[], Weights]] = {
    "striped": _striped,
    "check": _check,
    "argyle": _argyle,
    "houndstooth": _houndstooth,
    "polka dot": _polka_dot,
    "quilted": _quilted,
    "camouflage": _camouflage,
    "chevron": _chevron,
    "heart": _heart,
}
