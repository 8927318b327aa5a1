"""Silhouettes of bags and shoes, as they stand on a table."""

from __future__ import annotations

from appraiser.data.samples.garments import Cut
from appraiser.data.samples.shapes import Knot, Shape, arc


def tote_bag(shape: Shape, cut: Cut, hardware: str) -> None:
    """A tall open bag with two handles."""
    shape.stands = True
    rise = -0.86 + 0.06 * cut.length
    shape.band(
        [
            (-0.34, -0.10, 0),
            (-0.31, -0.55),
            (-0.16, rise + 0.02),
            (0.16, rise + 0.02),
            (0.31, -0.55),
            (0.34, -0.10, 0),
        ],
        0.075,
    )
    shape.whole([(0, -0.28, 0), (0.62, -0.28, 0), (0.60, -0.14, 0), (0, -0.1)], "lining", lift=0.0)
    shape.whole([(0, -0.20), (0.66, -0.25, 0), (0.74 + 0.03 * cut.width, 0.80), (0.68, 0.88), (0, 0.90)])
    shape.line([(-0.66, -0.13), (0, -0.08), (0.66, -0.13)], width=0.018)
    shape.lines([(0.58, 0.0), (0.60, 0.45), (0.66, 0.84)], "fold", 0.06)
    shape.band(
        [
            (-0.30, 0.12, 0),
            (-0.30, -0.35),
            (-0.15, rise + 0.12),
            (0.15, rise + 0.12),
            (0.30, -0.35),
            (0.30, 0.12, 0),
        ],
        0.08,
    )
    if hardware == "zip":
        shape.zip([(0.58, 0.34), (-0.58, 0.34)], 0.10)
    if hardware == "buckle":
        shape.panel([(-0.10, -0.24, 0), (0.10, -0.24, 0), (0.10, 0.46), (0, 0.50), (-0.10, 0.46)], turn=90)
        shape.buckle(0, 0.28, 0.17)
    if hardware == "chain":
        shape.chain([(-0.50, -0.16), (-0.26, 0.26), (0.0, 0.36), (0.26, 0.26), (0.50, -0.16)], 0.072)


def shoulder_bag(shape: Shape, cut: Cut, hardware: str) -> None:
    """A low bag with a flap and a long strap, or a chain for a strap."""
    shape.stands = True
    strap: list[Knot] = [
        (-0.70, 0.06, 0),
        (-0.60, -0.48),
        (-0.26, -0.90),
        (0.26, -0.90),
        (0.60, -0.48),
        (0.70, 0.06, 0),
    ]
    if hardware == "chain":
        shape.chain(strap, 0.075)
    else:
        shape.band(strap, 0.075)
    shape.whole([(0, -0.10), (0.76, -0.08), (0.84, 0.0), (0.88 + 0.02 * cut.width, 0.70), (0.80, 0.80), (0, 0.82)])
    dip = 0.46 + 0.06 * cut.detail
    shape.whole([(0, -0.13), (0.78, -0.10), (0.85, 0.0), (0.84, 0.22), (0.50, dip - 0.05), (0, dip)], lift=1.4)
    shape.line([(-0.80, 0.20), (-0.48, dip - 0.11), (0, dip - 0.06), (0.48, dip - 0.11), (0.80, 0.20)], width=0.016)
    if hardware == "buckle":
        shape.panel([(-0.11, 0.10, 0), (0.11, 0.10, 0), (0.11, 0.62), (0, 0.67), (-0.11, 0.62)], turn=90)
        shape.buckle(0, 0.42, 0.18)


def backpack(shape: Shape, cut: Cut, hardware: str) -> None:
    """A rounded back with a front pocket and straps at the sides."""
    shape.stands = True
    shape.band([(-0.14, -0.82), (-0.10, -1.0), (0.10, -1.0), (0.14, -0.82)], 0.07)
    shape.pair(
        [(0.50, -0.40), (0.74, -0.10), (0.76, 0.50), (0.62, 0.74), (0.56, 0.70), (0.64, 0.30), (0.58, 0.0)],
        turn=10,
    )
    shape.whole([(0, -0.88), (0.36, -0.82), (0.56, -0.50), (0.62, 0.30), (0.60, 0.84), (0, 0.92)])
    shape.whole([(0, 0.08), (0.42, 0.08), (0.47, 0.16), (0.47, 0.72), (0.40, 0.80), (0, 0.82)])
    shape.line([(-0.56, -0.40), (-0.30, -0.62), (0, -0.68), (0.30, -0.62), (0.56, -0.40)], width=0.02)
    if hardware == "zip":
        shape.zip([(0.57, -0.20), (0.40, -0.50), (0, -0.60), (-0.40, -0.50), (-0.57, -0.20)], 0.095)
        shape.zip([(0.40, 0.26), (-0.40, 0.26)], 0.095)
    if hardware == "buckle":
        shape.pair([(0.19, -0.60, 0), (0.33, -0.60, 0), (0.33, 0.40), (0.19, 0.40)], turn=90)
        shape.buckle(-0.26, 0.10, 0.15)
        shape.buckle(0.26, 0.10, 0.15)
    if hardware == "none":
        shape.line([(-0.40, 0.26), (0.40, 0.26)], width=0.02)


