"""Small charts as inline SVG: bars, and ranges on a logarithmic axis. Colours come from page.css."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from appraiser.pages.words import amount, escape, shorten

WIDTH, ROW = 640, 22
NAME_WIDTH, NUMBER_WIDTH = 200, 70
MAX_NAME = 30
TICK_STEPS: tuple[Sequence[int], ...] = (
    range(10, 100),
    range(10, 100, 2),
    range(10, 100, 5),
    (10, 12, 15, 20, 25, 30, 40, 50, 60, 80),
    (10, 15, 20, 30, 50, 70),
    (10, 20, 50),
    (10, 30),
    (10,),
)
"""Ticks of a power of ten in tenths of it, from fine to coarse."""
MIN_TICK_GAP = 1 / 7
"""Share of the axis: 32 px of the narrowest, those of price points, where a label such as 5,000 takes 29."""


def bar_rows(rows: Sequence[tuple[str, float]], label: str) -> str:
    """Horizontal bars, one per row, with the number at the end."""
    top = max((value for _, value in rows), default=1) or 1
    room = WIDTH - NAME_WIDTH - NUMBER_WIDTH
    parts = []
    for place, (name, value) in enumerate(rows):
        y = place * ROW
        parts.append(
            f'{_name(name, y)}<rect class="chart-bar" x="{NAME_WIDTH}" y="{y + 4}" '
            f'width="{max(1.0, value / top * room):.1f}" height="{ROW - 8}" rx="2"/>'
            f'<text x="{NAME_WIDTH + value / top * room + 6:.1f}" y="{y + 15}">{value:,.6g}</text>'
        )
    described = "; ".join(f"{name} {value:,.6g}" for name, value in rows)
    return _svg("".join(parts), len(rows) * ROW, f"{label}: {described}")


def range_rows(rows: Sequence[tuple[str, Mapping[str, float]]], label: str) -> str:
    """Per row, smallest to largest as a line, the middle half as a bar, the median as a mark; logarithmic axis.

    Args:
        rows: name -> `min`, `q25`, `median`, `q75`, `max`, all above 0, and `n`.
    """
    low = min(values["min"] for _, values in rows) / 1.1
    high = max(values["max"] for _, values in rows) * 1.1
    room = WIDTH - NAME_WIDTH - 20

    def x(value: float) -> float:
        return NAME_WIDTH + math.log(value / low) / math.log(high / low) * room

    height = len(rows) * ROW + 24
    parts = [
        f'<path class="chart-grid" d="M{x(tick):.1f} 0V{height - 20}"/>'
        f'<text x="{x(tick):.1f}" y="{height - 6}" text-anchor="middle">{amount(tick)}</text>'
        for tick in log_ticks(low, high)
    ]
    for place, (name, values) in enumerate(rows):
        y = place * ROW + ROW / 2
        hover = f"{name}: {values['n']:.0f} products, {amount(values['min'])} to {amount(values['max'])}, median "
        parts.append(
            f"<g><title>{escape(hover + amount(values['median']))}</title>{_name(name, place * ROW)}"
            f'<path class="chart-line" d="M{x(values["min"]):.1f} {y}H{x(values["max"]):.1f}"/>'
            f'<rect class="chart-bar" x="{x(values["q25"]):.1f}" y="{y - 6}" '
            f'width="{max(1.5, x(values["q75"]) - x(values["q25"])):.1f}" height="12" rx="2"/>'
            f'<path class="chart-mark" d="M{x(values["median"]):.1f} {y - 8}v16"/></g>'
        )
    described = "; ".join(f"{name} median {amount(values['median'])}" for name, values in rows)
    return _svg("".join(parts), height, f"{label}: {described}")


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between the ends of a logarithmic axis: as many as leave room for their labels."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    least = MIN_TICK_GAP * math.log(high / low)
    for steps in TICK_STEPS:
        # In tenths: 11 * 100 / 10 is 110, 1.1 * 100 is a little more.
        ticks = [tick for power in powers for step in steps if low <= (tick := step * 10.0**power / 10) <= high]
        if all(math.log(right / left) >= least for left, right in pairwise(ticks)):
            return ticks
    return ticks[:: math.ceil(len(ticks) * MIN_TICK_GAP)]


def _name(name: str, y: float) -> str:
    shown = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
    return f'<text x="{NAME_WIDTH - 8}" y="{y + 15}" text-anchor="end">{escape(shown)}</text>'


def _svg(content: str, height: float, label: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(shorten(label))}">'
        f"{content}</svg>"
    )
