"""Silhouettes of what is worn on the body, seen from the front as a shop lays it out."""

from __future__ import annotations

from dataclasses import dataclass

from appraiser.data.samples.shapes import Knot, Shape, arc


@dataclass(frozen=True, slots=True)
class Cut:
    """Small differences between products of one type, each about -1..1; none has a word or a price."""

    length: float = 0.0
    width: float = 0.0
    flare: float = 0.0
    neck: float = 0.0
    detail: float = 0.0


def _sleeves(
    shape: Shape, cut: Cut, *, cuff_y: float, cuff_x: float, width: float = 0.19, shoulder: float = 0.44
) -> None:
    top, inner = -0.80, cuff_x - width
    shape.pair(
        [
            (shoulder - 0.12, top - 0.02), (shoulder + 0.05, top + 0.06), (shoulder + 0.13, top + 0.30),
            (0.5 * (shoulder + 0.18 + cuff_x), 0.5 * (top + 0.3 + cuff_y)), (cuff_x, cuff_y, 0),
            (inner, cuff_y + 0.03, 0), (0.5 * (shoulder + inner) - 0.02, 0.5 * (top + 0.55 + cuff_y)),
            (shoulder - 0.05, top + 0.50),
        ],
        turn=-12.0 - cut.width,
    )  # fmt: skip
    shape.lines([(cuff_x - 0.01, cuff_y - 0.09), (inner - 0.01, cuff_y - 0.06)])
    shape.lines([(shoulder + 0.07, -0.35), (shoulder + 0.04, -0.12), (shoulder + 0.1, 0.05)], "fold", 0.05)


def _neck_hole(shape: Shape, width: float = 0.17, depth: float = 0.13, top: float = -0.90) -> None:
    shape.panel(arc((0.0, top), (width, depth), 0, 360, 10)[:-1], "lining", lift=0.0)


def _lapels(shape: Shape, depth: float, spread: float = 0.26) -> None:
    shape.pair(
        [(0.10, -0.97, 0), (0.19, -0.93), (spread, -0.72, 0), (spread - 0.05, -0.66, 0), (spread + 0.02, -0.60, 0),
         (0.0, depth, 0), (0.035, -0.70)],
        turn=25,
    )  # fmt: skip


def _shirt_collar(shape: Shape) -> None:
    shape.pair([(0.0, -0.84, 0), (0.12, -0.97), (0.20, -0.94), (0.22, -0.72, 0), (0.14, -0.68, 0)], turn=30)


def _flaps(shape: Shape, y: float, inner: float = 0.14, outer: float = 0.36) -> None:
    shape.pair([(inner, y, 0), (outer, y + 0.02, 0), (outer + 0.01, y + 0.13), (inner, y + 0.11)])


def _column(top: float, bottom: float, count: int, x: float = 0.0) -> list[tuple[float, float]]:
    step = (bottom - top) / max(count - 1, 1)
    return [(x, top + step * k) for k in range(count)]


def _front(shape: Shape, hardware: str, top: float, bottom: float, waist: float, half: float, count: int = 5) -> None:
    """The front edge of an open-fronted garment and its hardware."""
    if hardware == "zip":
        shape.zip([(0.0, top), (0.0, bottom)])
    else:
        shape.line([(0.035, top), (0.035, bottom)], width=0.018)
    if hardware == "buttons":
        shape.buttons(_column(top + 0.10, bottom - 0.12, count, -0.03))
    if hardware == "buckle":
        shape.panel(
            [
                (-half, waist - 0.07, 0),
                (half, waist - 0.07, 0),
                (half, waist + 0.07, 0),
                (-half, waist + 0.07, 0),
            ],
            turn=90,
        )
        shape.buckle(0.0, waist)


