"""Scores of parts of the products, with the parts that are worse than usual marked."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from appraiser.evaluation.metrics import Score
from appraiser.evaluation.report.tables import drawn_cell, figure_table
from appraiser.evaluation.report.words import Metric, lookup, metric_of, shown_fields
from appraiser.evaluation.slices import OTHERS
from appraiser.pages.words import escape, shorten

Slice = dict[str, Any]
IN_ORDER = ("price band", "picture size")
"""Cuts whose order means something; the others show the worst first."""


def slices_section(scores: dict[str, Any], gallery: str | None) -> str:
    """One table per cut; categories lead to their products in the gallery."""
    cuts = scores.get("slices") or {}
    if not cuts:
        return ""
    tables = "\n".join(_cut(name, parts, scores, gallery) for name, parts in cuts.items())
    return (
        '<p class="quiet">A good average can hide a part that goes wrong. The line in each drawing is the value for '
        "all products. ▼ worst: the worst of its column. ✗ worse than usual: even its whole interval is worse than "
        f"that line.</p>\n{tables}"
    )


def _cut(name: str, parts: list[Slice], scores: dict[str, Any], gallery: str | None) -> str:
    metrics = [
        metric_of(field, next(iter(parts[0]["scores"][field])))
        for field in shown_fields(scores)
        if field in parts[0]["scores"]
    ]
    if name not in IN_ORDER and metrics:
        parts = sorted(parts, key=lambda part: -_badness(part, metrics[0]))
    rows = [
        (
            _name(name, part["name"], gallery),
            [f"{part['n']:,}", *(_cell(part, parts, metric, scores) for metric in metrics)],
        )
        for part in parts
    ]
    heads = [escape(name), "products", *(f"{escape(m.field)}: {escape(m.label)}{m.arrow}" for m in metrics)]
    order = "" if name in IN_ORDER or not metrics else f", worst {metrics[0].field} first"
    return figure_table(f"By {name}{order}", heads, rows, "slices")


def _name(cut: str, name: str, gallery: str | None) -> str:
    shown = escape(shorten(name))
    if cut != "category" or gallery is None or name == OTHERS:
        return shown
    return f'<a href="{escape(f"{gallery}#{urlencode({cut: name})}")}">{shown}</a>'


def _score(part: Slice, metric: Metric) -> Score:
    found: Score = part["scores"][metric.field][metric.key]
    return found


def _badness(part: Slice, metric: Metric) -> float:
    return _score(part, metric)["value"] * (1 if metric.lower_is_better else -1)


def _cell(part: Slice, parts: list[Slice], metric: Metric, scores: dict[str, Any]) -> str:
    score, usual = _score(part, metric), lookup(scores, metric)
    top = max(_score(other, metric)["high"] for other in parts)
    low = 0.0 if metric.lower_is_better else min(_score(other, metric)["low"] for other in parts)
    marks = ""
    worst = max(_badness(other, metric) for other in parts)
    if _badness(part, metric) == worst and worst > min(_badness(other, metric) for other in parts):
        marks += ' <strong class="near">▼ worst</strong>'
    if usual is not None and _is_worse(score, usual["value"], metric):
        marks += ' <strong class="wrong">✗ worse than usual</strong>'
    return drawn_cell(score, metric.unit, low, top, usual and usual["value"]) + marks


def _is_worse(score: Score, usual: float, metric: Metric) -> bool:
    return score["low"] > usual if metric.lower_is_better else score["high"] < usual
