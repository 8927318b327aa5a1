"""Silhouettes of small things."""

from __future__ import annotations

from appraiser.data.samples.garments import Cut
from appraiser.data.samples.shapes import Shape, arc, half_hoop, rounded


def teddy_bear(shape: Shape, cut: Cut, hardware: str) -> None:
    """A sitting toy bear."""
    shape.stands = True
    shape.pair(arc((0.33, -0.86), (0.16, 0.16), 0, 320, 9))
    shape.pair(arc((0.33, -0.86), (0.085, 0.085), 0, 320, 9), "inner", lift=0.2)
    shape.pair([(0.24, -0.20), (0.42, -0.22), (0.62, 0.10), (0.56, 0.28), (0.42, 0.22)], turn=-30)
    shape.whole([(0, -0.30), (0.30, -0.20), (0.44, 0.25), (0.36, 0.66), (0, 0.76)])
    shape.pair(arc((0.44, 0.66), (0.25, 0.24), 0, 330, 10), turn=40)
    shape.pair(arc((0.48, 0.68), (0.13, 0.14), 0, 330, 10), "inner", lift=0.2)
    shape.whole([(0, -0.98), (0.30, -0.88), (0.43, -0.55), (0.30, -0.26), (0, -0.18)])
    shape.panel(arc((0, -0.42), (0.19, 0.15), 0, 330, 10), "inner", lift=0.4)
    shape.panel(arc((0, -0.49), (0.075, 0.05), 0, 330, 8), "dark", lift=0.0)
    shape.pair(arc((0.17, -0.62), (0.045, 0.05), 0, 330, 8), "dark", lift=0.0)
    shape.line([(0, -0.45), (0, -0.37), (0.07, -0.33)], width=0.02)
    if hardware == "buttons":
        shape.buttons([(0, -0.04), (0, 0.18), (0, 0.40)], 0.075 + 0.004 * cut.detail)


def scarf(shape: Shape, cut: Cut, hardware: str) -> None:
    """Laid round a neck that is not there: a loop and two ends with fringes."""
    left, right = 0.72 + 0.06 * cut.length, 0.84 + 0.05 * cut.detail
    for x, end, lean in ((-0.30, left, -0.05), (0.08, right, 0.08)):
        for k in range(9):
            at = x + lean + 0.015 + 0.034 * k
            shape.line([(at, end - 0.02), (at + 0.008, end + 0.14)], "fringe", 0.024)
    shape.panel(
        [(-0.24, -0.40, 0), (0.08, -0.40, 0), (0.0, 0.1), (-0.05, left, 0), (-0.36, left, 0), (-0.32, 0.1)],
        turn=4,
    )
    shape.panel(arc((0, -0.62), (0.46, 0.34), 0, 330, 12))
    shape.panel(arc((0, -0.72), (0.26, 0.14), 0, 330, 12), "lining", lift=0.0)
    shape.panel(
        [(-0.06, -0.46, 0), (0.30, -0.44, 0), (0.38, 0.1), (0.47, right, 0), (0.15, right, 0), (0.08, 0.1)],
        turn=-7,
    )
    shape.panel(
        [
            (-0.46, -0.62),
            (-0.30, -0.42),
            (0, -0.32),
            (0.30, -0.42),
            (0.46, -0.62),
            (0.44, -0.46),
            (0.28, -0.24),
            (0, -0.14),
            (-0.28, -0.24),
            (-0.44, -0.46),
        ],
        turn=80,
    )
    shape.line([(-0.38, -0.46), (0, -0.26), (0.38, -0.46)], "fold", 0.05)
    shape.line([(0.20, -0.1), (0.26, 0.4), (0.30, 0.8)], "fold", 0.05)


def bucket_hat(shape: Shape, cut: Cut, hardware: str) -> None:
    """A crown on a drooping brim."""
    shape.stands = True
    shape.whole([(0, 0.06), (0.56, 0.04, 0), (0.80, 0.30), (0.96, 0.54), (0.84, 0.62), (0.4, 0.70), (0, 0.72)])
    shape.whole(
        [(0, -0.60), (0.38, -0.56), (0.48 + 0.02 * cut.width, -0.44), (0.58, 0.06), (0.50, 0.12), (0, 0.18)],
        lift=0.6,
    )
    shape.line([(-0.46, -0.46), (0, -0.40), (0.46, -0.46)], width=0.016)
    for k in (0.30, 0.42, 0.54):
        shape.line([(-0.72 - 0.2 * (k - 0.3), k), (0, k + 0.08), (0.72 + 0.2 * (k - 0.3), k)], width=0.012)
    if hardware == "chain":
        shape.chain([(-0.57, 0.02), (0, 0.13), (0.57, 0.02)], 0.07)
    if hardware == "buckle":
        shape.panel([(-0.58, -0.06, 0), (0, 0.04), (0.58, -0.06, 0), (0.59, 0.08), (0, 0.19), (-0.59, 0.08)], turn=90)
        shape.buckle(0.14, 0.11, 0.16)