def coat(shape: Shape, cut: Cut, hardware: str) -> None:
    """Long, with lapels and flap pockets."""
    hem, skirt = 0.98 + 0.03 * cut.length, 0.52 + 0.05 * cut.flare
    _sleeves(shape, cut, cuff_y=0.32, cuff_x=0.70)
    _neck_hole(shape)
    shape.whole(
        [
            (0, -0.78),
            (0.13, -0.93),
            (0.40, -0.83),
            (0.44, -0.55),
            (0.40, -0.05),
            (0.46, 0.45),
            (skirt, hem, 0),
            (0, hem + 0.02),
        ]
    )
    shape.lines([(0.30, 0.15), (0.34, 0.55), (0.37, 0.95)], "fold", 0.06)
    _flaps(shape, 0.30)
    _front(shape, "buckle" if hardware == "buckle" else "none", -0.30, hem, 0.02, 0.42)
    _lapels(shape, -0.26 + 0.06 * cut.neck)
    if hardware == "zip":
        shape.zip([(0.0, -0.22), (0.0, hem)])
    if hardware == "buttons":
        shape.buttons([*_column(-0.10, 0.50, 3, -0.14), *_column(-0.10, 0.50, 3, 0.14)], 0.066)


def jacket(shape: Shape, cut: Cut, hardware: str) -> None:
    """Short, with a stand collar and a band at hem and cuffs."""
    hem = 0.52 + 0.05 * cut.length
    _sleeves(shape, cut, cuff_y=0.46, cuff_x=0.80, width=0.21, shoulder=0.48)
    _neck_hole(shape)
    shape.whole([(0, -0.86), (0.16, -0.92), (0.44, -0.82), (0.49, -0.45), (0.50, 0.05), (0.52, hem, 0), (0, hem)])
    shape.whole([(0, hem - 0.02, 0), (0.50, hem - 0.02, 0), (0.47, hem + 0.15), (0, hem + 0.16)])
    shape.whole([(0, -0.88), (0.12, -0.98), (0.19, -0.95), (0.21, -0.84), (0, -0.76)])
    shape.lines([(0.20, -0.30), (0.40, -0.30)])
    shape.lines([(0.24, 0.10), (0.36, 0.36)], width=0.03)
    shape.lines([(0.14, -0.80), (0.17, 0.50)], "fold", 0.04)
    _front(shape, hardware, -0.88, hem + 0.13, hem + 0.06, 0.48)


def parka(shape: Shape, cut: Cut, hardware: str) -> None:
    """Knee-long with a hood and big pockets."""
    hem = 0.84 + 0.05 * cut.length
    shape.whole([(0, -1.08), (0.24, -1.02), (0.31, -0.80), (0.20, -0.62), (0, -0.58)])
    shape.whole([(0, -1.0), (0.16, -0.95), (0.20, -0.80), (0.10, -0.66), (0, -0.62)], "lining", lift=0.3)
    _sleeves(shape, cut, cuff_y=0.38, cuff_x=0.76, width=0.22, shoulder=0.46)
    shape.whole(
        [
            (0, -0.62, 0),
            (0.20, -0.80),
            (0.42, -0.80),
            (0.47, -0.45),
            (0.43, 0.10),
            (0.52, 0.5),
            (0.55, hem, 0),
            (0, hem + 0.03),
        ]
    )
    shape.pair([(0.13, 0.32, 0), (0.42, 0.32, 0), (0.43, 0.66), (0.14, 0.66)])
    shape.pair([(0.12, 0.28, 0), (0.43, 0.28, 0), (0.42, 0.42), (0.13, 0.42)])
    shape.line([(-0.43, 0.10), (0, 0.13), (0.43, 0.10)], "fold", 0.05)
    _front(shape, hardware, -0.58, hem, 0.1, 0.43, 4)


