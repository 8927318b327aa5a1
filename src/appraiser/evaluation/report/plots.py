"""The report's price scatter and the bars of its tiles as inline SVG. Colours come from report.css."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from appraiser.evaluation.metrics import Score
from appraiser.evaluation.report.words import Unit, number
from appraiser.pages.charts import log_ticks
from appraiser.pages.words import amount, escape, shorten

MAX_POINTS = 2000
SIDE = 480
LEFT, RIGHT, TOP, BOTTOM = 72, 14, 14, 50
# A prediction further than this factor outside the true prices is drawn at the edge; otherwise one absurd answer would
# press all others into a corner.
MAX_FACTOR_OUTSIDE = 3.0

BAR_WIDTH, BAR_ROW = 320, 34


@dataclass(frozen=True)
class PricePoint:
    """One product in the scatter.

    Args:
        href: where the product is shown, None if nowhere.
    """

    name: str
    true: float
    predicted: float
    interval: tuple[float, float] | None
    href: str | None

    @property
    def is_near(self) -> bool:
        return abs(self.predicted - self.true) / self.true <= 0.20 + 1e-12


@dataclass(frozen=True)
class LogScale:
    """Both axes of the square scatter: prices from `low` to `high`."""

    low: float
    high: float

    def _share(self, price: float) -> float:
        return math.log(min(max(price, self.low), self.high) / self.low) / math.log(self.high / self.low)

    def x(self, price: float) -> float:
        return LEFT + self._share(price) * (SIDE - LEFT - RIGHT)

    def y(self, price: float) -> float:
        return SIDE - BOTTOM - self._share(price) * (SIDE - TOP - BOTTOM)

    def is_clipped(self, point: PricePoint) -> bool:
        return not self.holds(point.predicted)

    def holds(self, price: float) -> bool:
        return self.low <= price <= self.high


def scale_of(points: Sequence[PricePoint]) -> LogScale:
    """Room for every true price, and for predictions up to MAX_FACTOR_OUTSIDE beyond them."""
    true = [point.true for point in points]
    shown = [point.predicted for point in points]
    low = max(min(true + shown), min(true) / MAX_FACTOR_OUTSIDE)
    high = min(max(true + shown), max(true) * MAX_FACTOR_OUTSIDE)
    return LogScale(low / 1.15, high * 1.15)


def price_scatter(points: Sequence[PricePoint], currency: str | None) -> str:
    """Predicted against true price on log axes; marks within 20 % differ in shape too, not only in colour."""
    scale = scale_of(points)
    axis = f"price ({currency})" if currency else "price"
    near = sum(point.is_near for point in points)
    summary = (
        f"Predicted against true {axis} of {len(points)} products on logarithmic axes; {near} lie within 20 percent of "
        "the diagonal."
    )
    marks = "\n".join(_point(point, scale) for point in points)
    return (
        f'<svg class="scatter" viewBox="0 0 {SIDE} {SIDE}" role="img" aria-label="{escape(summary)}">\n'
        f"{_band(scale)}{_grid(scale)}{_diagonal(scale)}\n{marks}\n{_axis_titles(axis)}</svg>"
    )


def _band(scale: LogScale) -> str:
    """The area within 20 % of the truth, clipped to the plot by following it point by point."""
    steps = [scale.low * (scale.high / scale.low) ** (i / 60) for i in range(61)]
    upper = [f"{scale.x(t):.1f},{scale.y(1.2 * t):.1f}" for t in steps]
    lower = [f"{scale.x(t):.1f},{scale.y(0.8 * t):.1f}" for t in reversed(steps)]
    return f'<polygon class="band" points="{" ".join(upper + lower)}"/>'


def _grid(scale: LogScale) -> str:
    bottom, right = SIDE - BOTTOM, SIDE - RIGHT
    lines = [f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{right - LEFT}" height="{bottom - TOP}"/>']
    for tick in log_ticks(scale.low, scale.high):
        x, y, label = scale.x(tick), scale.y(tick), amount(tick)
        lines.append(f'<path class="grid" d="M{x:.1f} {TOP}V{bottom}M{LEFT} {y:.1f}H{right}"/>')
        lines.append(f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{label}</text>')
        lines.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    return "".join(lines)


def _diagonal(scale: LogScale) -> str:
    return f'<path class="diagonal" d="M{LEFT} {SIDE - BOTTOM}L{SIDE - RIGHT} {TOP}"/>'


def _axis_titles(axis: str) -> str:
    middle_x, middle_y = (LEFT + SIDE - RIGHT) / 2, (TOP + SIDE - BOTTOM) / 2
    return (
        f'<text class="axis" x="{middle_x}" y="{SIDE - 10}" text-anchor="middle">true {escape(axis)}</text>'
        f'<text class="axis" transform="translate(13 {middle_y}) rotate(-90)" text-anchor="middle">'
        f"predicted {escape(axis)}</text>"
    )


def _point(point: PricePoint, scale: LogScale) -> str:
    x, y = scale.x(point.true), scale.y(point.predicted)
    shape = mark_shape(x, y, near=point.is_near, clipped=scale.is_clipped(point))
    interval = ""
    hover = f"{shorten(point.name)}: true {amount(point.true)}, predicted {amount(point.predicted)}"
    if point.interval:
        low, high = point.interval
        interval = f'<path class="interval" d="M{x:.1f} {scale.y(low):.1f}V{scale.y(high):.1f}"/>'
        hover += f", 80 % interval {amount(round(low))} to {amount(round(high))}"
    group = f"<g><title>{escape(hover)}</title>{interval}{shape}</g>"
    # tabindex -1: the cards are reachable by keyboard anyway; 2,000 extra stops would bury the rest of the page.
    return f'<a href="{escape(point.href)}" tabindex="-1">{group}</a>' if point.href else group


def mark_shape(x: float, y: float, *, near: bool, clipped: bool = False) -> str:
    """A dot within 20 %, a cross outside, a triangle where the prediction lies beyond the axis."""
    if clipped:
        return f'<path class="off" d="M{x - 5:.1f} {y + 4:.1f}h10l-5 -9z"/>'
    if near:
        return f'<circle class="near" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    return f'<path class="far" d="M{x - 3.5:.1f} {y - 3.5:.1f}l7 7m0 -7l-7 7"/>'


def bars(rows: Sequence[tuple[str, Score]], unit: Unit) -> str:
    """Horizontal bars with 95 % whiskers, the first one (this model) in the accent colour."""
    full = 100.0 if unit == "points" else 1.0
    top = max([full * 0.2, *(min(score["high"], full) for _, score in rows)])
    described = "; ".join(f"{name} {number(score['value'], unit)}" for name, score in rows)
    parts = []
    for row, (name, score) in enumerate(rows):
        y = row * BAR_ROW
        x = {key: min(score[key], top) / top * BAR_WIDTH for key in ("value", "low", "high")}
        parts.append(
            f'<g class="{"own" if row == 0 else "other"}"><text x="0" y="{y + 13}">{escape(name)}</text>'
            f'<text class="value" x="{BAR_WIDTH}" y="{y + 13}" text-anchor="end">{number(score["value"], unit)}</text>'
            f'<rect class="track" x="0" y="{y + 18}" width="{BAR_WIDTH}" height="8" rx="2"/>'
            f'<rect class="bar" x="0" y="{y + 18}" width="{max(x["value"], 1):.1f}" height="8" rx="2"/>'
            f'<path class="whisker" d="M{x["low"]:.1f} {y + 22}H{x["high"]:.1f}M{x["low"]:.1f} {y + 19}v6'
            f'M{x["high"]:.1f} {y + 19}v6"/></g>'
        )
    height = len(rows) * BAR_ROW - 4
    label = escape(f"Bar chart: {described}")
    return (
        f'<svg class="bars" viewBox="0 0 {BAR_WIDTH} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    )
