"""How far this model is ahead of every rival, product by product; and whether it needs the picture at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from appraiser.evaluation.metrics import Score
from appraiser.evaluation.report.tables import dot, figure_table
from appraiser.evaluation.report.words import (
    CHEAP,
    MODELS,
    WRONG_PICTURES,
    Metric,
    Unit,
    chance,
    gain_number,
    gain_unit,
    methods,
    metric_of,
    shown_fields,
)
from appraiser.evaluation.verdict import LEAK_SHARE, MAX_P_VALUE, rim_share
from appraiser.pages.words import escape

Gains = dict[str, dict[str, Any]]
"""Field -> {"metric", "gain", "p_value"}."""


def lead_section(scores: dict[str, Any]) -> str:
    """The lead over the model before, other models and cheap methods."""
    table = _gain_table("Lead of this model over each method", _rivals(scores, (MODELS, CHEAP)), scores)
    if not table:
        return ""
    return (
        '<p class="quiet">Both are scored on the same products, so what makes products hard for everybody falls out. '
        "▲ ahead, ▼ behind: the whole 95 % interval, which stands below the number, is above or below 0. p: how often "
        f"chance alone would make this model look so much better. The line in each drawing is 0.</p>\n{table}"
    )


def picture_section(scores: dict[str, Any]) -> str:
    """What the right picture is worth, against every wrong one."""
    rivals = _rivals(scores, (WRONG_PICTURES,))
    table = _gain_table("What the right picture is worth, against wrong ones", rivals, scores)
    if not table:
        return ""
    said = [*_needs(scores), *_rims(scores)]
    listed = f'<ul class="checks">{"".join(f"<li>{sentence}</li>" for sentence in said)}</ul>' if said else ""
    return (
        '<p class="quiet">The same model is shown wrong pictures. The more it loses by that, the more it has from the '
        "picture; near 0, it answers without looking.</p>\n"
        f"{listed}\n{table}"
    )


def _rivals(scores: dict[str, Any], groups: Sequence[str]) -> list[tuple[str, Gains]]:
    found = dict(scores.get("differences", {}))
    if "against" in scores:
        found["against"] = scores["against"].get("differences", {})
    return [(m.name, found[m.key]) for m in methods(scores) if m.group in groups and found.get(m.key)]


def _gain_table(caption: str, rivals: Sequence[tuple[str, Gains]], scores: dict[str, Any]) -> str:
    fields = [field for field in shown_fields(scores) if any(field in gains for _, gains in rivals)]
    if not fields:
        return ""
    metrics = {
        field: metric_of(field, next(gains[field]["metric"] for _, gains in rivals if field in gains))
        for field in fields
    }
    ends = {
        field: [0.0, *(g[field]["gain"][end] for _, g in rivals if field in g for end in ("low", "high"))]
        for field in fields
    }
    rows = [
        (escape(name), [_gain_cell(gains.get(field), metrics[field].unit, ends[field]) for field in fields])
        for name, gains in rivals
    ]
    return figure_table(caption, ["method", *(_head(metrics[field]) for field in fields)], rows, "gains")


def _head(metric: Metric) -> str:
    return f"{escape(metric.field)}: {escape(metric.label)}<small>{gain_unit(metric.unit)}</small>"


def _gain_cell(found: dict[str, Any] | None, unit: Unit, ends: Sequence[float]) -> str:
    if found is None:
        return "—"
    gain: Score = found["gain"]
    kind, sign, word = outcome(gain)
    spread = f"{gain_number(gain['low'], unit)} to {gain_number(gain['high'], unit)}"
    return (
        f'<span class="{kind}">{gain_number(gain["value"], unit)} <strong>{sign} {word}</strong></span>'
        f"<small>{spread}; {chance(found['p_value'])}</small>{dot(gain, min(ends), max(ends), 0.0)}"
    )


def outcome(gain: Score) -> tuple[str, str, str]:
    """(class, sign, word) of a paired difference."""
    if gain["low"] > 0:
        return "right", "▲", "ahead"
    if gain["high"] < 0:
        return "wrong", "▼", "behind"
    return "near", "≈", "may be chance"


def _needs(scores: dict[str, Any]) -> list[str]:
    """Field by field: is it worse with another product's picture?"""
    gains = scores.get("differences", {}).get("shuffled", {})
    said = []
    for field in (field for field in shown_fields(scores) if field in gains):
        found = gains[field]
        needs = found["gain"]["low"] > 0 and found["p_value"] <= MAX_P_VALUE
        start = "✓ The picture is needed" if needs else "✗ The picture may not be needed"
        said.append(f"{start} for the {escape(field)} (against another product's: {chance(found['p_value'])}).")
    return said


def _rims(scores: dict[str, Any]) -> list[str]:
    said = []
    for field in shown_fields(scores):
        share = rim_share(scores, field)
        if share is not None:
            sign = "✗" if share > LEAK_SHARE else "✓"
            said.append(
                f"{sign} {max(0.0, share):.0%} of what the picture tells about the {escape(field)} is in its rim alone."
            )
    return said
