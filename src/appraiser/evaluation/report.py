"""EvalResult -> one HTML page that needs nothing else: no network, no script; pictures and plots are inside.

Order of the page: what to believe (verdict and three figures), how it compares, prices, products worst first, facts.
Wording is in report_words.py, drawings in report_plots.py, product cards in report_cards.py, looks in report.css;
the frame is `pages`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from appraiser.evaluation.evaluate import EvalResult
from appraiser.evaluation.report_cards import Judged, card, judge
from appraiser.evaluation.report_plots import MAX_POINTS, PricePoint, bars, mark_shape, price_scatter, scale_of
from appraiser.evaluation.report_words import (
    METRICS,
    MORE_METRICS,
    Method,
    Metric,
    lookup,
    methods,
    number,
    short_span,
    span,
    unnamed,
)
from appraiser.pages.page import facts_table, render_page, with_sections
from appraiser.pages.words import escape, shorten

T = TypeVar("T")
OTHERS = "Other products"
CARDS_PER_END = 24
MAX_CARDS = 300
HEADLINES = (
    ("Median price error", ("median_ape",), "Half of the prices are closer to the truth; shorter bars are better."),
    ("Categories right", ("accuracy",), "Exactly the true category."),
    ("Titles", ("visible_words", "chrf"), ""),
)
# Shown in the facts under these words; other plain values of `scores` follow under their own key.
FACTS = {
    "model": "Model", "dataset": "Data set", "dataset_sha256": "Data set hash (SHA-256)", "split": "Split",
    "n": "Products scored", "seconds": "Seconds", "products_per_s": "Products per second",
    "appraiser": "appraiser version", "format": "Report format",
}  # fmt: skip


def render_report(result: EvalResult) -> str:
    """The whole page. Every text that comes from data is escaped; parts without scores are left out."""
    scores, judged = result.scores, judge(result.records, result.predictions, result.scores)
    shown = choose_cards(judged)
    all_shown = [product for _, _, products in shown for product in products]
    sections = [
        ("numbers", "How it compares", comparison_table(scores)),
        ("prices", "Prices", price_section(result, {product.row for product in all_shown})),
        *(
            (f"products-{i}", heading, card_section(heading, note, products))
            for i, (heading, note, products) in enumerate(shown)
        ),
        ("facts", "Facts", facts(scores)),
        ("units", "How to read the numbers", glossary(scores)),
    ]
    return render_page(
        f"Evaluation of {display_name(scores['model'])}",
        with_sections(top(result), sections),
        style=resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8"),
    )


def display_name(path: str) -> str:
    """What people call a model: `runs/demo` for its checkpoint `runs/demo/checkpoints/step-4`."""
    parts = Path(path).parts
    if "checkpoints" in parts:
        parts = parts[: parts.index("checkpoints")]
    return "/".join(parts[-2:]).lstrip("/") or path


def top(result: EvalResult) -> str:
    """Verdict and headline figures: all that many readers will read."""
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
    tiles = "\n".join(tile for tile in (_tile(scores, *headline) for headline in HEADLINES) if tile)
    return f'{lead}\n{warning}\n<div class="tiles">\n{tiles}\n</div>\n{listed}'


def is_loud(sentence: str) -> bool:
    """Whether a sentence of the verdict speaks against the model."""
    return sentence.startswith("WARNING") or "do NOT" in sentence


def _tile(scores: dict[str, Any], label: str, keys: Sequence[str], note: str) -> str:
    known = [(metric, lookup(scores, metric)) for key in keys for metric in METRICS if metric.key == key]
    scored = [(metric, score) for metric, score in known if score is not None]
    if not scored:
        return ""
    metric, score = scored[0]
    if metric.field == "title":
        label = "Visible title words right" if metric.key == "visible_words" else "Title likeness (chrF, of 100)"
        note = metric.explanation
    rows = rivals(scores, metric)
    chart = bars(rows, metric.unit) if len(rows) > 1 else ""
    return (
        f'<section class="tile"><h2>{label}</h2><p class="big">{number(score["value"], metric.unit)}</p>'
        f'<p class="quiet">95 % interval {span(score, metric.unit)}</p><p>{escape(note)}</p>{chart}</section>'
    )


def rivals(scores: dict[str, Any], metric: Metric) -> list[tuple[str, Any]]:
    """What a figure is best seen beside: the bound, the best baseline, the model before, and wrong pictures."""
    scored = [(method, found) for method in methods(scores) if (found := lookup(method.part, metric))]
    sign = 1 if metric.lower_is_better else -1
    cheap = [(m, s) for m, s in scored if m.group.startswith("Baselines")]
    chosen = [(m, s) for m, s in scored if m.group == "Bound" or m.part is scores]
    chosen += [(_renamed(m, "best baseline"), s) for m, s in sorted(cheap, key=lambda row: sign * row[1]["value"])[:1]]
    chosen += [(m, s) for m, s in scored if m.name in ("Before fine-tuning", "Another product's picture")]
    return [(method.name, score) for method, score in chosen]


def _renamed(method: Method, role: str) -> Method:
    return Method(method.group, f"{method.name} ({role})", method.explanation, method.part)


def comparison_table(scores: dict[str, Any]) -> str:
    """Every method in every main metric, and what each method is."""
    rows = methods(scores)
    columns = [metric for metric in METRICS if any(lookup(method.part, metric) for method in rows)]
    bodies = "\n".join(
        _row_group(group, list(members), columns, scores) for group, members in groupby(rows, key=lambda m: m.group)
    )
    known = "\n".join(f"<dt>{escape(m.name)}</dt><dd>{escape(m.explanation)}</dd>" for m in rows)
    return f"""<p class="quiet">Value, and its 95 % interval below it. ↓ lower is better, ↑ higher is better. \
