"""The table of all methods in every main metric, and what each method is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from appraiser.evaluation.report.tables import scroll, value_cell
from appraiser.evaluation.report.words import METRICS, Method, Metric, lookup, methods, other_metrics
from appraiser.pages.words import escape


def comparison_section(scores: dict[str, Any]) -> str:
    """The usual fields in one table, others in a second one; then the methods in words."""
    rows = methods(scores)
    usual = [metric for metric in METRICS if any(lookup(method.part, metric) for method in rows)]
    others = other_metrics(scores)
    products = f"All methods on the same {scores['n']:,} products"
    tables = [_table(products, usual, rows, scores)]
    if others:
        scored = [method for method in rows if any(lookup(method.part, metric) for metric in others)]
        tables.append(_table(f"{products}: other fields", others, scored, scores))
    known = "\n".join(f"<dt>{escape(m.name)}</dt><dd>{escape(m.explanation)}</dd>" for m in rows)
    listed = "\n".join(tables)
    return f"""<p class="quiet">Value, and its 95 % interval below it. ↓ lower is better, ↑ higher is better. \
▲ ahead of this model.</p>
{listed}
<details class="fold"><summary>What each method is</summary>
<dl class="known">
{known}
</dl></details>"""


def _table(caption: str, columns: Sequence[Metric], rows: Sequence[Method], scores: dict[str, Any]) -> str:
    bodies = "\n".join(
        _row_group(group, list(members), columns, scores) for group, members in groupby(rows, key=lambda m: m.group)
    )
    return scroll(
        f'<table class="methods">\n<caption><span>{escape(caption)}</span></caption>\n'
        f"<thead>\n{_heads(columns)}\n</thead>\n{bodies}\n</table>",
        caption,
    )


def _heads(columns: Sequence[Metric]) -> str:
    fields = [(field, len(list(members))) for field, members in groupby(columns, key=lambda metric: metric.field)]
    upper = "".join(
        f'<th scope="colgroup" colspan="{count}">{escape(field or "answer")}</th>' for field, count in fields
    )
    lower = "".join(f'<th scope="col">{escape(m.label)}{m.arrow}</th>' for m in columns)
    return f'<tr><td></td>{upper}</tr>\n<tr><th scope="col">method</th>{lower}</tr>'


def _row_group(group: str, members: Sequence[Method], columns: Sequence[Metric], scores: dict[str, Any]) -> str:
    heading = (
        f'<tr class="group"><th scope="rowgroup" colspan="{len(columns) + 1}"><span>{escape(group)}</span></th></tr>'
    )
    lines = []
    for method in members:
        cells = "".join(_cell(method, metric, scores) for metric in columns)
        own = ' class="own"' if method.part is scores else ""
        lines.append(f'<tr{own}><th scope="row">{escape(method.name)}</th>{cells}</tr>')
    return "<tbody>\n" + "\n".join([heading, *lines]) + "\n</tbody>"


def _cell(method: Method, metric: Metric, scores: dict[str, Any]) -> str:
    score, own = lookup(method.part, metric), lookup(scores, metric)
    if score is None:
        return '<td class="none">—</td>'
    ahead = ""
    if method.may_lead and metric.field and own is not None:
        difference = own["value"] - score["value"]
        if (difference > 0) if metric.lower_is_better else (difference < 0):
            ahead = '<span class="ahead" title="ahead of this model">▲</span> '
    return f"<td>{ahead}{value_cell(score, metric.unit)}</td>"
