"""Cloth, leather and metal: lays a pattern and a material over a shape.

`paint` is the only entry. A material is a handful of numbers (how it folds, shines, and what its grain looks like), so
that each can be told from the others by eye, also when the whole picture is shrunk to 128 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appraiser.data.samples.fields import Plane, blur, window
from appraiser.data.samples.patterns import PATTERNS, PERIODS, lay

__all__ = ["COLOURS", "MATERIALS", "METALS", "PATTERNS", "PERIODS", "RGB", "accents", "bounding_box", "paint"]

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "black": (30, 30, 33),
    "white": (234, 232, 227),
    "grey": (122, 124, 129),
    "navy": (30, 40, 92),
    "blue": (78, 150, 215),
    "green": (38, 112, 68),
    "red": (190, 28, 40),
    "pink": (238, 150, 178),
    "yellow": (242, 198, 48),
    "orange": (228, 112, 32),
    "beige": (214, 186, 146),
    "brown": (98, 60, 36),
    "purple": (112, 60, 150),
}

METALS: dict[str, RGB] = {"gold-plated": (214, 164, 62), "silver-plated": (188, 193, 200)}
"""Materials of hard goods: enamel in the product's colour inside a rim of this metal."""


@dataclass(frozen=True, slots=True)
class _Material:
    """How a material takes light. Depths are parts of the brightness; sizes are parts of the object."""

    folds: float
    """Depth of the broad folds."""
    texels: float
    """Field texels per object size: more make narrower folds."""
    gloss: float = 0.0
    """Strength of the highlights."""
    sharpness: float = 1.0
    """How small and hard the highlights are."""
    round: float = 0.35
    """How much the edges turn away from the light."""
    fold_field: str = "folds"
    rim: float = 0.0
    """Brightness added along the edge (a soft nap catches light) or taken away."""
    nap: float = 0.07
    """Share of the light that is thrown back whatever the colour: what shows a texture on black things."""
    grain: tuple[tuple[str, float, float], ...] = ()
    """Fields laid over the colour: name, texels per object size, depth."""


_MATERIALS: dict[str, _Material] = {
    "cotton": _Material(folds=0.09, texels=130, round=0.20, grain=(("grain", 420, 0.018),)),
    "wool": _Material(
        folds=0.04, texels=110, round=0.25, rim=0.05, grain=(("fleck", 300, 0.115), ("grain", 400, 0.05))
    ),
    "cashmere": _Material(folds=0.05, texels=100, round=0.20, rim=0.30, grain=(("grain", 320, 0.03),)),
    "silk": _Material(folds=0.20, texels=105, gloss=0.62, sharpness=1.2, round=0.25),
    "denim": _Material(folds=0.06, texels=150, round=0.22, grain=(("brush", 330, 0.055), ("blotch", 90, 0.06))),
    "leather": _Material(
        folds=0.24,
        texels=165,
        gloss=0.72,
        sharpness=1.9,
        round=0.42,
        fold_field="soft",
        grain=(("grain", 330, 0.025),),
    ),
    "suede": _Material(
        folds=0.02, texels=80, round=0.10, rim=-0.30, nap=0.15, grain=(("blotch", 200, 0.15), ("grain", 420, 0.05))
    ),
    "nylon": _Material(folds=0.075, texels=240, gloss=0.75, sharpness=2.5, round=0.25, fold_field="crinkle"),
    "gold-plated": _Material(folds=0.0, texels=120, gloss=0.30, sharpness=1.5, round=0.35, fold_field="soft"),
    "silver-plated": _Material(folds=0.0, texels=120, gloss=0.30, sharpness=1.5, round=0.35, fold_field="soft"),
}

MATERIALS: tuple[str, ...] = tuple(_MATERIALS)

_CREAM, _INK = (243, 236, 220), (26, 26, 34)
_STITCHES: dict[str, tuple[RGB, float, float]] = {
    "denim": ((226, 152, 60), 1.0, 0.0),
    "leather": ((235, 235, 235), 0.55, 0.35),
}
"""Thread, how far it covers, and the depth of the groove it lies in."""


