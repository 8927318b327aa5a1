"""The vocabulary of a silhouette: panels, strokes and fittings in the object's own coordinates.

    x to the right, y down, origin in the middle; an object fits into about -1..1

A panel is a closed outline that is filled; later panels lie on earlier ones. A stroke is a line drawn on top. A
fitting is a piece of hardware. Nothing here knows about pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]
Knot = tuple[float, float] | tuple[float, float, int]
"""A point of a curve; a third entry of 0 makes it a corner."""

_STEPS = 7


@dataclass(frozen=True, slots=True)
class Panel:
    """A filled outline. `role` is `fabric` (painted with the product's material) or the name of a fixed colour."""

    outline: Points
    role: str = "fabric"
    turn: float = 0.0
    """Degrees by which the cloth is turned on this panel (a sleeve's grain follows the arm)."""
    lift: float = 1.0
    """Strength of the shadow it throws on what lies below; 0 for a piece sewn in."""


@dataclass(frozen=True, slots=True)
class Stroke:
    """A line on the cloth: `seam` is thin and dark, `fold` broad and soft, `lace` and `fringe` are threads."""

    points: Points
    kind: str = "seam"
    width: float = 0.012


@dataclass(frozen=True, slots=True)
class Fitting:
    """Hardware: `buttons` at points, `zip` or `chain` along points, `buckle` at the first point."""

    kind: str
    points: Points
    size: float


@dataclass(slots=True)
class Shape:
    """A silhouette, bottom layer first."""

    panels: list[Panel] = field(default_factory=list)
    strokes: list[Stroke] = field(default_factory=list)
    fittings: list[Fitting] = field(default_factory=list)
    stands: bool = False
    """Stands on a floor rather than hangs or lies flat: its shadow is a pool under it."""

    def panel(self, knots: Sequence[Knot], role: str = "fabric", *, turn: float = 0.0, lift: float = 1.0) -> None:
        """Add a closed curve."""
        self.panels.append(Panel(curve(knots), role, turn, lift))

    def pair(self, knots: Sequence[Knot], role: str = "fabric", *, turn: float = 0.0, lift: float = 1.0) -> None:
        """Add a closed curve on the right and its mirror image on the left."""
        right = curve(knots)
        self.panels.append(Panel(right, role, turn, lift))
        self.panels.append(Panel(right * np.array([-1, 1], dtype=np.float32), role, -turn, lift))

    def whole(self, half: Sequence[Knot], role: str = "fabric", *, lift: float = 1.0) -> None:
        """Add a symmetric panel given the knots of its right half, top to bottom."""
        left = [_mirrored(knot) for knot in reversed(half) if abs(knot[0]) > 1e-6]
        self.panel([*half, *left], role, lift=lift)

    def band(self, knots: Sequence[Knot], width: float, role: str = "fabric", *, lift: float = 1.0) -> None:
        """Add a strap of constant width along an open curve."""
        self.panels.append(Panel(ribbon(curve(knots, closed=False), width), role, 0.0, lift))

    def line(self, knots: Sequence[Knot], kind: str = "seam", width: float = 0.014) -> None:
        """Add a stroke along an open curve."""
        self.strokes.append(Stroke(curve(knots, closed=False), kind, width))

    def lines(self, knots: Sequence[Knot], kind: str = "seam", width: float = 0.014) -> None:
        """Add a stroke and its mirror image."""
        self.line(knots, kind, width)
        self.line([_mirrored(knot) for knot in knots], kind, width)

    def buttons(self, places: Sequence[tuple[float, float]], size: float = 0.062) -> None:
        """Add round buttons with these centres and this radius."""
        self.fittings.append(Fitting("buttons", np.array(places, dtype=np.float32), size))

    def zip(self, knots: Sequence[Knot], size: float = 0.085) -> None:
        """Add a zip of this width; the puller is at the first knot."""
        self.fittings.append(Fitting("zip", curve(knots, closed=False), size))

    def buckle(self, x: float, y: float, size: float = 0.15) -> None:
        """Add a buckle of this half-height."""
        self.fittings.append(Fitting("buckle", np.array([(x, y)], dtype=np.float32), size))

    def chain(self, knots: Sequence[Knot], size: float = 0.062) -> None:
        """Add a chain whose links have this radius."""
        self.fittings.append(Fitting("chain", curve(knots, closed=False), size))


def _mirrored(knot: Knot) -> Knot:
    return (-knot[0], knot[1], 0) if len(knot) == 3 else (-knot[0], knot[1])


@cache
def _basis() -> NDArray[np.float32]:
    t = np.arange(_STEPS) / _STEPS
    return np.stack([2 * t**3 - 3 * t**2 + 1, t**3 - 2 * t**2 + t, -2 * t**3 + 3 * t**2, t**3 - t**2], axis=1).astype(
        np.float32
    )


def curve(knots: Sequence[Knot], *, closed: bool = True) -> Points:
    """A smooth curve through the knots (cubic Hermite, Catmull-Rom slopes), straight between two corners."""
    points = np.array([knot[:2] for knot in knots], dtype=np.float32)
    soft = np.array([0.0 if len(knot) == 3 else 0.5 for knot in knots], dtype=np.float32)[:, None]
    slopes = (np.roll(points, -1, 0) - np.roll(points, 1, 0)) * soft
    if not closed:
        slopes[0] = (points[1] - points[0]) * 0.5
        slopes[-1] = (points[-1] - points[-2]) * 0.5
    following = np.roll(points, -1, 0)
    controls = np.stack([points, slopes, following, np.roll(slopes, -1, 0)], axis=1)
    dense: Points = np.einsum("tk,nkc->ntc", _basis(), controls).reshape(-1, 2)
    return dense if closed else np.concatenate([dense[:-_STEPS], points[-1:]])


def ribbon(path: Points, width: float) -> Points:
    """The outline of a strap of this width along a path."""
    steps = np.gradient(path, axis=0)
    normal = np.stack([-steps[:, 1], steps[:, 0]], axis=1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    side = normal * np.float32(width / 2)
    return np.concatenate([path + side, (path - side)[::-1]]).astype(np.float32)


def rounded(left: float, top: float, right: float, bottom: float, corner: float = 0.05) -> list[Knot]:
    """Knots of a rectangle with its corners cut off."""
    return [
        (left + corner, top, 0), (right - corner, top, 0), (right, top + corner, 0), (right, bottom - corner, 0),
        (right - corner, bottom, 0), (left + corner, bottom, 0), (left, bottom - corner, 0), (left, top + corner, 0),
    ]  # fmt: skip


def half_hoop(top: float, radii: tuple[float, float], high: float, *, is_front: bool) -> list[Knot]:
    """Knots of the near or the far half of a flat hoop seen a little from above."""
    start, stop = (0, 180) if is_front else (180, 360)
    upper = arc((0.0, top), radii, start, stop, 11)
    lower = arc((0.0, top + high), radii, stop, start, 11)
    ends: list[Knot] = [(knot[0], knot[1], 0) for knot in (upper[0], upper[-1], lower[0], lower[-1])]
    return [ends[0], *upper[1:-1], ends[1], ends[2], *lower[1:-1], ends[3]]


def arc(
    centre: tuple[float, float], radii: tuple[float, float], start: float, stop: float, num_knots: int = 9
) -> list[Knot]:
    """Knots along an ellipse; angles in degrees, 0 to the right, 90 downwards."""
    angles = np.radians(np.linspace(start, stop, num_knots))
    return [
        (float(centre[0] + radii[0] * np.cos(angle)), float(centre[1] + radii[1] * np.sin(angle))) for angle in angles
    ]
