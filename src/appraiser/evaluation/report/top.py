"""The top of the page: what to believe, in sentences and in one figure per field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from appraiser.evaluation.evaluate import EvalResult
from appraiser.evaluation.report.plots import bars
from appraiser.evaluation.report.words import (
    BOUND,
    CHEAP,
    Method,
    Metric,
    headline_metric,
    lookup,
    methods,
    number,
    shown_fields,
    span,
)
from appraiser.evaluation.scores import part_fields
from appraiser.pages.words import escape


def top(result: EvalResult, gallery: str | None) -> str:
    """Verdict and headline figures: all that many readers will read.

    Args:
        gallery: where the page with all products lies, None if it was not written.
    """
    scores = result.scores
    loud = [sentence for sentence in result.verdict if is_loud(sentence)]
    calm = [sentence for sentence in result.verdict if not is_loud(sentence)]
    if scores["split"] == "train":
        loud.insert(0, "WARNING: these products were in training. The numbers say nothing about new products.")
    lead = (
        f'<p class="lead">{scores["n"]:,} products of the <strong>{escape(scores["split"])}</strong> split of '
        f"<strong>{escape(Path(scores['dataset']).name)}</strong>, answered from the picture alone.</p>"
    )
    warning = ""
    if loud:
        sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in loud)
        warning = (
            f'<div class="warning" role="note"><p><strong>⚠ Read this first</strong></p><ul>{sentences}</ul></div>'
        )
    verdict = "".join(f"<li>{escape(sentence)}</li>" for sentence in calm)
    listed = f'<ul class="verdict">{verdict}</ul>' if verdict else ""
    tiles = "\n".join(_tile(scores, headline_metric(field, scores)) for field in shown_fields(scores))
    link = ""
    if gallery:
        link = f'<p class="more"><a href="{escape(gallery)}">Page through all products, with filters</a></p>'
    return f'{lead}\n{warning}\n{listed}\n<div class="tiles">\n{tiles}\n</div>\n{link}'


def is_loud(sentence: str) -> bool:
    """Whether a sentence of the verdict speaks against the model."""
    return sentence.startswith("WARNING") or "NOT" in sentence.split()


def _tile(scores: dict[str, Any], metric: Metric) -> str:
    known = part_fields(scores)[metric.field]
    score = known[metric.key]
    rows = rivals(scores, metric)
    chart = bars(rows, metric.unit) if len(rows) > 1 else ""
    note = _note(metric) + (f" Of the {known['n']:,} products where it is known." if "n" in known else "")
    return (
        f'<section class="tile"><h2>{escape(_label(metric))}</h2>'
        f'<p class="big">{number(score["value"], metric.unit)}</p>'
        f'<p class="quiet">95 % interval {span(score, metric.unit)}</p>'
        f"<p>{escape(note)}</p>{chart}</section>"
    )


def _label(metric: Metric) -> str:
    known = {
        ("price", "median_ape"): "Median price error",
        ("category", "accuracy"): "Categories right",
        ("title", "visible_words"): "Visible title words right",
        ("title", "chrf"): "Title likeness (chrF, of 100)",
    }
    likeness = f"{metric.field.capitalize()}: likeness (chrF, of 100)" if metric.key == "chrf" else metric.name
    return known.get((metric.field, metric.key), likeness)


def _note(metric: Metric) -> str:
    if metric.field == "price":
        return "Half of the prices are closer to the truth; shorter bars are better."
    return "Exactly the true category." if metric.field == "category" else metric.explanation


def rivals(scores: dict[str, Any], metric: Metric) -> list[tuple[str, Any]]:
    """What a figure is best seen beside: the bound, the best baseline, the model before, and wrong pictures."""
    scored = [(method, found) for method in methods(scores) if (found := lookup(method.part, metric))]
    sign = 1 if metric.lower_is_better else -1
    cheap = [(m, s) for m, s in scored if m.group == CHEAP]
    chosen = [(m.name, s) for m, s in scored if m.group == BOUND or m.part is scores]
    chosen += [(_best(m), s) for m, s in sorted(cheap, key=lambda row: sign * row[1]["value"])[:1]]
    chosen += [(m.name, s) for m, s in scored if m.key in ("before", "against", "shuffled")]
    return chosen


def _best(method: Method) -> str:
    return f"{method.name} (best baseline)"
