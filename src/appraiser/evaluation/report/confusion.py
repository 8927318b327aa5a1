"""Which categories are taken for which: the commonest mix-ups in words, and the table of all."""

from __future__ import annotations

from typing import Any

from appraiser.evaluation.report.tables import scroll
from appraiser.pages.words import escape

MAX_WHOLE = 12
"""Labels up to which the whole table is shown; of more, only those that were mixed up."""
MAX_SENTENCES = 6
MAX_NAME = 26
SHADES = 5


def confusion_section(scores: dict[str, Any]) -> str:
    """Rows are true, columns are said."""
    found = scores.get("confusion")
    if not found or not found["labels"]:
        return ""
    labels, counts = found["labels"], found["counts"]
    mixed = sorted(
        (
            (count, true, said)
            for true, row in enumerate(counts)
            for said, count in enumerate(row)
            if true != said and count
        ),
        key=lambda pair: (-pair[0], pair[1], pair[2]),
    )
    if not mixed:
        return "<p>No category was taken for another.</p>"
    said = "".join(
        f"<li>{escape(labels[true])} taken for {escape(labels[other])}: {count:,} of {sum(counts[true]):,}</li>"
        for count, true, other in mixed[:MAX_SENTENCES]
    )
    shown = _shown(counts, {place for _, *places in mixed for place in places})
    note = ""
    if len(shown) < sum(_occurs(counts, place) for place in range(len(labels))):
        note = " Only categories that were mixed up are in the table; all others were always right."
    return (
        f'<p class="quiet">The commonest mix-ups first; what is none of the named categories counts as (others).{note}'
        f"</p>\n<ul>{said}</ul>\n{_table(labels, counts, shown)}"
    )


def _occurs(counts: list[list[int]], place: int) -> bool:
    return bool(sum(counts[place]) or sum(row[place] for row in counts))


def _shown(counts: list[list[int]], mixed: set[int]) -> list[int]:
    occurring = [place for place in range(len(counts)) if _occurs(counts, place)]
    return occurring if len(occurring) <= MAX_WHOLE else [place for place in occurring if place in mixed]


def _table(labels: list[str], counts: list[list[int]], shown: list[int]) -> str:
    last = len(labels) - 1
    heads = "".join(f'<th scope="col"><span>{_short(labels[place])}</span></th>' for place in shown)
    lines = "\n".join(
        f'<tr><th scope="row">{_short(labels[true])}</th>'
        + "".join(_cell(counts[true][said], sum(counts[true]), _kind(true, said, last)) for said in shown)
        + f"<td>{sum(counts[true]):,}</td></tr>"
        for true in shown
    )
    caption = "True category (rows) and predicted category (columns)"
    return scroll(
        f'<table class="figures confusion"><caption><span>{caption}</span></caption>\n'
        f'<thead><tr><th scope="col">true ↓ predicted →</th>{heads}<th scope="col"><span>products</span></th></tr>'
        f"</thead>\n<tbody>\n{lines}\n</tbody></table>",
        caption,
    )


def _kind(true: int, said: int, last: int) -> str:
    """(others) for (others) may be right or wrong."""
    return "miss" if true != said else "hit" if true < last else "open"


def _cell(count: int, total: int, kind: str) -> str:
    """Darker for a larger share of the row; right ones in another colour, and framed."""
    if not count:
        return '<td class="none">0</td>'
    shade = max(1, round(SHADES * count / total)) if total else 1
    return f'<td class="{kind} shade-{shade}">{count:,}</td>'


def _short(label: str) -> str:
    return escape(label if len(label) <= MAX_NAME else f"{label[: MAX_NAME - 1]}…")
