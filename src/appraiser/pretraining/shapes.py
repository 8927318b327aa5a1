"""Silhouettes of the pre-training world: abstract signs, everyday things, random blobs. Nothing worn or carried.

A shape is a function from a generator to pieces in a free coordinate system (x to the right, y down); `silhouette`
brings them into the unit square. Proportions are drawn anew for every instance, so that a model learns what a mug is
and not one mug. Colours, materials and poses are `scenes.py`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import cos, pi, sin

import numpy as np

from appraiser.pretraining.outlines import Outline, Piece, Points

Corner = tuple[float, float]


class _Dice:
    """Short words for the random proportions below; the shapes read as drawings and not as calls to numpy."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def __call__(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.rng.random())

    def whole(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)


Builder = Callable[[_Dice], list[Piece]]


# --- ways to make points -----------------------------------------------------------------------------------


def _poly(*corners: Corner) -> Points:
    return np.array(corners, dtype=np.float64)


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return _poly((left, top), (right, top), (right, bottom), (left, bottom))


def _ellipse(x: float, y: float, rx: float, ry: float | None = None, start: float = 0, stop: float = 360) -> Points:
    """Points of an ellipse, or of the part of it between two angles in degrees (0 = right, 90 = down)."""
    turns = np.radians(np.linspace(start, stop, max(8, int(abs(stop - start) / 9))))
    return np.stack([x + rx * np.cos(turns), y + (rx if ry is None else ry) * np.sin(turns)], axis=1)