▲ ahead of this model.</p>
<div class="scroll" role="region" aria-label="Table of all methods" tabindex="0">
<table class="methods">
<caption><span>All methods on the same {scores["n"]:,} products</span></caption>
<thead>
{_heads(columns)}
</thead>
{bodies}
</table></div>
<dl class="known">
{known}
</dl>"""


def _heads(columns: Sequence[Metric]) -> str:
    fields = [(field, len(list(members))) for field, members in groupby(columns, key=lambda metric: metric.field)]
    upper = "".join(
        f'<th scope="colgroup" colspan="{count}">{escape(field or "answer")}</th>' for field, count in fields
    )
    lower = "".join(f'<th scope="col">{escape(m.label)} {"↓" if m.lower_is_better else "↑"}</th>' for m in columns)
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
    return f"<td>{ahead}{number(score['value'], metric.unit)}<small>{short_span(score, metric.unit)}</small></td>"


def price_section(result: EvalResult, rows_with_cards: set[int]) -> str:
    """The scatter with its legend; nothing where prices were not scored."""
    if "price" not in result.scores:
        return ""
    points = [
        PricePoint(
            record.title or f"product {record.id}", record.price, prediction.price, prediction.price_interval,
            f"product-{row + 1}" if row in rows_with_cards else None,
        )
        for row, (record, prediction) in enumerate(zip(result.records, result.predictions, strict=True))
        if record.price and prediction.price
    ]  # fmt: skip
    if not points:
        return "<p>No answer had a price that could be drawn.</p>"
    drawn = evenly(points, MAX_POINTS)
    currencies = {record.currency for record in result.records}
    currency = currencies.pop() if len(currencies) == 1 else None
    legend = _legend(
        result.scores, drawn, num_missing=len(result.records) - len(points), num_left_out=len(points) - len(drawn)
    )
    return f'<figure class="prices">\n{price_scatter(drawn, currency)}\n<figcaption>{legend}</figcaption></figure>'


def _legend(scores: dict[str, Any], points: Sequence[PricePoint], num_missing: int, num_left_out: int) -> str:
    items = [
        (mark_shape(9, 9, near=True), "at most 20 % off"),
        (mark_shape(9, 9, near=False), "more than 20 % off"),
        ('<path class="diagonal" d="M1 16L17 2"/>', "predicted = true"),
        ('<rect class="band" x="1" y="4" width="16" height="10"/>', "within 20 % of the truth"),
    ]
    scale = scale_of(points)
    if any(scale.is_clipped(point) for point in points):
        items.append((mark_shape(9, 11, near=False, clipped=True), "prediction beyond the axis"))
    if any(point.interval for point in points):
        items.append(('<path class="interval strong" d="M9 1V17"/>', "80 % interval of a prediction"))
    listed = "".join(
        f'<li><svg viewBox="0 0 18 18" aria-hidden="true">{shape}</svg>{text}</li>' for shape, text in items
    )
    notes = ["Each mark is a product. Point at it for its name; follow it to its card where it has one."]
    coverage = scores["price"].get("interval_80_coverage")
    if coverage:
        value = number(coverage["value"], "share")
        notes.append(
            f"{value} of the true prices lie inside their 80 % interval (95 % interval {span(coverage, 'share')})."
        )
    if num_missing:
        notes.append(f"{num_missing:,} products are not drawn: no price could be read, or it was 0.")
    if num_left_out:
        notes.append(f"{len(points):,} of the prices are drawn, evenly chosen; {num_left_out:,} more were scored.")
    return f'<ul class="legend">{listed}</ul>' + "".join(f"<p>{note}</p>" for note in notes)


def evenly(items: Sequence[T], count: int) -> list[T]:
    """At most `count` items, evenly spread over the sequence."""
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def choose_cards(judged: Sequence[Judged]) -> list[tuple[str, str, list[Judged]]]:
    """(heading, note, products) of the card sections: the worst, the best, and others up to MAX_CARDS in all.

    Args:
        judged: worst first.
    """
    order = f"Ordered by {_order(judged)}."
    if len(judged) <= 2 * CARDS_PER_END:
        return [("All products, worst first", order, list(judged))]
    worst, middle, best = judged[:CARDS_PER_END], judged[CARDS_PER_END:-CARDS_PER_END], judged[-CARDS_PER_END:]
    others = evenly(middle, MAX_CARDS - 2 * CARDS_PER_END)
    note = (
        "" if len(others) == len(middle) else f"{len(others):,} of the other {len(middle):,} products, evenly chosen."
    )
    chosen = [
        (f"The {len(worst)} worst products", order, list(worst)),
        (f"The {len(best)} best products", "Best first.", list(reversed(best))),
    ]
    return [*chosen, (OTHERS, f"{note} Worst first.".strip(), others)] if others else chosen


def _order(judged: Sequence[Judged]) -> str:
    """What `Judged.badness` is the mean of, for the fields at hand."""
    known = {"price": "price error (at most 100 %)", "title": "title unlikeness (1 - chrF / 100)"}
    terms = [known.get(c.field, f"{c.field} wrong (0 or 1)") for c in judged[0].comparisons if c.distance is not None]
    if len(terms) > 1:
        return escape("the mean of " + ", ".join(terms))
    return escape(terms[0]) if terms else "answers that cannot be read"


def card_section(heading: str, note: str, products: Sequence[Judged]) -> str:
    """Cards under a note (HTML); the other products are folded."""
    cards = '<div class="cards">\n' + "\n".join(card(product) for product in products) + "\n</div>"
    if heading == OTHERS:
        cards = f'<details class="fold"><summary>Show {len(products):,} products</summary>\n{cards}\n</details>'
    return f'<p class="quiet">{note}</p>\n{cards}'


def facts(scores: dict[str, Any]) -> str:
    """What was evaluated, with what, and the numbers that are not in the table."""
    plain = {key: value for key, value in scores.items() if isinstance(value, str | int | float) and key not in FACTS}
    rows = [(label, scores[key]) for key, label in FACTS.items() if key in scores]
    rows += [(key.replace("_", " "), value) for key, value in plain.items()]
    for metric in MORE_METRICS:
        score = lookup(scores, metric)
        if score is not None:
            rows.append((metric.name, f"{number(score['value'], metric.unit)} ({span(score, metric.unit)})"))
    rows += [(path, f"{number(s['value'], 'plain')} ({span(s, 'plain')})") for path, s in unnamed(scores)]
    return facts_table([(label, _fact(value)) for label, value in rows], "Facts of this evaluation")


def _fact(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,}"
    return escape(shorten(str(value)))


def glossary(scores: dict[str, Any]) -> str:
    """What the metrics on this page mean."""
    used = [m for m in (*METRICS, *MORE_METRICS) if any(lookup(method.part, m) for method in methods(scores))]
    terms = [(metric.name, metric.explanation) for metric in used]
    terms.append((
        "95 % interval",
        "Where the number would fall in 95 % of repetitions with other products of the same kind (bootstrap over the "
        "scored products). Two methods differ clearly when their intervals do not overlap.",
    ))  # fmt: skip
    lines = "\n".join(f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>" for term, meaning in terms)
    return f'<dl class="known">\n{lines}\n</dl>'