def gilet(shape: Shape, cut: Cut, hardware: str) -> None:
    """Sleeveless and padded, with a high collar."""
    hem = 0.72 + 0.05 * cut.length
    _neck_hole(shape)
    shape.whole(
        [
            (0, -0.82),
            (0.16, -0.90),
            (0.40, -0.84, 0),
            (0.39, -0.55),
            (0.50, -0.22),
            (0.52, 0.3),
            (0.50, hem, 0),
            (0, hem + 0.02),
        ]
    )
    shape.whole([(0, -0.88), (0.14, -0.99), (0.21, -0.95), (0.24, -0.82), (0, -0.72)])
    for k in range(5):
        y = -0.50 + 0.25 * k
        shape.line([(-0.50, y), (-0.25, y + 0.03), (0, y), (0.25, y + 0.03), (0.50, y)], "fold", 0.055)
    _front(shape, hardware, -0.90, hem, 0.1, 0.5, 5)


def cape(shape: Shape, cut: Cut, hardware: str) -> None:
    """A wide bell without sleeves."""
    wide = 0.98 + 0.04 * cut.flare
    _neck_hole(shape, 0.16, 0.11, -0.66)
    shape.whole(
        [
            (0, -0.60),
            (0.14, -0.68),
            (0.34, -0.58),
            (0.66, 0.0),
            (wide, 0.52),
            (wide - 0.05, 0.60),
            (0.5, 0.74),
            (0, 0.78),
        ]
    )
    shape.whole([(0, -0.56), (0.15, -0.74, 0), (0.24, -0.62), (0.10, -0.42), (0, -0.40)])
    shape.lines([(0.30, -0.30), (0.44, 0.20), (0.56, 0.70)], "fold", 0.07)
    shape.lines([(0.52, 0.0), (0.56, 0.34)], width=0.025)
    _front(shape, hardware, -0.42, 0.78, 0.0, 0.4, 4)
    if hardware == "chain":
        shape.chain([(-0.24, -0.50), (0.0, -0.28), (0.24, -0.50)], 0.07)


def dress(shape: Shape, cut: Cut, hardware: str) -> None:
    """Sleeveless, narrow waist, wide skirt."""
    hem, wide = 0.98 + 0.03 * cut.length, 0.62 + 0.08 * cut.flare
    _neck_hole(shape, 0.17, 0.10, -0.95)
    shape.whole(
        [
            (0, -0.80 + 0.05 * cut.neck),
            (0.14, -0.98, 0),
            (0.24, -0.99, 0),
            (0.25, -0.75),
            (0.34, -0.55),
            (0.25, -0.15),
            (0.24, -0.08, 0),
            (0, -0.06),
        ]
    )
    shape.whole(
        [
            (0, -0.12),
            (0.24, -0.12, 0),
            (0.36, 0.22),
            (wide, hem - 0.04, 0),
            (0.3, hem + 0.02),
            (0, hem + 0.03),
        ]
    )
    for x in (0.05, 0.14, 0.21):
        shape.lines([(x, -0.05), (x * 1.7, 0.4), (x * 2.5, hem)], "fold", 0.05)
    if hardware == "buttons":
        shape.buttons(_column(-0.68, 0.72, 6))
    if hardware == "buckle":
        shape.panel([(-0.27, -0.16, 0), (0.27, -0.16, 0), (0.27, -0.03, 0), (-0.27, -0.03, 0)], turn=90)
        shape.buckle(0.0, -0.095)


def shirt(shape: Shape, cut: Cut, hardware: str) -> None:
    """Long sleeves, collar, curved hem."""
    hem = 0.72 + 0.05 * cut.length
    _sleeves(shape, cut, cuff_y=0.50, cuff_x=0.74, width=0.17)
    _neck_hole(shape, 0.15, 0.12)
    shape.whole(
        [
            (0, -0.82),
            (0.15, -0.92),
            (0.40, -0.83),
            (0.43, -0.45),
            (0.41, 0.1),
            (0.44, hem - 0.14),
            (0.30, hem),
            (0, hem + 0.08),
        ]
    )
    shape.panel([(-0.055, -0.80, 0), (0.055, -0.80, 0), (0.055, hem + 0.07, 0), (-0.055, hem + 0.07, 0)], lift=0.5)
    shape.panel([(0.14, -0.42, 0), (0.33, -0.42, 0), (0.33, -0.20, 0), (0.235, -0.14, 0), (0.14, -0.20, 0)], lift=0.6)
    _shirt_collar(shape)
    shape.lines([(0.30, -0.1), (0.24, 0.3), (0.3, 0.6)], "fold", 0.05)
    if hardware == "buttons":
        shape.buttons(_column(-0.66, 0.58, 6), 0.056)


