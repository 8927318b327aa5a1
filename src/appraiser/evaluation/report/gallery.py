"""The page beside the report that shows every scored product, a few at a time, found by filters.

The products are data inside the page: gallery.js draws the cards that are looked at. Nothing is loaded.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from appraiser.evaluation.evaluate import EvalResult
from appraiser.evaluation.report.cards import badges, details, raw_answer
from appraiser.evaluation.report.judged import Comparison, Judged, judge
from appraiser.evaluation.report.page import display_name, looks
from appraiser.evaluation.report.products import evenly, order_in_words
from appraiser.pages.page import render_page
from appraiser.pages.thumbnails import picture_uri
from appraiser.pages.words import escape, shorten

MAX_PRODUCTS = 5000
THUMBNAIL_SIDE, MAX_THUMBNAIL_BYTES = 96, 3500
"""2,000 products stay below 12 MB: a picture of 3,500 bytes is 4,667 letters of the page."""
PRICE_ERRORS = (
    ("10", "at most 10 % off"), ("20", "10 to 20 % off"), ("50", "20 to 50 % off"), ("more", "more than 50 % off"),
    ("high", "more than 20 % too high"), ("low", "more than 20 % too low"), ("none", "no price to compare"),
)  # fmt: skip
ORDERS = (("worst", "worst first"), ("best", "best first"), ("row", "as in the split"), ("unsure", "most unsure first"))

Choices = Sequence[tuple[str, str]]


def render_gallery(result: EvalResult, report: str = "report.html") -> str:
    """The whole page.

    Args:
        report: relative address of the report.
    """
    judged = judge(result.records, result.predictions, result.scores, result.neighbours)
    shown = evenly(judged, MAX_PRODUCTS)
    return render_page(
        f"All products of {display_name(result.scores['model'])}",
        _top(result, judged, len(shown), report) + _filters(shown) + _FRAME + _data(shown),
        style=looks("cards.css") + looks("gallery.css"),
        script=looks("gallery.js"),
    )


_PAGER = """<nav class="pager" aria-label="{}" hidden><button type="button" class="previous">Previous</button>
<span aria-hidden="true">page</span> <select class="page" aria-label="Page"></select> <span class="pages"></span>
<button type="button" class="next">Next</button></nav>"""
_FRAME = f"""
<h2 id="found" tabindex="-1">Products</h2>
<p id="count" role="status"></p>
{_PAGER.format("Pages")}
<div class="cards" id="cards"></div>
{_PAGER.format("Pages, again")}
"""


def _top(result: EvalResult, judged: Sequence[Judged], num_shown: int, report: str) -> str:
    scores = result.scores
    capped = ""
    if num_shown < len(judged):
        capped = (
            f'<p class="warning">{num_shown:,} of the {len(judged):,} scored products are on this page, evenly chosen '
            "from the worst to the best.</p>"
        )
    order = f"Worst first is by {order_in_words(judged)}. " if judged else ""
    return (
        f'<p class="lead">{len(judged):,} products of the <strong>{escape(scores["split"])}</strong> split. '
        f'{escape(order)}<a href="{escape(report)}">Back to the report</a></p>\n{capped}'
        '<noscript><p class="warning">This page needs its script to show the products; it loads nothing else.</p>'
        "</noscript>"
    )


def _filters(judged: Sequence[Judged]) -> str:
    """The controls that make sense for these products."""
    fields = [comparison.field for comparison in judged[0].comparisons] if judged else []
    answers = [
        ("right", "all right"), ("near", "nearly right"), ("wrong", "something wrong"),
        *((f"wrong:{field}", f"wrong {field}") for field in fields),
    ]  # fmt: skip
    categories = Counter(product.record.category for product in judged if product.record.category)
    controls = [
        '<div><label for="text">search</label>'
        '<input type="search" id="text" autocomplete="off" spellcheck="false"></div>',
        _select("answer", "answer", [("", "any"), *answers]),
    ]
    if len(categories) > 1:
        named = [(name, f"{shorten(name)} ({count:,})") for name, count in sorted(categories.items())]
        controls.append(_select("category", "true category", [("", "all"), *named]))
    if "price" in fields:
        controls.append(_select("price", "price", [("", "any"), *PRICE_ERRORS]))
    orders = ORDERS if any(_unsure(product) is not None for product in judged) else ORDERS[:-1]
    controls.append(_select("order", "order", orders))
    controls.append('<button type="button" id="clear">Clear filters</button>')
    return f'<div class="filters" role="search" aria-label="Filters">\n{"".join(controls)}\n</div>'


def _select(name: str, label: str, choices: Choices) -> str:
    options = "".join(f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in choices)
    return f'<div><label for="{name}">{label}</label><select id="{name}">{options}</select></div>'


def _data(judged: Sequence[Judged]) -> str:
    """The products, worst first, as JSON that cannot end its element or open another."""
    text = json.dumps([_product(product) for product in judged], ensure_ascii=False, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return f'<script type="application/json" id="products">{text}</script>'


def _product(product: Judged) -> dict[str, Any]:
    """What gallery.js reads; texts are plain."""
    return {
        "number": product.row + 1,
        "id": shorten(product.record.id),
        "name": shorten(product.name),
        "image": picture_uri(product.record.images[0], THUMBNAIL_SIDE, MAX_THUMBNAIL_BYTES),
        "mark": product.mark,
        "badges": badges(product),
        "fields": [_field(comparison) for comparison in product.comparisons],
        "category": product.record.category,
        "priceError": _price_error(product),
        "unsure": _unsure(product),
        "answer": raw_answer(product),
        "details": details(product),
    }


def _field(comparison: Comparison) -> dict[str, Any]:
    return {
        "name": comparison.field,
        "true": comparison.true,
        "said": comparison.predicted,
        "mark": comparison.mark,
        "off": comparison.off,
        "interval": comparison.interval,
    }


def _price_error(product: Judged) -> float | None:
    """Signed, as a share of the true price; None where either is missing, or in another currency."""
    true, said = product.record.price, product.prediction.price
    off = next((c.off for c in product.comparisons if c.field == "price"), "")
    if not (true and said is not None and off):
        return None
    error = (said - true) / true
    return round(error, 4) if math.isfinite(error) else None


def _unsure(product: Judged) -> float | None:
    unsure = product.prediction.uncertainty
    return None if unsure is None or not math.isfinite(unsure) else round(unsure, 4)