def accents(colour: RGB) -> tuple[RGB, RGB]:
    """Second and third colour of a pattern on this colour: they contrast, and leave the colour's name in no doubt."""
    red, green, blue = colour
    brightness = 0.3 * red + 0.59 * green + 0.11 * blue
    if brightness > 150:
        return _INK, (min(255, red // 2), min(255, green // 2), min(255, blue // 2))
    if max(colour) > 60:
        return _CREAM, _INK
    # Not cream: black on cream and white on black would be the same cloth in an even pattern such as houndstooth.
    return (158, 160, 168), (205, 40, 48)


def paint(
    mask: NDArray[np.bool_] | Plane,
    pattern: str,
    material: str,
    colours: Sequence[RGB],
    rng: np.random.Generator,
    scale: float = 1.0,
    *,
    surface: tuple[Plane, Plane] | None = None,
) -> Plane:
    """Paint a shape with a patterned material, lit from the upper left.

    Args:
        mask: [H, W], 1 (or true) inside the shape; grey edges are welcome.
        pattern: one of `PATTERNS`.
        material: one of `MATERIALS`; those in `METALS` show the colours as enamel inside a metal rim.
        colours: main colour, then (optional) the pattern's second and third; `accents` fills in what is missing.
        rng: where the pattern starts, how the cloth folds.
        scale: 2.0 doubles the pattern's repeat and the folds; the repeat otherwise follows the mask's bounding box.
        surface: [H, W] coordinates across and down the cloth in parts of the object's size, where the shape is
            turned or put together from turned pieces. Default: the picture's own axes.

    Returns:
        [H, W, 3] in 0..1. Values outside the mask's bounding box are zero, between it and the mask arbitrary.
    """
    # Colour planes one after the other: numpy is several times slower on an innermost axis of three.
    canvas = np.zeros((3, *mask.shape), dtype=np.float32)
    box = bounding_box(mask)
    if box is not None:
        rows, columns = box
        inner = np.ascontiguousarray(mask[rows, columns], dtype=np.float32)
        height, width = inner.shape
        unit = 0.5 * (max(height, width) + min(height, width)) * scale
        across, down = _surface(height, width, unit, surface, box)
        canvas[:, rows, columns] = _paint(inner, pattern, material, _palette(colours), rng, unit, across, down)
    return canvas.transpose(1, 2, 0)


def bounding_box(mask: NDArray[np.bool_] | Plane) -> tuple[slice, slice] | None:
    """Rows and columns that hold the mask; None where it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _surface(
    height: int, width: int, unit: float, surface: tuple[Plane, Plane] | None, box: tuple[slice, slice]
) -> tuple[Plane, Plane]:
    if surface is not None:
        return surface[0][box], surface[1][box]
    across = np.broadcast_to(((np.arange(width) - width / 2) / unit).astype(np.float32)[None, :], (height, width))
    down = np.broadcast_to(((np.arange(height) - height / 2) / unit).astype(np.float32)[:, None], (height, width))
    return across, down


def _palette(colours: Sequence[RGB]) -> NDArray[np.float32]:
    """Three colours, [3, 3, 1, 1], so that each broadcasts over a plane."""
    main = colours[0]
    palette = [main, *colours[1:3]]
    palette += list(accents(main))[len(palette) - 1 :]
    return (np.asarray(palette, dtype=np.float32) / 255.0)[:, :, None, None]


def _paint(
    mask: Plane,
    pattern: str,
    material: str,
    palette: NDArray[np.float32],
    rng: np.random.Generator,
    unit: float,
    across: Plane,
    down: Plane,
) -> Plane:
    kind = _MATERIALS[material]
    height, width = mask.shape
    folds = window(kind.fold_field, height, width, kind.texels / unit, rng)
    start = rng.random(2).astype(np.float32) + 4.0  # positive, so that casting to int rounds down
    # The cloth's folds bend the pattern along with the light: a straight grid on a creased coat looks pasted on.
    bend = np.float32(min(0.05 * kind.folds, 0.006)) * folds
    across, down = across + bend + start[0], down - bend + start[1]

    weights = lay(pattern, across, down, 1.0 / unit)
    if weights is None:
        colour = np.repeat(np.repeat(palette[0], height, axis=1), width, axis=2)
    else:
        colour = palette[0] + weights[0] * (palette[1] - palette[0])
        if pattern in ("check", "argyle", "camouflage"):
            colour += weights[1] * (palette[2] - colour)

    round_ = blur(mask, unit * 0.055)
    relief = folds * np.float32(kind.folds) + round_ * np.float32(3.2 * kind.round)
    puffs = weights[2] if weights is not None and pattern == "quilted" else None
    if puffs is not None:
        relief += puffs * np.float32(0.45 if kind.gloss else 0.65)
    slope = _slope(relief, unit)
    light = 1.0 + np.clip(slope * np.float32(0.42), -0.5, 0.45)
    if puffs is not None:
        light *= np.float32(0.70) + np.float32(0.35) * puffs
    light *= _weave(material, across, down)
    for name, texels, depth in kind.grain:
        light += np.float32(depth) * window(name, height, width, texels / unit, rng)
    if kind.rim:
        light += np.float32(kind.rim) * np.clip(1.55 - 2.0 * round_, 0.0, 1.0)
    if material == "denim":  # worn pale where the cloth is widest
        colour += np.float32(0.35) * np.clip(round_ - np.float32(0.75), 0.0, 1.0) * (1.0 - colour)
    colour *= light
    colour += np.float32(kind.nap) * (light - np.float32(1.0))
    if kind.gloss:
        colour += _highlights(kind, slope, folds, across, down, material) * (np.float32(1.08) - colour)
    if material in METALS:
        colour = _metal_rim(colour, material, round_, slope, across, down)
    else:
        colour = _stitches(colour, material, round_, across, down)
    return np.clip(colour, 0.0, 1.0, out=colour)


def _slope(relief: Plane, unit: float) -> Plane:
    """How far the surface leans towards the light, which stands above and to the left."""
    reach = max(1, round(unit * 0.012))
    slope = np.empty_like(relief)
    slope[reach:, reach:] = relief[reach:, reach:] - relief[:-reach, :-reach]
    slope[:reach] = slope[min(reach, len(slope) - 1)]
    slope[:, :reach] = slope[:, min(reach, slope.shape[1] - 1)][:, None]
    return slope * np.float32(0.012 * unit / reach * 6.0)


def _weave(material: str, across: Plane, down: Plane) -> Plane | float:
    """Brightness of ribs, knit and twill lines."""
    if material == "cashmere":
        return 0.82 + np.float32(0.26) * _triangle(across * np.float32(1 / 0.052))
    if material == "denim":
        return 0.93 + np.float32(0.14) * _triangle((across * 0.8 + down) * np.float32(1 / 0.034))
    if material == "wool":
        rows = down * np.float32(1 / 0.05)
        return 0.93 + np.float32(0.14) * _triangle(across * np.float32(1 / 0.05) + _triangle(rows))
    return 1.0


def _triangle(value: Plane) -> Plane:
    return np.abs(value - np.floor(value) - np.float32(0.5)) * np.float32(2.0)


def _highlights(kind: _Material, slope: Plane, folds: Plane, across: Plane, down: Plane, material: str) -> Plane:
    if material == "silk":  # broad bands that follow the drape, light and dark
        bands = np.sin((across + down * np.float32(0.5)) * np.float32(15.5) + folds * np.float32(1.5))
        sheen = np.clip(bands * np.float32(0.75) + np.float32(0.1), 0.0, 1.0)
        return np.float32(kind.gloss * 0.9) * sheen * sheen - np.float32(0.16) * np.clip(-bands, 0.0, 1.0)
    shine = np.clip(slope * np.float32(kind.sharpness) - np.float32(0.28), 0.0, 1.0)
    return np.float32(kind.gloss) * shine * shine * (np.float32(3.0) - np.float32(2.0) * shine)


def _stitches(colour: Plane, material: str, round_: Plane, across: Plane, down: Plane) -> Plane:
    """A seam that runs inside the edge: orange thread on denim, a pressed line with thread on leather."""
    if material not in _STITCHES:
        return colour
    thread, depth, groove = _STITCHES[material]
    band = np.clip(1.0 - np.abs(round_ - np.float32(0.87)) * np.float32(15.0), 0.0, 1.0)
    dashes = np.clip(_triangle((across - down) * np.float32(1 / 0.035)) * np.float32(5.0) - np.float32(1.5), 0.0, 1.0)
    if groove:
        colour *= 1.0 - np.float32(groove) * np.clip(1.0 - np.abs(round_ - np.float32(0.84)) * 12.0, 0.0, 1.0)
    colour += np.float32(depth) * band * dashes * (_tone(thread) - colour)
    return colour


def _metal_rim(colour: Plane, material: str, round_: Plane, slope: Plane, across: Plane, down: Plane) -> Plane:
    glint = np.sin((across * np.float32(1.1) - down) * np.float32(11.0)) * np.float32(0.32) + slope * np.float32(0.25)
    metal = _tone(METALS[material]) * (np.float32(0.95) + glint) + np.clip(glint - 0.12, 0.0, 1.0) * np.float32(1.1)
    edge = np.clip((np.float32(0.84) - round_) * 14.0, 0.0, 1.0)
    colour *= 1.0 - np.float32(0.45) * np.clip(1.0 - np.abs(round_ - np.float32(0.86)) * 18.0, 0.0, 1.0)
    colour += edge * (np.clip(metal, 0.0, 1.0) - colour)
    return colour


def _tone(colour: RGB) -> Plane:
    return np.array(colour, dtype=np.float32)[:, None, None] * np.float32(1 / 255)