def t_shirt(shape: Shape, cut: Cut, hardware: str) -> None:
    """Short sleeves and a round neck."""
    hem = 0.68 + 0.05 * cut.length
    _neck_hole(shape, 0.20, 0.16, -0.84)
    shape.pair(
        [(0.30, -0.82), (0.46, -0.76), (0.62, -0.56), (0.74, -0.28, 0), (0.52, -0.16, 0), (0.40, -0.40)],
        turn=-25,
    )
    shape.whole(
        [
            (0, -0.70 + 0.05 * cut.neck),
            (0.12, -0.75),
            (0.20, -0.88, 0),
            (0.42, -0.78),
            (0.46, -0.45),
            (0.45, 0.1),
            (0.46, hem, 0),
            (0, hem + 0.02),
        ]
    )
    shape.line(
        [(-0.235, -0.86), (-0.14, -0.68), (0, -0.63 + 0.05 * cut.neck), (0.14, -0.68), (0.235, -0.86)],
        width=0.02,
    )
    shape.line([(-0.45, hem - 0.06), (0.45, hem - 0.06)])
    shape.lines([(0.68, -0.33), (0.50, -0.23)])
    shape.lines([(0.34, -0.2), (0.25, 0.15), (0.32, 0.5)], "fold", 0.06)


def sweater(shape: Shape, cut: Cut, hardware: str) -> None:
    """Ribbed hem and cuffs; a roll-neck, or open with buttons, or with a half zip."""
    hem = 0.58 + 0.05 * cut.length
    _sleeves(shape, cut, cuff_y=0.48, cuff_x=0.76, width=0.21, shoulder=0.47)
    _neck_hole(shape, 0.17, 0.12, -0.86)
    neck: Knot = (0, -0.42, 0) if hardware == "buttons" else (0, -0.80)
    shape.whole([neck, (0.16, -0.90), (0.42, -0.82), (0.48, -0.45), (0.48, 0.1), (0.49, hem, 0), (0, hem)])
    shape.whole([(0, hem - 0.02, 0), (0.48, hem - 0.02, 0), (0.45, hem + 0.13), (0, hem + 0.14)])
    for k in range(11):
        x = -0.42 + 0.084 * k
        shape.line([(x, hem), (x * 0.96, hem + 0.12)], width=0.016)
    if hardware == "buttons":
        shape.line([(0.0, -0.42), (0.0, hem + 0.13)], width=0.02)
        shape.buttons(_column(-0.34, hem + 0.05, 5), 0.064)
        return
    shape.whole([(0, -1.0), (0.16, -1.0), (0.18, -0.86), (0.19, -0.78), (0, -0.72)])
    shape.line([(-0.17, -0.90), (0, -0.85), (0.17, -0.90)], "fold", 0.03)
    if hardware == "zip":
        shape.zip([(0.0, -0.98), (0.0, -0.28)])