def cap(shape: Shape, cut: Cut, hardware: str) -> None:
    """A domed cap with its peak to the right."""
    shape.stands = True
    shape.panel(
        [(0.20, 0.20, 0), (0.50, 0.10), (0.86, 0.24), (1.02, 0.44), (0.90, 0.46), (0.50, 0.38), (0.10, 0.42)],
        turn=60,
    )
    shape.panel(
        [
            (-0.74, 0.34, 0),
            (-0.74, -0.05),
            (-0.46, -0.46),
            (-0.05, -0.54 - 0.03 * cut.length),
            (0.32, -0.32),
            (0.50, 0.12),
            (0.50, 0.30, 0),
            (0.0, 0.40),
        ]
    )
    shape.line([(-0.08, -0.53), (-0.14, 0.0), (-0.12, 0.39)], width=0.018)
    shape.line([(-0.08, -0.53), (0.20, -0.20), (0.26, 0.36)], width=0.018)
    shape.line([(-0.08, -0.53), (-0.48, -0.1), (-0.50, 0.37)], width=0.018)
    shape.line([(0.44, 0.22), (0.70, 0.25), (0.92, 0.40)], width=0.014)
    if hardware == "chain":
        shape.chain([(-0.72, 0.26), (-0.12, 0.34), (0.48, 0.24)], 0.07)
    if hardware == "buttons":
        shape.buttons([(-0.08, -0.53), (-0.60, 0.20), (0.38, 0.18)], 0.08)


def tie(shape: Shape, cut: Cut, hardware: str) -> None:
    """Knotted, the blade hanging."""
    wide = 0.24 + 0.02 * cut.width
    shape.panel(arc((0, -0.92), (0.23, 0.11), 0, 330, 12), turn=80)
    shape.panel(arc((0, -0.95), (0.17, 0.05), 0, 330, 12), "lining", lift=0.0)
    shape.panel([(0.0, -0.70, 0), (0.10, -0.70, 0), (wide + 0.06, 0.62, 0), (0.14, 0.78, 0), (0.0, 0.62, 0)], turn=-8)
    shape.panel([(-0.10, -0.76, 0), (0.10, -0.76, 0), (wide, 0.72, 0), (0, 0.98, 0), (-wide, 0.72, 0)])
    shape.panel([(-0.17, -0.98, 0), (0.17, -0.98, 0), (0.10, -0.70, 0), (-0.10, -0.70, 0)], turn=30)
    shape.line([(0.0, -0.66), (-0.02, -0.3), (0.0, 0.1)], "fold", 0.05)
    if hardware == "chain":
        shape.chain([(-0.20, 0.0), (0, 0.12), (0.20, 0.0)], 0.072)


def belt(shape: Shape, cut: Cut, hardware: str) -> None:
    """Closed to a loop, seen a little from above."""
    shape.stands = True
    shape.panel(half_hoop(-0.22, (0.92, 0.32), 0.30, is_front=False), "inside")
    shape.panel(half_hoop(-0.22, (0.92, 0.32), 0.32, is_front=True))
    if hardware == "buckle":
        shape.panel(
            [
                (-0.08, 0.09, 0),
                (0.30, 0.08),
                (0.66, -0.01, 0),
                (0.72, 0.12, 0),
                (0.66, 0.27, 0),
                (0.30, 0.37),
                (-0.08, 0.40, 0),
            ]
        )
        shape.buckle(-0.04, 0.25, 0.24 + 0.01 * cut.detail)
        for x in (0.36, 0.48):
            shape.line([(x, 0.20), (x + 0.02, 0.20)], width=0.045)
    else:
        shape.chain([(-0.70, 0.16), (-0.36, 0.48), (0.10, 0.60), (0.52, 0.42), (0.72, 0.12)], 0.085)


