"""What is attached to the things of the pre-training world: knobs, chains, zips, bows and the like.

body [H, W] ──▶ its thickest spot ──▶ draw_part(name, …) ──▶ colours [H, W, 3], opacity [H, W]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from appraiser.pretraining.outlines import FloatArray, blurred

Rgb = tuple[float, float, float]
Pixel = tuple[float, float]

METALS: dict[str, Rgb] = {
    "gold": (0.83, 0.66, 0.22),
    "silver": (0.76, 0.78, 0.81),
    "copper": (0.74, 0.42, 0.26),
    "gunmetal": (0.24, 0.25, 0.28),
}
COUNTED_PARTS: dict[str, tuple[int, int]] = {
    "knobs": (2, 6),
    "studs": (6, 14),
    "rivets": (3, 6),
    "straps": (1, 3),
    "patches": (1, 3),
}
"""Parts that come in numbers, with the smallest and largest number."""
METAL_PARTS = ("studs", "rivets", "chain", "zip", "ring", "buckle")
PARTS = (
    *COUNTED_PARTS,
    "chain",
    "zip",
    "ring",
    "buckle",
    "handle",
    "trim",
    "fringe",
    "laces",
    "bow",
    "tassel",
)


@dataclass(frozen=True)
class _Place:
    """Where a part can sit, in pixels of the window: the body's core, and how far the body reaches around it."""

    x: float
    y: float
    left: float
    right: float
    top: float
    bottom: float
    unit: float
    """The body's longer side; parts scale with it."""


class _Pen:
    """Draws in window pixels on a layer twice as fine."""

    def __init__(self, image: Image.Image, rng: np.random.Generator) -> None:
        self.pen, self.rng = ImageDraw.Draw(image), rng

    def disc(self, x: float, y: float, r: float, colour: Rgb) -> None:
        self.pen.ellipse((2 * (x - r), 2 * (y - r), 2 * (x + r), 2 * (y + r)), fill=_ink(colour))

    def bead(self, x: float, y: float, r: float, colour: Rgb) -> None:
        """A disc with a dark rim and a highlight: metal, or a polished knob."""
        self.disc(x, y, r * 1.15, _tone(colour, 0.45))
        self.disc(x, y, r * 0.9, colour)
        self.disc(x - r * 0.28, y - r * 0.28, r * 0.38, _tone(colour, 1.5))

    def line(self, points: list[Pixel], width: float, colour: Rgb) -> None:
        doubled = [(2 * x, 2 * y) for x, y in points]
        self.pen.line(doubled, fill=_ink(colour), width=max(1, round(2 * width)), joint="curve")

    def area(self, points: list[Pixel], colour: Rgb) -> None:
        self.pen.polygon([(2 * x, 2 * y) for x, y in points], fill=_ink(colour))

    def hoop(self, x: float, y: float, rx: float, ry: float, width: float, colour: Rgb) -> None:
        for wide, tone in ((width, 0.5), (width * 0.55, 1.15)):
            shrink = (width - wide) / 2
            box = (2 * (x - rx + shrink), 2 * (y - ry + shrink), 2 * (x + rx - shrink), 2 * (y + ry - shrink))
            self.pen.ellipse(box, outline=_ink(_tone(colour, tone)), width=max(1, round(2 * wide)))


def _ink(colour: Rgb) -> tuple[int, int, int, int]:
    red, green, blue = (int(255 * min(1.0, max(0.0, v))) for v in colour)
    return red, green, blue, 255


def _tone(colour: Rgb, factor: float) -> Rgb:
    red, green, blue = (min(1.0, v * factor) for v in colour)
    return red, green, blue


def _place(body: FloatArray, unit: float) -> _Place:
    """Find the thickest spot of the body and the straight runs through it."""
    soft = blurred(body, 0.12 * unit) * (body > 0.5)
    y, x = np.unravel_index(int(soft.argmax()), soft.shape)
    row, column = body[y] > 0.5, body[:, x] > 0.5
    left, right = _run(row, int(x))
    top, bottom = _run(column, int(y))
    return _Place(float(x), float(y), left, right, top, bottom, unit)


def _run(line: NDArray[np.bool_], at: int) -> tuple[float, float]:
    gaps = np.flatnonzero(~line)
    before, after = gaps[gaps < at], gaps[gaps > at]
    return float(before[-1] + 1 if before.size else 0), float(after[0] - 1 if after.size else line.size - 1)