def boot(shape: Shape, cut: Cut, hardware: str) -> None:
    """From the side, toe to the right, with a heel."""
    shape.stands = True
    top = -0.86 + 0.06 * cut.length
    shape.panel(
        [
            (-0.52, 0.70, 0),
            (-0.10, 0.74, 0),
            (0.10, 0.80),
            (0.84, 0.80),
            (0.86, 0.88),
            (0.10, 0.90),
            (-0.06, 0.80),
            (-0.16, 0.94, 0),
            (-0.50, 0.94, 0),
        ],
        "sole",
        lift=0.0,
    )
    shape.panel(
        [
            (-0.44, top, 0),
            (0.06, top + 0.04, 0),
            (0.06, -0.10),
            (0.12, 0.24),
            (0.40, 0.42),
            (0.72, 0.54),
            (0.86, 0.70),
            (0.84, 0.81, 0),
            (0.10, 0.82),
            (-0.14, 0.76),
            (-0.52, 0.74, 0),
            (-0.52, 0.46),
            (-0.44, 0.0),
        ]
    )
    shape.panel(arc((-0.19, top + 0.02), (0.25, 0.06), 0, 330, 10), "lining", lift=0.0)
    shape.line([(-0.50, 0.40), (-0.20, 0.34), (0.14, 0.28)], width=0.018)
    shape.line([(0.40, 0.38), (0.46, 0.56), (0.40, 0.78)], width=0.016)
    shape.line([(-0.30, 0.05), (-0.10, 0.14), (0.05, 0.10)], "fold", 0.05)
    if hardware == "zip":
        shape.zip([(-0.20, top + 0.10), (-0.20, 0.66)], 0.10)
    if hardware == "buckle":
        shape.panel([(-0.49, 0.12, 0), (0.10, 0.06, 0), (0.13, 0.22, 0), (-0.51, 0.28, 0)], turn=85)
        shape.buckle(-0.14, 0.17, 0.16)
    if hardware == "chain":
        shape.chain([(-0.50, 0.20), (-0.20, 0.32), (0.12, 0.18)], 0.075)


def sneaker(shape: Shape, cut: Cut, hardware: str) -> None:
    """From the side, low, with a thick pale sole and laces."""
    shape.stands = True
    shape.panel(
        [
            (-0.94, 0.28, 0),
            (0.94, 0.30, 0),
            (0.98, 0.38),
            (0.95, 0.50),
            (0.84, 0.54, 0),
            (-0.84, 0.54, 0),
            (-0.94, 0.50),
            (-0.97, 0.40),
        ],
        "rubber",
        lift=0.0,
    )
    shape.panel(
        [
            (-0.86, -0.40, 0),
            (-0.70, -0.44),
            (-0.46, -0.34),
            (-0.20, -0.42, 0),
            (0.0, -0.28),
            (0.34, -0.04),
            (0.74, 0.06),
            (0.92, 0.22),
            (0.94, 0.34, 0),
            (-0.92, 0.32, 0),
            (-0.93, 0.0),
        ]
    )
    shape.line([(-0.95, 0.44), (0.95, 0.46)], width=0.014)
    shape.panel(arc((-0.52, -0.38), (0.24, 0.07), 0, 330, 10), "lining", lift=0.0)
    shape.line([(0.34, -0.02), (0.46, 0.16), (0.40, 0.36)], width=0.018)
    shape.line([(-0.90, 0.02), (-0.66, 0.0), (-0.58, 0.36)], width=0.018)
    shape.line([(-0.30, -0.34), (-0.24, 0.05), (0.05, 0.36)], width=0.018)
    if hardware == "none":
        for k in range(4):
            x, y = -0.16 + 0.13 * k, -0.34 + 0.085 * k
            shape.line([(x, y), (x + 0.02, y + 0.20)], "lace", 0.045)
    if hardware == "zip":
        shape.zip([(-0.14, -0.34), (0.44, 0.10)], 0.10)
    if hardware == "buckle":
        shape.panel([(-0.34, -0.30, 0), (-0.02, -0.34, 0), (0.14, 0.22, 0), (-0.18, 0.26, 0)], turn=20)
        shape.buckle(-0.08, -0.02, 0.15 + 0.01 * cut.detail)