def _smooth(corners: Sequence[Corner], is_closed: bool = True, steps: int = 6) -> Points:
    """Catmull-Rom curve through the corners."""
    points = np.array(corners, dtype=np.float64)
    padded = np.concatenate([points[-1:], points, points[:2]] if is_closed else [points[:1], points, points[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    a, b, c, d = (padded[k : len(padded) - 3 + k, None, :] for k in range(4))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    flat: Points = curve.reshape(-1, 2)
    return flat if is_closed else np.concatenate([flat, points[-1:]])


def _profile(*sides: Corner, is_smooth: bool = True) -> Points:
    """A body symmetric to x = 0 from (half width, y) pairs listed from top to bottom."""
    right = _smooth(sides, is_closed=False) if is_smooth else _poly(*sides)
    left = right[::-1] * np.array([-1.0, 1.0])
    return np.concatenate([right, left])


def _band(path: Points, width: float) -> Points:
    """A stroke of constant width along a polyline."""
    along = np.gradient(path, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / (np.linalg.norm(along, axis=1, keepdims=True) + 1e-9)
    return np.concatenate([path + normal * width / 2, (path - normal * width / 2)[::-1]])


def _spokes(num: int, inner: float, outer: float, turn: float = -90.0) -> Points:
    """A star's points: outer and inner radius in turn."""
    angles = np.radians(turn + np.arange(2 * num) * 180.0 / num)
    radii = np.where(np.arange(2 * num) % 2 == 0, outer, inner)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _turned(points: Points, degrees: float, x: float = 0.0, y: float = 0.0) -> Points:
    c, s = cos(degrees * pi / 180), sin(degrees * pi / 180)
    turned: Points = (points - (x, y)) @ np.array([[c, s], [-s, c]]) + (x, y)
    return turned


# fmt: off
# One piece after the other, as few lines as hold them: these read as drawings.

# --- abstract ----------------------------------------------------------------------------------------------


def _circle(u: _Dice) -> list[Piece]:
    return [("body", _ellipse(0, 0, 1, u(0.94, 1.0)))]


def _oval(u: _Dice) -> list[Piece]:
    return [("body", _ellipse(0, 0, 1, u(0.5, 0.72)))]


def _ring(u: _Dice) -> list[Piece]:
    inner = u(0.42, 0.75)
    return [("body", _ellipse(0, 0, 1)), ("hole", _ellipse(0, 0, inner))]


def _triangle(u: _Dice) -> list[Piece]:
    return [("body", _poly((u(-0.25, 0.25), -1), (1, u(0.6, 0.9)), (-1, 0.8)))]


def _square(u: _Dice) -> list[Piece]:
    h = u(0.92, 1.0)
    return [("body", _box(-1, -h, 1, h))]


def _bar(u: _Dice) -> list[Piece]:
    h = u(0.25, 0.5)
    return [("body", _box(-1, -h, 1, h))]


def _trapezoid(u: _Dice) -> list[Piece]:
    h, top = u(0.55, 0.95), u(0.35, 0.75)
    return [("body", _poly((-top, -h), (top, -h), (1, h), (-1, h)))]


def _diamond(u: _Dice) -> list[Piece]:
    w = u(0.55, 0.9)
    return [("body", _poly((0, -1), (w, 0), (0, 1), (-w, 0)))]


def _pentagon(u: _Dice) -> list[Piece]:
    return [("body", _turned(_spokes(5, cos(pi / 5), 1)[::2], u(-6, 6)))]


def _hexagon(u: _Dice) -> list[Piece]:
    return [("body", _turned(_spokes(6, cos(pi / 6), 1)[::2], u(-5, 35)))]


def _star(u: _Dice) -> list[Piece]:
    return [("body", _spokes(u.whole(4, 7), u(0.36, 0.55), 1))]


def _sun(u: _Dice) -> list[Piece]:
    return [("body", _spokes(u.whole(10, 16), u(0.7, 0.82), 1)), ("detail", _ellipse(0, 0, u(0.3, 0.5)))]


def _cross(u: _Dice) -> list[Piece]:
    a, h = u(0.18, 0.36), u(0.8, 1.0)
    return [("body", _box(-a, -h, a, h)), ("body", _box(-1, -a, 1, a))]


def _crescent(u: _Dice) -> list[Piece]:
    return [("body", _ellipse(0, 0, 1)), ("hole", _ellipse(u(0.35, 0.6), u(-0.15, 0.1), u(0.75, 0.9)))]


def _heart(u: _Dice) -> list[Piece]:
    t = np.linspace(0, 2 * pi, 40, endpoint=False)
    tall = u(0.9, 1.1)
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) * tall
    return [("body", np.stack([16 * np.sin(t) ** 3, y], axis=1))]


def _arrow(u: _Dice) -> list[Piece]:
    a, head, wing = u(0.14, 0.3), u(0.0, 0.35), u(0.5, 0.8)
    return [("body", _poly((-1, -a), (head, -a), (head, -wing), (1, 0), (head, wing), (head, a), (-1, a)))]


def _drop(u: _Dice) -> list[Piece]:
    return [("body", _profile((0.0, -1.2), (u(0.14, 0.22), -0.7), (u(0.5, 0.62), 0.1),
            (u(0.42, 0.5), 0.62), (0.0, 0.85)))]


def _bolt(u: _Dice) -> list[Piece]:
    s = u(0.0, 0.15)
    return [("body", _poly((0.1, -1), (-0.55, 0.1 + s), (-0.08, 0.1), (-0.3, 1), (0.55, -0.25 - s),
            (0.1, -0.2), (0.5, -1)))]


def _gear(u: _Dice) -> list[Piece]:
    n, depth = u.whole(7, 11), u(0.74, 0.84)
    angles = np.radians(np.arange(4 * n) * 90.0 / n)
    radii = np.where(np.arange(4 * n) % 4 < 2, 1.0, depth)
    return [("body", np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)),
            ("hole", _ellipse(0, 0, u(0.2, 0.42)))]


def _spiral(u: _Dice) -> list[Piece]:
    t = np.linspace(0.6, u(4.2, 5.2) * pi, 70)
    return [("body", _band(np.stack([t * np.cos(t), t * np.sin(t)], axis=1), u(2.2, 3.4)))]


def _cloud(u: _Dice) -> list[Piece]:
    puffs = [_ellipse(x, u(-0.15, 0.05), u(0.36, 0.52)) for x in (-0.6, 0.0, 0.55)]
    return [*(("body", puff) for puff in puffs), ("body", _ellipse(0, 0.22, 1.1, u(0.22, 0.32)))]


def _blob(u: _Dice) -> list[Piece]:
    num = u.whole(5, 9)
    return [("body", _smooth([(u(0.45, 1.0) * cos(2 * pi * k / num), u(0.45, 1.0) * sin(2 * pi * k / num))
            for k in range(num)]))]


def _totem(u: _Dice) -> list[Piece]:
    """A random symmetric profile, smooth or angular: the outline of nothing in particular.

    With arms it can remind of a garment, as a cloud can; none is drawn after one.
    """
    ys = np.cumsum([u(0.15, 0.5) for _ in range(u.whole(4, 7))])
    sides = [(u(0.15, 0.75), float(y)) for y in ys]
    pieces: list[Piece] = [("body", _profile(*sides, is_smooth=u.chance(0.5)))]
    if u.chance(0.5):  # arms on both sides, so that branching outlines are common
        y, tip, fall, thick = float(ys[1]), u(0.7, 1.2), u(-0.2, 0.9), u(0.1, 0.25)
        arm = _poly((0, y - thick), (tip, y + fall - thick), (tip + 0.1, y + fall + thick), (0, y + thick))
        pieces += [("body", arm), ("body", arm * np.array([-1.0, 1.0]))]
    return pieces


def _cluster(u: _Dice) -> list[Piece]:
    """Several random pieces that hang together; sometimes with a window."""
    pieces: list[Piece] = []
    for _ in range(u.whole(2, 4)):
        x, y, w, h = u(-0.5, 0.5), u(-0.5, 0.5), u(0.25, 0.7), u(0.25, 0.7)
        part = _ellipse(x, y, w, h) if u.chance(0.5) else _turned(_box(x - w, y - h, x + w, y + h),
                u(-40, 40), x, y)
        pieces.append(("body", part))
    return [*pieces, ("hole", _ellipse(u(-0.2, 0.2), u(-0.2, 0.2),
            u(0.1, 0.25)))] if u.chance(0.4) else pieces


# --- furniture and buildings -------------------------------------------------------------------------------


def _lamp(u: _Dice) -> list[Piece]:
    top, low, h = u(0.25, 0.5), u(0.6, 0.85), u(-0.15, 0.15)
    shade = _poly((-top, -1), (top, -1), (low, h), (-low, h))
    stem = u(0.05, 0.11)
    return [("body", _box(-stem, h, stem, 0.9)), ("body", _box(-u(0.3, 0.5), 0.85, u(0.3, 0.5), 1.0)),
            ("body", shade), ("detail", _box(-low * 0.98, h - 0.06, low * 0.98, h))]


def _table(u: _Dice) -> list[Piece]:
    leg, high, inset = u(0.06, 0.14), u(0.7, 1.2), u(0.0, 0.2)
    a, b = 1 - inset, 1 - inset - leg
    return [("body", _box(-1, 0, 1, u(0.12, 0.22))), ("body", _box(-a, 0, -b, high)),
            ("body", _box(b, 0, a, high))]


def _chair(u: _Dice) -> list[Piece]:
    leg, seat, lean, depth = u(0.1, 0.17), u(0.0, 0.2), u(0.0, 0.2), u(0.8, 1.0)
    back = _poly((-lean, -1), (leg - lean, -1), (leg + 0.02, seat), (0, seat))
    return [("body", back), ("body", _box(0, seat, depth, seat + u(0.14, 0.24))),
            ("body", _box(0, seat, leg, 1)), ("body", _box(depth - leg, seat, depth, 1))]


def _stool(u: _Dice) -> list[Piece]:
    w, leg, high = u(0.5, 0.7), u(0.1, 0.16), u(0.8, 1.2)
    pieces: list[Piece] = [("body", _ellipse(0, 0, w, u(0.12, 0.2)))]
    for side in (-1, 1):
        pieces.append(("body", _poly((side * (w - 0.25), 0), (side * (w - 0.25 + leg), 0),
                (side * w, high), (side * (w - leg), high))))
    return [*pieces, ("body", _box(-w + leg, high * 0.6, w - leg, high * 0.7))]


def _house(u: _Dice) -> list[Piece]:
    roof, eave, w = u(0.5, 0.95), u(0.0, 0.2), u(0.65, 0.9)
    door = u(-0.35, 0.2)
    return [("body", _box(-w, 0, w, u(0.7, 1.0))),
            ("body", _poly((-w - eave, 0.02), (0, -roof), (w + eave, 0.02))),
            ("body", _box(w * 0.4, -roof * 0.95, w * 0.4 + 0.18, 0)),
            ("detail", _box(door, 0.3, door + 0.28, 0.7)),
            ("detail", _box(-w * 0.8, 0.15, -w * 0.8 + 0.2, 0.4))]


def _tower(u: _Dice) -> list[Piece]:
    w, n = u(0.28, 0.42), u.whole(3, 4)
    teeth: list[Piece] = [("body", _box(-w - 0.1 + k * (2 * w + 0.2) / n, -0.2,
            -w - 0.1 + (k + 0.6) * (2 * w + 0.2) / n, 0.05)) for k in range(n)]
    return [("body", _poly((-w, 0.2), (w, 0.2), (w + u(0, 0.12), 1.3), (-w - 0.05, 1.3))),
            ("body", _box(-w - 0.1, 0, w + 0.1, 0.25)), *teeth, ("detail", _box(-0.1, 0.5, 0.1, 0.8))]


def _tent(u: _Dice) -> list[Piece]:
    h = u(0.9, 1.4)
    return [("body", _poly((0, -h), (1, 0), (-1, 0))),
            ("detail", _poly((0, -h * 0.85), (u(0.15, 0.35), 0), (-0.25, 0)))]


def _windmill(u: _Dice) -> list[Piece]:
    turn, wide = u(10, 70), u(0.14, 0.22)
    blade = _poly((0.06, -0.03), (0.9, -wide), (0.9, wide * 0.4), (0.06, 0.05))
    return [("body", _poly((-0.22, 0), (0.22, 0), (0.4, 1.3), (-0.4, 1.3))), ("body", _ellipse(0, 0, 0.25)),
            *(("body", _turned(blade, turn + 90 * k)) for k in range(4)), ("detail", _ellipse(0, 0, 0.1))]


# --- plants ------------------------------------------------------------------------------------------------


def _tree(u: _Dice) -> list[Piece]:
    trunk: Piece = ("body", _box(-u(0.08, 0.14), 0, u(0.08, 0.14), 1))
    crown = [_ellipse(u(-0.3, 0.3), u(-0.5, 0.0), u(0.4, 0.6)) for _ in range(4)]
    return [trunk, *(("body", puff) for puff in crown)]


def _pine(u: _Dice) -> list[Piece]:
    n, w = u.whole(2, 4), u(0.5, 0.75)
    tiers: list[Piece] = [("body", _poly((0, k * 0.5 - 0.6), (w * (0.5 + 0.5 * (k + 1) / n),
            k * 0.5 + 0.2), (-w * (0.5 + 0.5 * (k + 1) / n), k * 0.5 + 0.2))) for k in range(n)]
    return [*tiers, ("body", _box(-0.1, n * 0.5 - 0.35, 0.1, n * 0.5))]


def _leaf(u: _Dice) -> list[Piece]:
    w = u(0.3, 0.55)
    return [("body", _profile((0.0, -1), (w, -0.2), (w * u(0.7, 1.0), 0.35), (0.0, 0.9))),
            ("body", _box(-0.035, 0.7, 0.035, 1.25)), ("detail", _box(-0.025, -0.7, 0.025, 0.85))]


def _flower(u: _Dice) -> list[Piece]:
    n, r, far = u.whole(5, 8), u(0.28, 0.36), u(0.5, 0.6)
    petals: list[Piece] = [("body", _ellipse(far * cos(2 * pi * k / n), far * sin(2 * pi * k / n), r))
            for k in range(n)]
    stem: list[Piece] = [("body", _box(-0.05, 0.5, 0.05, u(1.6, 2.1)))] if u.chance(0.6) else []
    return [*stem, *petals, ("body", _ellipse(0, 0, 0.5)), ("detail", _ellipse(0, 0, u(0.2, 0.3)))]


def _mushroom(u: _Dice) -> list[Piece]:
    cap, stem = u(0.65, 0.95), u(0.2, 0.32)
    return [("body", _profile((stem * 0.8, 0), (stem, 0.6), (stem * 1.2, u(0.8, 1.0)), (0, 1.0))),
            ("body", _ellipse(0, 0.1, 1, cap, 180, 360)), ("detail", _ellipse(u(-0.5, -0.2), -0.3, 0.13)),
            ("detail", _ellipse(u(0.1, 0.5), -0.22, 0.1))]


def _cactus(u: _Dice) -> list[Piece]:
    pieces: list[Piece] = [("body", _profile((0.0, -1), (0.22, -0.85), (0.25, 0), (0.23, 1), (0.0, 1)))]
    for side in (-1.0, 1.0):
        y, up = u(-0.2, 0.4), u(0.35, 0.6)
        path = _smooth([(0, y), (side * 0.5, y), (side * 0.62, y - 0.15), (side * 0.62, y - up)],
                is_closed=False)
        pieces.append(("body", _band(path, u(0.18, 0.25))))
    return pieces


def _apple(u: _Dice) -> list[Piece]:
    w = u(0.9, 1.02)
    body = _smooth([(0, -0.55), (0.5, -0.75), (w, -0.1), (0.55, 0.8), (0, 0.68), (-0.55, 0.8), (-w, -0.1),
            (-0.5, -0.75)])
    return [("body", body), ("body", _turned(_box(-0.05, -1, 0.05, -0.5), u(-10, 25), 0, -0.5)),
            ("body", _turned(_ellipse(0.3, -0.92, 0.24, 0.1), u(-30, 0), 0.1, -0.9))]


def _pear(u: _Dice) -> list[Piece]:
    return [("body", _profile((0.0, -0.9), (u(0.22, 0.3), -0.7), (0.32, -0.2), (u(0.6, 0.72), 0.45),
            (0.4, 0.95), (0.0, 1.0))), ("body", _turned(_box(-0.04, -1.2, 0.04, -0.8), u(-15, 15), 0,
            -0.9))]


# --- animals -----------------------------------------------------------------------------------------------


def _fish(u: _Dice) -> list[Piece]:
    h, tail = u(0.35, 0.6), u(0.3, 0.5)
    return [("body", _ellipse(0, 0, 0.8, h)),
            ("body", _poly((0.6, 0), (1.15, -tail), (1.0, 0), (1.15, tail))),
            ("body", _poly((-0.2, -h * 0.9), (0.3, -h - u(0.1, 0.25)), (0.4, -h * 0.7))),
            ("detail", _ellipse(-0.5, -0.1, 0.07))]


def _bird(u: _Dice) -> list[Piece]:
    head, wing = u(0.22, 0.3), u(0.3, 0.55)
    return [("body", _turned(_ellipse(0, 0.1, 0.62, u(0.32, 0.4)), -12)),
            ("body", _ellipse(-0.55, -0.28, head)),
            ("body", _poly((-0.72, -0.38), (-1.02, u(-0.28, -0.15)), (-0.7, -0.16))),
            ("body", _poly((0.4, -0.1), (1.05, u(-0.35, 0.05)), (0.5, 0.25))),
            ("body", _box(-0.1, 0.4, -0.04, 0.75)), ("body", _box(0.12, 0.4, 0.18, 0.75)),
            ("detail", _turned(_ellipse(0.12, 0.05, wing, 0.14), 15)),
            ("detail", _ellipse(-0.6, -0.33, 0.05))]


def _cat(u: _Dice) -> list[Piece]:
    r = u(0.3, 0.36)
    tail = _smooth([(0.4, 0.85), (0.8, 0.8), (0.85, u(0.2, 0.5)), (0.7, u(-0.1, 0.2))], is_closed=False)
    return [("body", _profile((0.0, -0.1), (0.3, 0.05), (u(0.42, 0.52), 0.7), (0.45, 1.0), (0.0, 1.0))),
            ("body", _ellipse(0, -0.35, r)), ("body", _band(tail, 0.15)),
            ("body", _poly((-r, -0.4), (-r * 0.9, -0.9), (-0.05, -0.6))),
            ("body", _poly((r, -0.4), (r * 0.9, -0.9), (0.05, -0.6))),
            ("detail", _ellipse(-0.13, -0.38, 0.05)), ("detail", _ellipse(0.13, -0.38, 0.05))]


def _rabbit(u: _Dice) -> list[Piece]:
    ear, lean = u(0.4, 0.6), u(5, 20)
    return [("body", _ellipse(0, 0.5, u(0.45, 0.55), 0.55)), ("body", _ellipse(0, -0.2, 0.34)),
            ("body", _ellipse(0.5, 0.8, 0.16)),
            ("body", _turned(_ellipse(-0.16, -0.45 - ear * 0.7, 0.11, ear), -lean, 0, -0.3)),
            ("body", _turned(_ellipse(0.16, -0.45 - ear * 0.7, 0.11, ear), lean, 0, -0.3)),
            ("detail", _ellipse(-0.12, -0.24, 0.045)), ("detail", _ellipse(0.12, -0.24, 0.045))]


def _snail(u: _Dice) -> list[Piece]:
    r = u(0.48, 0.6)
    foot = _smooth([(-1.0, 0.5), (-0.9, 0.1), (-0.75, 0.1), (-0.6, 0.45), (0.3, 0.45), (1.0, 0.62),
            (0.0, 0.66), (-0.9, 0.66)])
    t = np.linspace(0, 4 * pi, 36)
    shell = np.stack([0.2 + t / (4 * pi) * r * 0.8 * np.cos(t), 0.1 + t / (4 * pi) * r * 0.8 * np.sin(t)],
            axis=1)
    return [("body", foot), ("body", _ellipse(0.2, 0.1, r)),
            ("body", _turned(_box(-0.95, -0.25, -0.9, 0.2), u(-25, 5), -0.9, 0.2)),
            ("detail", _band(shell, 0.05))]


def _whale(u: _Dice) -> list[Piece]:
    body = _smooth([(-1, 0.1), (-0.7, -u(0.35, 0.5)), (0.1, -0.4), (0.75, 0.0), (1.0, -0.3), (1.05, 0.1),
            (0.5, 0.5), (-0.5, u(0.45, 0.55))])
    return [("body", body),
            ("body", _poly((0.85, -0.1), (u(0.75, 0.9), -0.7), (1.05, -0.35), (1.35, -0.6), (1.1, 0.0))),
            ("detail", _ellipse(-0.7, 0.0, 0.06)),
            ("detail", _turned(_ellipse(-0.2, 0.35, 0.28, 0.1), 30, -0.2, 0.35))]


def _butterfly(u: _Dice) -> list[Piece]:
    a, b, tip = u(0.35, 0.5), u(0.28, 0.4), u(-0.9, -0.6)
    pieces: list[Piece] = [("body", _ellipse(0, 0.05, 0.08, 0.7))]
    for side in (-1.0, 1.0):
        pieces += [("body", _smooth([(0, 0), (side * 0.5, tip), (side * 1.0, tip + 0.1),
                (side * (0.6 + a), 0.0), (side * 0.4, 0.12)])),
                ("body", _ellipse(side * 0.45, 0.42, b, 0.36)),
                ("detail", _ellipse(side * 0.65, -0.3, 0.14))]
    return pieces


def _turtle(u: _Dice) -> list[Piece]:
    h = u(0.55, 0.8)
    return [("body", _ellipse(0, 0.2, 0.8, h, 180, 360)), ("body", _ellipse(-1.0, 0.1, 0.22, 0.17)),
            ("body", _box(-0.6, 0.15, -0.35, 0.5)), ("body", _box(0.35, 0.15, 0.6, 0.5)),
            ("body", _box(-0.9, 0.05, 0.7, 0.25)), ("body", _poly((0.7, 0.1), (1.05, 0.25), (0.7, 0.25))),
            ("detail", _box(-0.8, 0.1, 0.8, 0.16))]


# --- vehicles ----------------------------------------------------------------------------------------------


def _boat(u: _Dice) -> list[Piece]:
    mast, hull = u(-0.1, 0.15), u(0.3, 0.45)
    return [("body", _poly((-1, 0.35), (1, 0.35), (0.7, 0.35 + hull), (-0.65, 0.35 + hull))),
            ("body", _box(mast - 0.03, -1, mast + 0.03, 0.4)),
            ("body", _poly((mast + 0.06, -0.95), (mast + u(0.55, 0.8), 0.25), (mast + 0.06, 0.25))),
            ("body", _poly((mast - 0.06, -0.75), (mast - 0.06, 0.25), (mast - u(0.4, 0.65), 0.25)))]


def _car(u: _Dice) -> list[Piece]:
    roof, w, r = u(-0.6, -0.4), u(0.1, 0.25), u(0.18, 0.24)
    cabin = _poly((-0.6, 0), (-0.4, roof), (0.3 + w / 2, roof), (0.6, 0))
    windows: list[Piece] = [("detail", _poly((-0.45, -0.04), (-0.33, roof + 0.08), (-0.04, roof + 0.08),
            (-0.04, -0.04))), ("detail", _poly((0.04, -0.04), (0.04, roof + 0.08), (0.28, roof + 0.08),
            (0.45, -0.04)))]
    return [("body", cabin),
            ("body", _smooth([(-1, 0.3), (-0.95, 0.02), (0, -0.04), (0.95, 0.05), (1, 0.3), (0, 0.36)])),
            *windows, *(("body", _ellipse(x, 0.34, r)) for x in (-0.55, 0.55)),
            *(("detail", _ellipse(x, 0.34, r * 0.55)) for x in (-0.55, 0.55))]


def _truck(u: _Dice) -> list[Piece]:
    top, r = u(-0.75, -0.45), u(0.16, 0.21)
    return [("body", _box(-1, top, 0.3, 0.3)),
            ("body", _poly((0.38, -0.25), (0.75, -0.25), (1.0, 0.02), (1.0, 0.3), (0.38, 0.3))),
            ("body", _box(-1, 0.2, 1, 0.34)), *(("body", _ellipse(x, 0.38, r)) for x in (-0.65, -0.2, 0.68)),
            ("detail", _poly((0.5, -0.17), (0.72, -0.17), (0.88, 0.02), (0.5, 0.02)))]


def _rocket(u: _Dice) -> list[Piece]:
    w, fin = u(0.24, 0.36), u(0.2, 0.4)
    return [("body", _profile((0.0, -1.2), (w * 0.8, -0.6), (w, 0.0), (w * 0.85, 0.7), (0.0, 0.7))),
            *(("body", _poly((s * w * 0.8, 0.2), (s * (w + fin), 0.9), (s * w * 0.6, 0.7))) for s in (-1, 1)),
            ("body", _poly((-0.12, 0.7), (0.12, 0.7), (0.18, 0.85), (-0.18, 0.85))),
            ("detail", _ellipse(0, -0.3, w * 0.5))]


def _plane(u: _Dice) -> list[Piece]:
    span, sweep = u(0.8, 1.0), u(0.15, 0.5)
    return [("body", _profile((0.0, -1), (0.13, -0.8), (0.14, 0.4), (0.05, 0.9), (0.0, 0.95))),
            ("body", _profile((0.1, -0.3), (span, sweep), (span, sweep + 0.15), (0.1, 0.15),
            is_smooth=False)), ("body", _profile((0.05, 0.55), (0.4, 0.8), (0.4, 0.92), (0.05, 0.85),
            is_smooth=False))]


def _balloon(u: _Dice) -> list[Piece]:
    w = u(0.7, 0.85)
    return [("body", _profile((0.0, -1.0), (w * 0.75, -0.75), (w, -0.2), (w * 0.6, 0.4), (0.16, 0.72))),
            ("body", _box(-0.16, 0.9, 0.16, u(1.1, 1.2))),
            ("body", _poly((-0.16, 0.7), (-0.12, 0.7), (-0.1, 0.95), (-0.15, 0.95))),
            ("body", _poly((0.16, 0.7), (0.12, 0.7), (0.1, 0.95), (0.15, 0.95)))]


# --- vessels and tools -------------------------------------------------------------------------------------


def _mug(u: _Dice) -> list[Piece]:
    h, low, r = u(0.6, 0.85), u(0.4, 0.55), u(0.28, 0.4)
    return [("body", _ellipse(0.55, 0.0, r, r * 1.15)), ("hole", _ellipse(0.55, 0.0, r * 0.6, r * 0.75)),
            ("body", _poly((-0.55, -h), (0.55, -h), (low, h), (-low, h))),
            ("detail", _ellipse(0, -h + 0.03, 0.52, 0.05))]


def _vase(u: _Dice) -> list[Piece]:
    neck = u(0.12, 0.25)
    return [("body", _profile((u(0.2, 0.38), -1), (neck, -0.75), (neck + 0.05, -0.45),
            (u(0.45, 0.7), 0.15), (u(0.35, 0.5), 0.65), (u(0.2, 0.32), 0.98), (0.0, 1.0)))]


def _bottle(u: _Dice) -> list[Piece]:
    w, neck, y = u(0.24, 0.36), u(0.08, 0.12), u(-0.4, -0.1)
    return [("body", _profile((neck, -1), (neck, -0.6), (neck * 1.1, y - 0.12), (w, y + 0.18), (w, 0.95),
            (0, 1.0))), ("body", _box(-neck - 0.03, -1.02, neck + 0.03, -0.88)),
            ("detail", _box(-w * 0.95, 0.25, w * 0.95, 0.65))]


def _bowl(u: _Dice) -> list[Piece]:
    return [("body", _ellipse(0, 0, 1, u(0.55, 0.85), 0, 180)),
            ("body", _box(-u(0.3, 0.45), 0.5, u(0.3, 0.45), u(0.8, 0.95)))]


def _jug(u: _Dice) -> list[Piece]:
    belly, r = u(0.45, 0.6), u(0.26, 0.36)
    return [("body", _ellipse(0.45, -0.1, r, 0.45)), ("hole", _ellipse(0.45, -0.1, r * 0.65, 0.32)),
            ("body", _profile((0.26, -0.9), (0.22, -0.6), (belly, 0.2), (0.35, 0.85), (0, 0.9))),
            ("body", _poly((-0.2, -0.9), (-0.5, u(-0.9, -0.75)), (-0.2, -0.6)))]


def _teapot(u: _Dice) -> list[Piece]:
    h = u(0.45, 0.6)
    spout = _smooth([(-0.4, 0.3), (-0.75, 0.2), (-0.85, -0.15), (-1.1, -0.35)], is_closed=False)
    return [("body", _ellipse(0.65, 0.0, 0.36, 0.34)), ("hole", _ellipse(0.68, 0.0, 0.24, 0.22)),
            ("body", _band(spout, u(0.14, 0.2))), ("body", _ellipse(0, 0.05, 0.65, h)),
            ("body", _ellipse(0, -h - 0.02, 0.1)), ("detail", _ellipse(0, -h * 0.75, 0.4, 0.05))]


def _goblet(u: _Dice) -> list[Piece]:
    w = u(0.4, 0.6)
    return [("body", _profile((w * u(0.75, 1.0), -1), (w, -0.5), (0.25, -0.1), (0.06, 0.1), (0.06, 0.75),
            (u(0.35, 0.5), 0.95), (0.0, 1.0)))]


def _key(u: _Dice) -> list[Piece]:
    r, bit = u(0.3, 0.42), u(0.22, 0.35)
    return [("body", _ellipse(-0.7, 0, r)), ("hole", _ellipse(-0.7, 0, r * u(0.4, 0.65))),
            ("body", _box(-0.75 + r, -0.07, 1, 0.07)), ("body", _box(0.8, 0, 0.95, bit)),
            ("body", _box(0.5, 0, 0.65, bit * u(0.6, 1)))]


def _hammer(u: _Dice) -> list[Piece]:
    return [("body", _box(-0.09, -0.7, 0.09, 1)), ("body", _box(-0.5, -1, u(0.2, 0.4), -0.62)),
            ("body", _poly((0.2, -0.98), (u(0.6, 0.75), -0.72), (0.2, -0.66)))]


def _anvil(u: _Dice) -> list[Piece]:
    waist, foot = u(0.22, 0.35), u(0.5, 0.65)
    return [("body", _poly((-1.1, -0.5), (0.6, -0.55), (0.6, -0.2), (-0.4, -0.15))),
            ("body", _profile((0.5, -0.25), (waist, 0.1), (foot, 0.5), (foot, 0.65), is_smooth=False))]


def _anchor(u: _Dice) -> list[Piece]:
    r = u(0.6, 0.78)
    return [("body", _ellipse(0, -0.85, 0.2)), ("hole", _ellipse(0, -0.85, 0.1)),
            ("body", _box(-0.08, -0.7, 0.08, 0.95)), ("body", _box(-0.4, -0.5, 0.4, -0.36)),
            ("body", _band(_ellipse(0, 0.25, r, r, 10, 170), 0.18)),
            *(("body", _poly((s * (r - 0.22), 0.4), (s * (r + 0.2), 0.4), (s * (r + 0.02), 0.0)))
            for s in (-1, 1))]


def _spoon(u: _Dice) -> list[Piece]:
    return [("body", _ellipse(0, -0.75, u(0.24, 0.34), 0.38)),
            ("body", _poly((-0.05, -0.5), (0.05, -0.5), (u(0.08, 0.13), 1.1), (-0.1, 1.1)))]


def _axe(u: _Dice) -> list[Piece]:
    w = u(0.5, 0.75)
    return [("body", _box(-0.08, -1, 0.08, 1)),
            ("body", _smooth([(0.05, -0.85), (w, -1), (w + 0.08, -0.6), (w, -0.15), (0.05, -0.45)]))]


def _bell(u: _Dice) -> list[Piece]:
    top, flare = u(0.25, 0.4), u(0.65, 0.85)
    return [("body", _ellipse(0, 0.75, 0.16)),
            ("body", _profile((0.0, -0.85), (top, -0.65), (top + 0.1, 0.0), (flare, 0.65), (0.0, 0.7))),
            ("body", _ellipse(0, -0.88, 0.12)), ("detail", _box(-flare * 0.7, 0.35, flare * 0.7, 0.42))]


def _kite(u: _Dice) -> list[Piece]:
    y, w = u(-0.45, -0.2), u(0.5, 0.7)
    tail = _smooth([(0, 0.7), (0.15, 0.9), (-0.12, 1.1), (0.1, 1.35)], is_closed=False)
    return [("body", _poly((0, -1), (w, y), (0, 0.75), (-w, y))), ("body", _band(tail, 0.06)),
            ("detail", _box(-0.02, -0.95, 0.02, 0.7)),
            ("detail", _box(-w * 0.95, y - 0.02, w * 0.95, y + 0.02))]


def _guitar(u: _Dice) -> list[Piece]:
    low, mid = u(0.5, 0.62), u(0.26, 0.36)
    return [("body", _profile((0.0, -0.25), (0.4, -0.05), (mid, 0.25), (low, 0.7), (0.3, 1.1), (0.0, 1.15))),
            ("body", _box(-0.07, -1.2, 0.07, 0)), ("body", _box(-0.13, -1.4, 0.13, -1.15)),
            ("detail", _ellipse(0, 0.3, 0.15)), ("detail", _box(-0.2, 0.75, 0.2, 0.81))]


def _hourglass(u: _Dice) -> list[Piece]:
    w, neck = u(0.5, 0.65), u(0.05, 0.12)
    return [("body", _profile((w * 0.85, -0.9), (w * 0.75, -0.5), (neck, 0.0), (w * 0.75, 0.5),
            (w * 0.85, 0.9))), ("body", _box(-w, -1.05, w, -0.88)), ("body", _box(-w, 0.88, w, 1.05))]


def _pot(u: _Dice) -> list[Piece]:
    h = u(0.4, 0.65)
    return [("body", _profile((0.8, -h), (0.8, 0.0), (0.72, h * 0.85), (0, h))),
            ("body", _box(-1.05, -h + 0.12, 1.05, -h + u(0.24, 0.34))),
            ("body", _ellipse(0, -h, 0.82, u(0.15, 0.3), 180, 360)),
            ("detail", _box(-0.8, -h - 0.02, 0.8, -h + 0.03))]


SHAPES: dict[str, tuple[str, Builder]] = {
    "circle": ("FIGURES", _circle), "oval": ("FIGURES", _oval), "ring": ("FIGURES", _ring),
    "triangle": ("FIGURES", _triangle), "square": ("FIGURES", _square), "bar": ("FIGURES", _bar),
    "trapezoid": ("FIGURES", _trapezoid), "diamond": ("FIGURES", _diamond),
    "pentagon": ("FIGURES", _pentagon), "hexagon": ("FIGURES", _hexagon), "star": ("STARS", _star),
    "sun": ("STARS", _sun), "crescent": ("STARS", _crescent), "cross": ("SIGNS", _cross),
    "heart": ("SIGNS", _heart), "arrow": ("SIGNS", _arrow), "drop": ("SIGNS", _drop),
    "bolt": ("SIGNS", _bolt), "gear": ("SIGNS", _gear), "spiral": ("SIGNS", _spiral),
    "cloud": ("SIGNS", _cloud), "blob": ("BLOBS", _blob), "totem": ("BLOBS", _totem),
    "cluster": ("BLOBS", _cluster), "lamp": ("LAMPS", _lamp), "table": ("FURNITURE", _table),
    "chair": ("FURNITURE", _chair), "stool": ("FURNITURE", _stool), "house": ("BUILDINGS", _house),
    "tower": ("BUILDINGS", _tower), "tent": ("BUILDINGS", _tent), "windmill": ("BUILDINGS", _windmill),
    "tree": ("PLANTS", _tree), "pine": ("PLANTS", _pine), "leaf": ("PLANTS", _leaf),
    "flower": ("PLANTS", _flower), "mushroom": ("PLANTS", _mushroom), "cactus": ("PLANTS", _cactus),
    "apple": ("FRUITS", _apple), "pear": ("FRUITS", _pear), "fish": ("ANIMALS", _fish),
    "bird": ("ANIMALS", _bird), "cat": ("ANIMALS", _cat), "rabbit": ("ANIMALS", _rabbit),
    "snail": ("ANIMALS", _snail), "whale": ("ANIMALS", _whale), "butterfly": ("ANIMALS", _butterfly),
    "turtle": ("ANIMALS", _turtle), "boat": ("VEHICLES", _boat), "car": ("VEHICLES", _car),
    "truck": ("VEHICLES", _truck), "rocket": ("VEHICLES", _rocket), "plane": ("VEHICLES", _plane),
    "balloon": ("VEHICLES", _balloon), "mug": ("VESSELS", _mug), "vase": ("VESSELS", _vase),
    "bottle": ("VESSELS", _bottle), "bowl": ("VESSELS", _bowl), "jug": ("VESSELS", _jug),
    "teapot": ("VESSELS", _teapot), "goblet": ("VESSELS", _goblet), "pot": ("VESSELS", _pot),
    "key": ("TOOLS", _key), "hammer": ("TOOLS", _hammer), "anvil": ("TOOLS", _anvil),
    "anchor": ("TOOLS", _anchor), "spoon": ("TOOLS", _spoon), "axe": ("TOOLS", _axe),
    "hourglass": ("TOOLS", _hourglass), "bell": ("INSTRUMENTS", _bell), "guitar": ("INSTRUMENTS", _guitar),
    "kite": ("TOYS", _kite),
}
# fmt: on
"""Every shape's name, the family it belongs to (a category code of this world), and how it is drawn."""


def silhouette(name: str, rng: np.random.Generator) -> Outline:
    """One instance of the named shape, with random proportions, brought into the unit square."""
    pieces = SHAPES[name][1](_Dice(rng))
    body = np.concatenate([points for kind, points in pieces if kind == "body"])
    low, high = body.min(axis=0), body.max(axis=0)
    span = float((high - low).max())
    return Outline(tuple((kind, (points - (low + high) / 2) / span + 0.5) for kind, points in pieces))