def wallet(shape: Shape, cut: Cut, hardware: str) -> None:
    """Folded once, the front towards us."""
    high = 0.52 + 0.04 * cut.length
    shape.panel(rounded(-0.80, -high - 0.06, 0.90, high - 0.03), "inner", lift=0.0)
    shape.panel(rounded(-0.88, -high, 0.86, high, 0.06))
    shape.line([(-0.74, -high), (-0.74, high)], "fold", 0.05)
    if hardware != "zip":
        shape.panel(
            [
                (-0.86, -high, 0),
                (0.80, -high, 0),
                (0.86, -high + 0.06, 0),
                (0.86, -0.06, 0),
                (0.40, 0.10),
                (0.0, 0.14),
                (-0.40, 0.10),
                (-0.87, -0.06, 0),
            ],
            lift=1.2,
        )
    if hardware == "buttons":
        shape.buttons([(0.0, 0.03)], 0.115)
    if hardware == "zip":
        shape.zip([(0.72, -0.22), (-0.78, -0.22)], 0.12)
    if hardware == "chain":
        shape.chain(
            [
                (0.70, -high + 0.06),
                (0.90, high - 0.05),
                (0.45, high + 0.26),
                (-0.10, high + 0.22),
                (-0.45, high + 0.06),
            ],
            0.085,
        )


def sunglasses(shape: Shape, cut: Cut, hardware: str) -> None:
    """Rimmed lenses from the front, the arms folded behind."""
    drop = 0.34 + 0.05 * cut.length
    if hardware == "chain":
        shape.chain([(-0.94, -0.12), (-0.70, 0.50), (-0.25, 0.74), (0.25, 0.74), (0.70, 0.50), (0.94, -0.12)], 0.07)
    shape.band([(-0.95, -0.20), (-0.5, -0.40), (0.3, -0.38), (0.8, -0.30)], 0.06, "metal", lift=0.4)
    shape.band([(0.95, -0.20), (0.5, -0.42), (-0.3, -0.42), (-0.8, -0.34)], 0.06, "metal", lift=0.4)
    shape.pair(
        [
            (0.10, -0.10),
            (0.16, -0.22),
            (0.55, -0.27),
            (0.92, -0.24),
            (0.97, -0.12),
            (0.86, 0.20),
            (0.58, drop),
            (0.28, 0.26),
            (0.14, 0.08),
        ]
    )
    shape.band([(-0.14, -0.12), (0, -0.17), (0.14, -0.12)], 0.075, "metal")


def bracelet(shape: Shape, cut: Cut, hardware: str) -> None:
    """A bangle, enamelled between metal rims."""
    shape.stands = True
    high = 0.42 + 0.04 * cut.length
    shape.panel(half_hoop(-0.30, (0.86, high), 0.40, is_front=False), "metal")
    shape.panel(half_hoop(-0.30, (0.86, high), 0.44, is_front=True))
    if hardware == "buckle":
        shape.buckle(0.0, high - 0.07, 0.27)
    if hardware == "chain":
        shape.chain([(-0.80, 0.10), (-0.50, 0.60), (0.0, 0.80), (0.50, 0.60), (0.80, 0.10)], 0.085)


def umbrella(shape: Shape, cut: Cut, hardware: str) -> None:
    """Open, from the side, with a crook."""
    shape.band([(0.0, -0.90, 0), (0.0, 0.70, 0)], 0.045, "metal", lift=0.0)
    shape.band([(0.0, 0.52), (0.0, 0.78), (0.09, 0.93), (0.22, 0.90), (0.25, 0.76)], 0.075, "wood", lift=0.0)
    wide, top = 0.98 + 0.02 * cut.width, -0.84
    shape.panel(
        [
            (0, top),
            (0.40, -0.74),
            (0.78, -0.42),
            (wide, 0.08, 0),
            (0.80, -0.02),
            (0.56, 0.08, 0),
            (0.28, -0.03),
            (0, 0.08, 0),
            (-0.28, -0.03),
            (-0.56, 0.08, 0),
            (-0.80, -0.02),
            (-wide, 0.08, 0),
            (-0.78, -0.42),
            (-0.40, -0.74),
        ]
    )
    shape.line([(0, top), (0, -0.4), (0, 0.07)], "fold", 0.03)
    shape.lines([(0, top), (0.40, -0.45), (0.56, 0.07)], "fold", 0.04)
    shape.lines([(0, top), (0.26, -0.45), (0.30, -0.02)], width=0.012)