def skirt(shape: Shape, cut: Cut, hardware: str) -> None:
    """A-line with a waistband."""
    wide = 0.72 + 0.06 * cut.flare
    shape.whole([(0, -0.62), (0.34, -0.64, 0), (0.48, -0.2), (wide, 0.66, 0), (0.36, 0.74), (0, 0.76)])
    shape.whole([(0, -0.74, 0), (0.35, -0.76, 0), (0.36, -0.58, 0), (0, -0.56)])
    for x in (0.10, 0.26):
        shape.lines([(x, -0.50), (x * 1.45, 0.1), (x * 1.95, 0.72)], "fold", 0.055)
    if hardware == "buttons":
        shape.line([(0.07, -0.56), (0.07, 0.76)])
        shape.buttons(_column(-0.46, 0.56, 5))
    if hardware == "zip":
        shape.zip([(0.16, -0.56), (0.22, 0.74)])
    if hardware == "buckle":
        shape.buckle(0.0, -0.66)
    if hardware == "chain":
        shape.chain([(-0.33, -0.58), (-0.12, -0.28), (0.20, -0.30), (0.35, -0.58)])


def _legs(shape: Shape, hem: float, ankle: float, foot: float, crotch: float, top: float) -> None:
    shape.pair(
        [
            (0.0, top, 0),
            (0.33, top, 0),
            (0.42, top + 0.4),
            (ankle + foot, hem, 0),
            (ankle, hem + 0.01, 0),
            (0.015, crotch),
            (0.0, crotch - 0.06),
        ]
    )
    shape.lines(
        [(0.20, top + 0.25), (0.5 * (0.22 + ankle + foot / 2), 0.5 * (top + hem)), (ankle + foot / 2, hem)],
        "fold",
        0.035,
    )
    shape.line([(0, top + 0.12), (0, crotch)], width=0.018)
    shape.lines([(0.17, top + 0.13), (0.24, top + 0.30), (0.39, top + 0.36)], width=0.018)


def trousers(shape: Shape, cut: Cut, hardware: str) -> None:
    """Long straight legs."""
    _legs(shape, 0.98, 0.14 + 0.02 * cut.width, 0.24 + 0.04 * cut.flare, -0.28, -0.90)
    shape.whole([(0, -0.98, 0), (0.33, -0.99, 0), (0.345, -0.84, 0), (0, -0.83)])
    _waist(shape, hardware, -0.91, -0.86)


def shorts(shape: Shape, cut: Cut, hardware: str) -> None:
    """Wide legs to above the knee."""
    _legs(shape, 0.48 + 0.06 * cut.length, 0.10, 0.44 + 0.04 * cut.flare, 0.10, -0.50)
    shape.whole([(0, -0.60, 0), (0.345, -0.61, 0), (0.36, -0.44, 0), (0, -0.43)])
    _waist(shape, hardware, -0.52, -0.48)


def _waist(shape: Shape, hardware: str, band: float, below: float) -> None:
    if hardware == "buckle":
        shape.buckle(0.0, band, 0.13)
    elif hardware == "buttons":
        shape.buttons([(0.0, band), *_column(below + 0.14, below + 0.40, 2)])
    elif hardware == "chain":
        shape.chain([(0.05, below), (0.22, below + 0.34), (0.40, below + 0.22), (0.37, below)])


def dungarees(shape: Shape, cut: Cut, hardware: str) -> None:
    """A child's: bib, straps, short wide legs."""
    shape.pair([(0.12, -0.62), (0.16, -0.98), (0.27, -0.98), (0.24, -0.62)])
    _legs(shape, 0.88 + 0.04 * cut.length, 0.08, 0.40, 0.30, -0.16)
    shape.whole([(0, -0.66, 0), (0.27, -0.66, 0), (0.32, -0.10), (0.34, -0.06), (0, -0.02)])
    shape.panel([(-0.15, -0.48, 0), (0.15, -0.48, 0), (0.15, -0.26), (0, -0.20), (-0.15, -0.26)], lift=0.6)
    if hardware == "buttons":
        shape.buttons([(-0.20, -0.58), (0.20, -0.58), (-0.30, 0.02), (0.30, 0.02)], 0.07)
    elif hardware == "buckle":
        shape.buckle(-0.20, -0.64, 0.12)
        shape.buckle(0.20, -0.64, 0.12)
