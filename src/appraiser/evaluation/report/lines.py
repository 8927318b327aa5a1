"""Line charts as inline SVG, for curves over steps, shares or numbers of products."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from appraiser.evaluation.metrics import Score
from appraiser.pages.charts import log_ticks
from appraiser.pages.words import escape

WIDTH, HEIGHT = 330, 176
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 12, 38
MAX_POINTS = 300
MAX_MARKS = 40
"""Points up to which each is marked; more would hide the line."""
NUM_TICKS = 4
TICK_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Axis:
    """An axis from low to high, and how its numbers are written."""

    low: float
    high: float
    text: Callable[[float], str]
    is_log: bool = False

    def share(self, value: float) -> float:
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        return log_ticks(self.low, self.high) if self.is_log else linear_ticks(self.low, self.high)


def axis_of(
    values: Sequence[float], text: Callable[[float], str], *, is_log: bool = False, from_zero: bool = False
) -> Axis:
    """An axis that holds all values, with a little room; a single value gets room on both sides."""
    low, high = min(values), max(values)
    if is_log:
        return Axis(low / 1.1, high * 1.1, text, True)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return Axis(0.0 if from_zero and low >= 0 else low - room, high + room, text)


def linear_ticks(low: float, high: float) -> list[float]:
    """Round numbers between the ends, about NUM_TICKS of them."""
    rough = (high - low) / NUM_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in TICK_STEPS if step * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    # Rounded: 3 * 0.1 is 0.30000000000000004, and 0 may come out as -0.
    return [round(place * step, 12) + 0.0 for place in range(first, math.floor(high / step + 1e-9) + 1)]


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MAX_POINTS, evenly chosen, the last one always among them."""
    if len(points) <= MAX_POINTS:
        return list(points)
    chosen = [points[i * len(points) // (MAX_POINTS - 1)] for i in range(MAX_POINTS - 1)]
    return [*chosen, points[-1]]


def line_chart(
    points: Sequence[tuple[float, float]],
    x_axis: Axis,
    y_axis: Axis,
    x_name: str,
    label: str,
    intervals: Sequence[Score] = (),
) -> str:
    """One line.

    Args:
        x_name: under the horizontal axis.
        label: what the chart says, for those who do not see it.
        intervals: of the points, drawn as whiskers.
    """

    def x(value: float) -> float:
        return LEFT + x_axis.share(value) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - y_axis.share(value) * (HEIGHT - TOP - BOTTOM)

    grid = "".join(
        f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}"/>'
        f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{escape(y_axis.text(tick))}</text>'
        for tick in y_axis.ticks()
    )
    grid += "".join(
        f'<path class="grid" d="M{x(tick):.1f} {HEIGHT - BOTTOM}v4"/>'
        f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{escape(x_axis.text(tick))}</text>'
        for tick in x_axis.ticks()
    )
    middle = (LEFT + WIDTH - RIGHT) / 2
    grid += f'<text class="axis" x="{middle:g}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_name)}</text>'
    drawn = thinned(points)
    path = "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in drawn)
    marks = "".join(
        f'<path class="whisker" d="M{x(a):.1f} {y(score["low"]):.1f}V{y(score["high"]):.1f}"/>'
        for (a, _), score in zip(points, intervals, strict=bool(intervals))
    )
    if len(drawn) <= MAX_MARKS:
        marks += "".join(
            f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="2.6"><title>{escape(x_axis.text(a))}: '
            f"{escape(y_axis.text(b))}</title></circle>"
            for a, b in drawn
        )
    return (
        f'<svg class="lines" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f'{grid}<path class="line" d="M{path}"/>{marks}</svg>'
    )
