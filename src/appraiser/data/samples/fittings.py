"""Hardware as small metal drawings: buttons, zips, buckles, chains.

Each piece has a dark outline, a body and a highlight, so that it reads on any colour, also at 128 pixels.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from appraiser.data.samples.shapes import Points

Ink = tuple[int, int, int, int]
_DARK: Ink = (38, 32, 28, 255)
_SHADE: Ink = (122, 98, 52, 255)
_BODY: Ink = (206, 168, 88, 255)
_GLINT: Ink = (255, 240, 196, 255)
_STEEL: Ink = (214, 217, 222, 255)
_TAPE: Ink = (46, 46, 52, 255)


def draw_fitting(picture: Image.Image, kind: str, points: Points, size: float) -> None:
    """Draw one fitting on a transparent picture; points and size are in its pixels."""
    pen = ImageDraw.Draw(picture)
    if kind == "buttons":
        for x, y in points:
            _button(pen, float(x), float(y), size)
    elif kind == "zip":
        _zip(pen, points, size)
    elif kind == "buckle":
        _buckle(pen, float(points[0, 0]), float(points[0, 1]), size)
    else:
        _chain(pen, points, size)


def _disc(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, ink: Ink) -> None:
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)


def _button(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float) -> None:
    _disc(pen, x, y, radius, _DARK)
    _disc(pen, x, y, radius * 0.88, _SHADE)
    _disc(pen, x - radius * 0.06, y - radius * 0.08, radius * 0.78, _BODY)
    _disc(pen, x, y, radius * 0.56, _SHADE)
    _disc(pen, x + radius * 0.05, y + radius * 0.05, radius * 0.50, _BODY)
    _disc(pen, x - radius * 0.32, y - radius * 0.36, radius * 0.20, _GLINT)
    for side_x, side_y in ((-1, -1), (1, -1), (-1, 1), (1, 1)):
        _disc(pen, x + side_x * radius * 0.18, y + side_y * radius * 0.18, radius * 0.09, _DARK)


def _zip(pen: ImageDraw.ImageDraw, points: Points, width: float) -> None:
    path = [(float(x), float(y)) for x, y in points]
    pen.line(path, fill=_TAPE, width=max(2, round(width)), joint="curve")
    places, along = _spaced(points, width * 0.34)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) * (width * 0.30)
    for k, ((x, y), (dx, dy)) in enumerate(zip(places.tolist(), across.tolist(), strict=True)):
        lean = 0.35 if k % 2 else -0.35
        x, y = x + dx * lean, y + dy * lean
        pen.line((x - dx, y - dy, x + dx, y + dy), fill=_STEEL, width=max(1, round(width * 0.19)))
    x, y = places[min(1, len(places) - 1)].tolist()
    dx, dy = (along[0] * width).tolist()
    pen.line(
        (x - dx * 0.3, y - dy * 0.3, x + dx * 2.1, y + dy * 2.1),
        fill=_DARK,
        width=max(3, round(width * 0.85)),
    )
    pen.line(
        (x - dx * 0.2, y - dy * 0.2, x + dx * 2.0, y + dy * 2.0),
        fill=_BODY,
        width=max(2, round(width * 0.62)),
    )
    pen.line((x, y, x + dx * 1.6, y + dy * 1.6), fill=_GLINT, width=max(1, round(width * 0.18)))


def _buckle(pen: ImageDraw.ImageDraw, x: float, y: float, half: float) -> None:
    wide = half * 1.12
    for grow, ink, stroke in ((0.07, _DARK, 0.44), (0.0, _BODY, 0.30), (-0.02, _SHADE, 0.08)):
        pen.rounded_rectangle(
            (x - wide - half * grow, y - half - half * grow, x + wide + half * grow, y + half + half * grow),
            radius=half * 0.35,
            outline=ink,
            width=max(1, round(half * stroke)),
        )
    pen.line(
        (x - wide * 0.8, y - half * 0.86, x + wide * 0.5, y - half * 0.86),
        fill=_GLINT,
        width=max(1, round(half * 0.10)),
    )
    pen.line(
        (x - wide * 0.87, y - half * 0.7, x - wide * 0.87, y + half * 0.4),
        fill=_GLINT,
        width=max(1, round(half * 0.10)),
    )
    pen.line((x - wide * 0.9, y, x + wide, y), fill=_DARK, width=max(2, round(half * 0.30)))
    pen.line(
        (x - wide * 0.9, y - half * 0.02, x + wide * 0.95, y - half * 0.02),
        fill=_BODY,
        width=max(1, round(half * 0.18)),
    )


def _chain(pen: ImageDraw.ImageDraw, points: Points, radius: float) -> None:
    places, along = _spaced(points, radius * 1.30)
    stroke = max(1, round(radius * 0.36))
    for k, ((x, y), (dx, dy)) in enumerate(zip(places.tolist(), along.tolist(), strict=True)):
        if k % 2:  # this link stands on edge
            pen.line(
                (x - dx * radius, y - dy * radius, x + dx * radius, y + dy * radius),
                fill=_DARK,
                width=stroke + 3,
            )
            pen.line((x - dx * radius, y - dy * radius, x + dx * radius, y + dy * radius), fill=_BODY, width=stroke)
            continue
        for grow, ink, width in ((0.16, _DARK, stroke + 4), (0.05, _BODY, stroke)):
            reach = radius * (1 + grow)
            pen.ellipse((x - reach, y - reach, x + reach, y + reach), outline=ink, width=width)
        pen.arc((x - radius, y - radius, x + radius, y + radius), 190, 290, fill=_GLINT, width=max(1, stroke // 2))


def _spaced(points: Points, gap: float) -> tuple[Points, Points]:
    """Places at even distances along a path, and the unit direction at each."""
    steps = np.hypot(*np.diff(points, axis=0).T)
    length = np.concatenate([[0.0], np.cumsum(steps)])
    count = max(2, int(length[-1] / max(gap, 0.5)) + 1)
    at = np.linspace(0.0, length[-1], count)
    places = np.stack([np.interp(at, length, points[:, 0]), np.interp(at, length, points[:, 1])], axis=1)
    along = np.gradient(places, axis=0)
    along /= np.maximum(np.hypot(along[:, 0], along[:, 1])[:, None], 1e-6)
    return places.astype(np.float32), along.astype(np.float32)