def draw_part(
    name: str, num: int, colour: Rgb, body: FloatArray, unit: float, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Colours [H, W, 3] and opacity [H, W] of the part on a body [H, W] whose longer side is `unit` pixels."""
    height, width = body.shape
    image = Image.new("RGBA", (2 * width, 2 * height))
    _DRAWERS[name](_Pen(image, rng), _place(body, unit), colour, num)
    pixels = np.asarray(image.reduce(2), dtype=np.float32) * np.float32(1 / 255)
    alpha = pixels[..., 3]
    return pixels[..., :3], alpha * body if name in ("trim", "straps") else alpha


def _line_of(num: int, low: float, high: float, least: float) -> list[float]:
    """`num` places between two ends, pulled apart to at least `least` when the run is short."""
    middle, half = (low + high) / 2, max((high - low) * 0.4, least * (num - 1) / 2)
    return [middle + half * (2 * k / (num - 1) - 1) if num > 1 else middle for k in range(num)]


def _knobs(pen: _Pen, at: _Place, colour: Rgb, num: int) -> None:
    r = max(1.8, 0.032 * at.unit)
    for y in _line_of(num, at.top, at.bottom, 2.7 * r):
        pen.bead(at.x, y, r, colour)


def _studs(pen: _Pen, at: _Place, colour: Rgb, num: int) -> None:
    r = max(1.2, 0.017 * at.unit)
    for k, x in enumerate(_line_of(num, at.left, at.right, 2.4 * r)):
        pen.bead(x, at.y + (r * 2.6 if k % 2 else -r * 2.6), r, colour)


def _rivets(pen: _Pen, at: _Place, colour: Rgb, num: int) -> None:
    r = max(1.6, 0.026 * at.unit)
    rx, ry = (max(0.33 * (b - a), 3.2 * r) for a, b in ((at.left, at.right), (at.top, at.bottom)))
    for k in range(num):
        turn = 2 * pi * (k + 0.5) / num
        pen.bead((at.left + at.right) / 2 + rx * cos(turn), (at.top + at.bottom) / 2 + ry * sin(turn), r, colour)


def _straps(pen: _Pen, at: _Place, colour: Rgb, num: int) -> None:
    half = max(1.2, min(0.03 * at.unit, 0.12 * (at.right - at.left)))
    for x in _line_of(num, at.left, at.right, 4.5 * half):
        pen.area(
            [(x - half, at.top), (x + half, at.top), (x + half, at.bottom + 1), (x - half, at.bottom + 1)],
            colour,
        )
        for side in (-0.6, 0.6):
            pen.line([(x + side * half, at.top), (x + side * half, at.bottom)], 0.5, _tone(colour, 0.7))


def _patches(pen: _Pen, at: _Place, colour: Rgb, num: int) -> None:
    half = max(2.5, 0.055 * at.unit)
    for x in _line_of(num, at.left, at.right, 2.8 * half):
        box = [
            (x - half, at.y - half),
            (x + half, at.y - half),
            (x + half, at.y + half),
            (x - half, at.y + half),
        ]
        pen.area(box, colour)
        pen.line([*box, box[0]], 0.6, _tone(colour, 0.5))


def _chain(pen: _Pen, at: _Place, colour: Rgb, _num: int) -> None:
    link = max(1.7, 0.027 * at.unit)
    low, high = min(at.left, at.x - 5 * link), max(at.right, at.x + 5 * link)
    sag = at.unit * (0.15 if pen.rng.random() < 0.5 else -0.15)
    base = at.y if sag > 0 else at.top + 0.08 * at.unit
    num = max(5, int((high - low) * 1.25 / (1.55 * link)))
    for k in range(num):
        t = k / (num - 1)
        x, y = low + (high - low) * t, base + sag * 4 * t * (1 - t)
        pen.hoop(
            x,
            y,
            link * (1.0 if k % 2 else 0.62),
            link * (0.62 if k % 2 else 1.0),
            max(0.7, 0.34 * link),
            colour,
        )


def _zip(pen: _Pen, at: _Place, colour: Rgb, _num: int) -> None:
    is_upright = pen.rng.random() < 0.5
    low, high = (at.top, at.bottom) if is_upright else (at.left, at.right)
    across = at.x if is_upright else at.y
    half = max(1.3, 0.018 * at.unit)

    def spot(along: float, aside: float) -> Pixel:
        return (across + aside, along) if is_upright else (along, across + aside)

    pen.area(
        [spot(low, -2 * half), spot(high, -2 * half), spot(high, 2 * half), spot(low, 2 * half)],
        (0.13, 0.13, 0.15),
    )
    for k, along in enumerate(np.arange(low, high, max(1.2, half * 0.95))):
        side = half if k % 2 else -half
        pen.line([spot(float(along), -0.2 * side), spot(float(along), 1.1 * side)], 0.8, colour)
    end = low + 0.12 * (high - low)
    pen.area(
        [
            spot(end - 2 * half, -1.2 * half),
            spot(end + 2.4 * half, -0.9 * half),
            spot(end + 2.4 * half, 0.9 * half),
            spot(end - 2 * half, 1.2 * half),
        ],
        _tone(colour, 1.15),
    )


def _ring(pen: _Pen, at: _Place, colour: Rgb, _num: int) -> None:
    r = max(4.0, 0.085 * at.unit)
    pen.hoop(at.x, at.top + 0.35 * r if pen.rng.random() < 0.5 else at.y, r, r, max(1.3, 0.26 * r), colour)


def _buckle(pen: _Pen, at: _Place, colour: Rgb, _num: int) -> None:
    half, tall = max(4.0, 0.075 * at.unit), max(3.2, 0.058 * at.unit)
    band = 0.62 * tall
    pen.area(
        [
            (at.left, at.y - band),
            (at.right + 1, at.y - band),
            (at.right + 1, at.y + band),
            (at.left, at.y + band),
        ],
        (0.16, 0.12, 0.1),
    )
    box = [
        (at.x - half, at.y - tall),
        (at.x + half, at.y - tall),
        (at.x + half, at.y + tall),
        (at.x - half, at.y + tall),
    ]
    for width, tone in ((max(1.6, 0.3 * tall), 0.5), (max(0.9, 0.17 * tall), 1.15)):
        pen.line([*box, box[0], box[1]], width, _tone(colour, tone))
    pen.line([(at.x - half, at.y), (at.x + 0.6 * half, at.y)], max(0.8, 0.16 * tall), colour)


def _handle(pen: _Pen, at: _Place, colour: Rgb, _num: int) -> None:
    wide, tall = max(0.3 * (at.right - at.left), 0.1 * at.unit), pen.rng.uniform(0.13, 0.2) * at.unit
    turns = np.linspace(pi, 2 * pi, 18)
    arc = [(at.x + wide * cos(t), at.top + 0.06 * at.unit + tall * sin(t)) for t in turns]
    pen.line(arc, max(1.6, 0.036 * at.unit), _tone(colour, 0.6))
    pen.line(arc, max(1.0, 0.022 * at.unit), colour)


def _trim(pen: _Pen, at: _Place, colour: Rgb, _num: int) -> None:
    high = 0.13 * (at.bottom - at.top) + 2
    for low in (at.top, at.bottom - high + 1):
        pen.area([(-9, low), (2000, low), (2000, low + high), (-9, low + high)], colour)


def _fringe(pen: _Pen, at: _Place, colour: Rgb, _num: int) -> None:
    low, high = min(at.left, at.x - 0.1 * at.unit), max(at.right, at.x + 0.1 * at.unit)
    for x in np.arange(low, high, max(1.9, 0.026 * at.unit)):
        fall = at.unit * float(pen.rng.uniform(0.1, 0.15))
        pen.line(
            [
                (float(x), at.bottom - 0.05 * at.unit),
                (float(x) + float(pen.rng.uniform(-1, 1)), at.bottom - 0.05 * at.unit + fall),
            ],
            1.0,
            colour,
        )


def _laces(pen: _Pen, at: _Place, colour: Rgb, _num: int) -> None:
    wide = max(2.5, min(0.06 * at.unit, 0.3 * (at.right - at.left)))
    rows = _line_of(5, at.top, at.bottom, 1.1 * wide)
    for above, below in pairwise(rows):
        for side in (-wide, wide):
            pen.line([(at.x - side, above), (at.x + side, below)], max(0.9, 0.012 * at.unit), colour)


def _bow(pen: _Pen, at: _Place, colour: Rgb, _num: int) -> None:
    wide, tall = max(5.0, 0.12 * at.unit), max(3.0, 0.07 * at.unit)
    y = at.y if pen.rng.random() < 0.5 else at.top + tall
    for side in (-1, 1):
        pen.area(
            [
                (at.x, y),
                (at.x + side * 0.6 * wide, y + 1.8 * tall),
                (at.x + side * 0.25 * wide, y + 1.9 * tall),
            ],
            _tone(colour, 0.8),
        )
        pen.area([(at.x, y), (at.x + side * wide, y - tall), (at.x + side * wide, y + tall)], colour)
        pen.line([(at.x, y), (at.x + side * 0.7 * wide, y)], 0.6, _tone(colour, 0.6))
    pen.disc(at.x, y, 0.38 * tall, _tone(colour, 0.7))


def _tassel(pen: _Pen, at: _Place, colour: Rgb, _num: int) -> None:
    x, y, long = at.right - 0.1 * (at.right - at.left), at.y, 0.22 * at.unit
    pen.line([(x, y - 0.35 * long), (x, y)], max(0.8, 0.012 * at.unit), _tone(colour, 0.7))
    for k in range(6):
        pen.line(
            [(x, y), (x + (k - 2.5) * 0.09 * long, y + 0.75 * long)],
            max(1.0, 0.015 * at.unit),
            _tone(colour, 0.85 + 0.06 * k),
        )
    pen.bead(x, y, max(1.5, 0.026 * at.unit), colour)


_DRAWERS: dict[str, Callable[[_Pen, _Place, Rgb, int], None]] = {
    "knobs": _knobs, "studs": _studs, "rivets": _rivets, "straps": _straps, "patches": _patches,
    "chain": _chain, "zip": _zip, "ring": _ring, "buckle": _buckle, "handle": _handle,
    "trim": _trim, "fringe": _fringe, "laces": _laces, "bow": _bow, "tassel": _tassel,
}  # fmt: skip
