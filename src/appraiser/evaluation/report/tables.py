"""Tables of numbers with captions, and intervals drawn into their cells."""

from __future__ import annotations

from collections.abc import Sequence

from appraiser.evaluation.metrics import Score
from appraiser.evaluation.report.words import Unit, number, short_span
from appraiser.pages.words import escape

DOT_WIDTH, DOT_HEIGHT, DOT_ROOM = 110, 12, 5


def figure_table(caption: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], kind: str = "") -> str:
    """A table that scrolls by itself where the page is narrow.

    Args:
        heads: HTML of the column headings, that of the row names first.
        rows: HTML of a row's name and of its cells.
        kind: class of the table.
    """
    upper = "".join(f'<th scope="col">{head}</th>' for head in heads)
    lines = "\n".join(
        f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>' for name, cells in rows
    )
    classes = f"figures {kind}".strip()
    return scroll(
        f'<table class="{classes}"><caption><span>{escape(caption)}</span></caption>\n'
        f"<thead><tr>{upper}</tr></thead>\n<tbody>\n{lines}\n</tbody></table>",
        caption,
    )


def scroll(table: str, label: str) -> str:
    return f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0">{table}</div>'


def value_cell(score: Score, unit: Unit) -> str:
    """The value with its interval below."""
    return f"{number(score['value'], unit)}<small>{short_span(score, unit)}</small>"


def drawn_cell(score: Score, unit: Unit, low: float, high: float, line: float | None = None) -> str:
    """The value with its interval, and beside it a drawing of both."""
    return f'<div class="drawn"><span>{value_cell(score, unit)}</span>{dot(score, low, high, line)}</div>'


def dot(score: Score, low: float, high: float, line: float | None = None) -> str:
    """A score on an axis from low to high: a dot, its interval, and a line at a value to compare with.

    The numbers stand beside it, so it says nothing to those who do not see it.
    """

    def x(value: float) -> float:
        share = (min(max(value, low), high) - low) / ((high - low) or 1.0)
        return DOT_ROOM + share * (DOT_WIDTH - 2 * DOT_ROOM)

    middle = DOT_HEIGHT / 2
    drawn = f'<path class="axis" d="M0 {middle:g}H{DOT_WIDTH}"/>'
    if line is not None:
        drawn += f'<path class="line" d="M{x(line):.1f} 0V{DOT_HEIGHT}"/>'
    drawn += f'<path class="span" d="M{x(score["low"]):.1f} {middle:g}H{x(score["high"]):.1f}"/>'
    drawn += f'<circle cx="{x(score["value"]):.1f}" cy="{middle:g}" r="3.5"/>'
    return f'<svg class="dot" viewBox="0 0 {DOT_WIDTH} {DOT_HEIGHT}" aria-hidden="true">{drawn}</svg>'
