"""The page's pictures as inline SVG: meters, pairs of bars, price points. Colours come from fidelity.css.

Real numbers come in here as shares of groups of five or more rows, never as single values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from appraiser.data.samples.shop_prices import MIN_GROUP
from appraiser.pages.charts import log_ticks
from appraiser.pages.words import amount, escape

WIDTH = 340
BAR_ROW = 40
LETTER = 5.8
"""Width of a letter of the smallest text, about."""
STEPS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)


def meter(value: float, by_chance: float | None = None) -> str:
    """A bar from 0 to 1, and a tick where chance would put it."""
    tick = "" if by_chance is None else f'<path class="tick" d="M{200 * by_chance:.1f} 0v12"/>'
    said = f"{value:.1%}" + ("" if by_chance is None else f"; by chance {by_chance:.1%}")
    return (
        f'<svg class="meter" viewBox="0 0 200 12" preserveAspectRatio="none" role="img" aria-label="{said}">'
        f'<rect class="track" y="2" width="200" height="8" rx="2"/>'
        f'<rect class="sample" y="2" width="{max(200 * value, 1):.1f}" height="8" rx="2"/>{tick}</svg>'
    )


@dataclass(frozen=True)
class Pair:
    """A share of the real table and of the sample."""

    name: str
    real: float
    sample: float


def paired_bars(pairs: Sequence[Pair], what: str) -> str:
    """For every name two bars, the real one above."""
    top = max([0.05, *(max(pair.real, pair.sample) for pair in pairs)])
    parts = []
    for row, pair in enumerate(pairs):
        y = row * BAR_ROW
        bars = "".join(
            f'<rect class="{side}" x="0" y="{y + offset}" width="{max(value / top * WIDTH, 1):.1f}" height="8" rx="2"/>'
            for side, value, offset in (("real", pair.real, 17), ("sample", pair.sample, 26))
        )
        parts.append(
            f'<text x="0" y="{y + 12}">{escape(pair.name)}</text><text class="value" x="{WIDTH}" y="{y + 12}" '
            f'text-anchor="end">{pair.real:.1%} → {pair.sample:.1%}</text>{bars}'
        )
    said = "; ".join(f"{pair.name}: real {pair.real:.1%}, sample {pair.sample:.1%}" for pair in pairs)
    return _svg(WIDTH, len(pairs) * BAR_ROW, f"{what}. {said}", "".join(parts), "pairs")


def columns(pairs: Sequence[Pair], what: str) -> str:
    """A histogram: two columns per bin, the real one left."""
    height, floor = 192, 150
    top = max([0.05, *(max(pair.real, pair.sample) for pair in pairs)])
    step = WIDTH / len(pairs)
    wide = min(22.0, step * 0.38)
    # Long names of narrow bins are slanted, or they would run into each other; the first needs room at its left.
    slanted = max(len(pair.name) for pair in pairs) * LETTER > step
    parts = []
    for place, pair in enumerate(pairs):
        middle = (place + 0.5) * step
        for side, value, left in (("real", pair.real, middle - wide - 0.5), ("sample", pair.sample, middle + 0.5)):
            tall = max(value / top * (floor - 14), 1)
            parts.append(
                f'<rect class="{side}" x="{left:.1f}" y="{floor - tall:.1f}" width="{wide:.1f}" height="{tall:.1f}">'
                f"<title>{escape(pair.name)}: {value:.1%}</title></rect>"
            )
            if wide >= 18:
                parts.append(
                    f'<text class="value" x="{left + wide / 2:.1f}" y="{floor - tall - 3:.1f}" text-anchor="middle">'
                    f"{value:.0%}</text>"
                )
        turn = f' transform="rotate(-40 {middle:.1f} {floor + 12})" text-anchor="end"' if slanted else ""
        anchor = "" if slanted else ' text-anchor="middle"'
        parts.append(f'<text x="{middle:.1f}" y="{floor + 15}"{anchor}{turn}>{escape(pair.name)}</text>')
    said = "; ".join(f"{pair.name}: real {pair.real:.1%}, sample {pair.sample:.1%}" for pair in pairs)
    lines = f'<path class="grid" d="M0 {floor}H{WIDTH}"/>'
    return _svg(WIDTH, height if slanted else floor + 22, f"{what}. {said}", lines + "".join(parts), "columns")


def price_points(groups: tuple[Sequence[float], Sequence[float]], ends: tuple[float, float], currency: str) -> str:
    """Means of groups of prices on a log axis that all categories share: real ones above, drawn ones below."""
    width, low, high = 240, math.log(ends[0]), math.log(ends[1])

    def x(price: float) -> float:
        return 8 + (math.log(price) - low) / max(high - low, 1e-9) * (width - 16)

    rows = []
    for side, prices, y in (("real", groups[0], 9), ("sample", groups[1], 23)):
        if prices:
            line = f'<path class="{side} line" d="M{x(min(prices)):.1f} {y}H{x(max(prices)):.1f}"/>'
            dots = "".join(
                f'<circle class="{side}" cx="{x(p):.1f}" cy="{y}" r="4"><title>{amount(round(p))}</title></circle>'
                for p in prices
            )
            rows.append(line + dots)
    ticks = "".join(
        f'<path class="grid" d="M{x(tick):.1f} 0V32"/><text x="{x(tick):.1f}" y="44" text-anchor="middle">'
        f"{amount(tick)}</text>"
        for tick in log_ticks(*ends)
    )
    real, sample = (", ".join(amount(round(price), currency) for price in prices) for prices in groups)
    return _svg(width, 48, f"Mean prices of groups: real {real}; sample {sample}", ticks + "".join(rows), "points")


def price_bins(real: Sequence[float], sample: Sequence[float]) -> list[Pair]:
    """Shares between round prices; bins of fewer than five real prices are joined with their neighbours."""
    powers = range(math.floor(math.log10(min(real))), math.ceil(math.log10(max(real))) + 1)
    round_prices = [step * 10.0**power for power in powers for step in STEPS]
    edges = _common_edges([edge for edge in round_prices if min(real) < edge <= max(real)], real)
    names = [amount(edge) for edge in edges]
    ends = (f"under {names[0]}", f"{names[-1]} +") if edges else ("all", "all")
    return _pairs(edges, [f"{low}–{high}" for low, high in pairwise(names)], ends, real, sample)


def word_bins(real: Sequence[int], sample: Sequence[int]) -> list[Pair]:
    """Shares per number of words; numbers of fewer than five real titles are joined with their neighbours."""
    edges = _common_edges(range(min(real) + 1, max(real) + 1), real)
    inner = [f"{low:.0f}" if high - low == 1 else f"{low:.0f}–{high - 1:.0f}" for low, high in pairwise(edges)]
    ends = (f"{edges[0] - 1:.0f} or fewer", f"{edges[-1]:.0f} or more") if edges else ("all", "all")
    return _pairs(edges, inner, ends, real, sample)


def distance_bins(sample: Sequence[int], real: Sequence[int], width: int = 16) -> list[Pair]:
    """Shares per distance in bits."""
    first, last = min(*sample, *real) // width, max(*sample, *real) // width
    return [
        Pair(
            f"{place * width}–{(place + 1) * width - 1}",
            *(sum(value // width == place for value in values) / len(values) for values in (real, sample)),
        )
        for place in range(first, last + 1)
    ]


def _common_edges(edges: Iterable[float], real: Sequence[float]) -> list[float]:
    """The edges between bins of five or more real values."""
    kept: list[float] = []
    for edge in edges:
        last = kept[-1] if kept else -math.inf
        if sum(last <= value < edge for value in real) >= MIN_GROUP:
            kept.append(edge)
    while kept and sum(value >= kept[-1] for value in real) < MIN_GROUP:
        kept.pop()
    return kept


def _pairs(
    edges: Sequence[float], inner: Sequence[str], ends: tuple[str, str], real: Sequence[float], sample: Sequence[float]
) -> list[Pair]:
    """Shares of the bins between the edges, the outermost open."""
    labels = [ends[0], *inner, ends[1]] if edges else [ends[0]]
    bounds = [-math.inf, *edges, math.inf]
    return [
        Pair(label, *(sum(low <= value < high for value in values) / len(values) for values in (real, sample)))
        for label, (low, high) in zip(labels, pairwise(bounds), strict=True)
    ]


def _svg(width: float, height: float, said: str, content: str, kind: str) -> str:
    return (
        f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(said)}">{content}</svg>'
    )
