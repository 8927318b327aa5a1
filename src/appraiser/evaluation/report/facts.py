"""What was evaluated, with what: figures that are in no table, data, settings, versions; and what the words mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from appraiser.evaluation.report.tables import figure_table
from appraiser.evaluation.report.words import (
    METRICS,
    MORE_METRICS,
    lookup,
    methods,
    number,
    other_metrics,
    span,
    unnamed,
)
from appraiser.pages.page import facts_table
from appraiser.pages.words import escape, shorten

FACTS = {
    "model": "Model", "dataset": "Data set", "dataset_sha256": "Data set hash (SHA-256)", "split": "Split",
    "n": "Products scored", "baseline_records": "Training products known to the baselines",
    "price_point": "Price that is answered", "closed": "Fields answered from the values of training",
    "seconds": "Seconds", "products_per_s": "Products per second", "device": "Device",
    "appraiser": "appraiser version", "format": "Report format",
}  # fmt: skip
"""Shown under these words; other plain values of `scores` follow under their own key."""
DATA_FACTS = {
    "source": "Source", "licence": "Licence", "rows_in": "Rows of the source", "kept": "Rows kept",
    "quarantined": "Rows left out", "quarantined_by_reason": "Left out, by reason", "splits": "Splits",
    "groups": "Product groups (never split up)", "currencies": "Products scored, by currency",
    "row_split_leak": "Test products with a look-alike in training, had rows been split at random",
    "num_crops": "Crops per picture", "seed": "Seed of the split",
}  # fmt: skip


def more_figures(scores: dict[str, Any]) -> str:
    """Figures of this model alone."""
    rows = [
        (escape(metric.name) + metric.arrow, [number(score["value"], metric.unit), span(score, metric.unit)])
        for metric in MORE_METRICS
        if (score := lookup(scores, metric)) is not None
    ]
    rows += [
        (escape(shorten(path)), [number(s["value"], "plain"), span(s, "plain")]) for path, s in unnamed(scores)
    ]  # fmt: skip
    if not rows:
        return ""
    return figure_table("More figures of this model", ["figure", "value", "95 % interval"], rows, "more-figures")


def facts(scores: dict[str, Any]) -> str:
    """The evaluation, its data, its software, and the folded settings of the run."""
    plain = [key for key, value in scores.items() if isinstance(value, str | int | float) and key not in FACTS]
    rows = [(label, scores[key]) for key, label in FACTS.items() if key in scores]
    rows += [(key.replace("_", " "), scores[key]) for key in plain]
    tables = [("Evaluation", rows)]
    data = scores.get("data") or {}
    named = [(DATA_FACTS.get(key, key.replace("_", " ")), _data_value(key, value)) for key, value in data.items()]
    tables.append(("Data", [(label, value) for label, value in named if value not in (None, "", {})]))
    tables.append(("Versions", list((scores.get("versions") or {}).items())))
    parts = [_titled(caption, rows) for caption, rows in tables if rows]
    settings = list(flat(scores.get("settings") or {}))
    if settings:
        table = facts_table([(key, _fact(value)) for key, value in settings], "Settings of the run")
        parts.append(
            f'<details class="fold"><summary>Settings of the run ({len(settings):,})</summary>\n{table}</details>'
        )
    return "\n".join(parts)


def _titled(caption: str, rows: list[tuple[str, Any]]) -> str:
    table = facts_table([(label, _fact(value)) for label, value in rows], f"{caption}: facts")
    return f"<h3>{escape(caption)}</h3>\n{table}"


def _data_value(key: str, value: Any) -> Any:
    if key == "licence" and value is None:
        return "not stated"
    if key == "row_split_leak" and isinstance(value, int | float):
        return f"{value:.1%}"
    return value


def _fact(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, Mapping):
        return escape(shorten(" · ".join(f"{key} {_plain(item)}" for key, item in value.items())))
    if isinstance(value, list | tuple):
        return escape(shorten(", ".join(map(_plain, value)))) or "none"
    return "none" if value is None else escape(shorten(str(value)))


def _plain(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of nested settings."""
    for key, value in settings.items():
        path = f"{above}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{path}.")
        else:
            yield path, value


def glossary(scores: dict[str, Any]) -> str:
    """What the metrics on this page mean."""
    every = (*METRICS, *MORE_METRICS, *other_metrics(scores))
    terms = [
        (metric.name, metric.explanation)
        for metric in every
        if any(lookup(method.part, metric) for method in methods(scores))
    ]
    terms += [
        (
            "95 % interval",
            "Where the number would fall in 95 % of repetitions with other products of the same kind (bootstrap over "
            "the scored products). Two methods differ clearly when their intervals do not overlap.",
        ),
        (
            "p",
            "How often a difference as large would come about if it did not matter which of two methods answered: "
            "their results are swapped at random, product by product, 1,000 times (one-sided).",
        ),
    ]
    lines = "\n".join(f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>" for term, meaning in terms)
    return f'<dl class="known">\n{lines}\n</dl>'
