"""Which products the page shows: the worst and the best. All of them are in the gallery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from appraiser.evaluation.report.cards import card
from appraiser.evaluation.report.judged import Judged
from appraiser.pages.words import escape

T = TypeVar("T")
CARDS_PER_END = 24


def evenly(items: Sequence[T], count: int) -> list[T]:
    """At most `count` items, evenly spread over the sequence."""
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def choose_cards(judged: Sequence[Judged]) -> list[tuple[str, str, list[Judged]]]:
    """(heading, note, products) of the card sections: all products if these are few, else the worst and the best.

    Args:
        judged: worst first.
    """
    order = f"Ordered by {order_in_words(judged)}."
    if len(judged) <= 2 * CARDS_PER_END:
        return [("All products, worst first", order, list(judged))]
    worst, best = judged[:CARDS_PER_END], judged[-CARDS_PER_END:]
    return [
        (f"The {len(worst)} worst products", order, list(worst)),
        (f"The {len(best)} best products", "Best first.", list(reversed(best))),
    ]


def order_in_words(judged: Sequence[Judged]) -> str:
    """What `Judged.badness` is the mean of, for the fields at hand."""
    known = {"price": "price error (at most 100 %)", "title": "title unlikeness (1 - chrF / 100)"}
    terms = [known.get(c.field, f"{c.field} wrong (0 or 1)") for c in judged[0].comparisons if c.distance is not None]
    if len(terms) > 1:
        return "the mean of " + ", ".join(terms)
    return terms[0] if terms else "answers that cannot be read"


def card_section(note: str, products: Sequence[Judged], gallery: str | None) -> str:
    """Cards under a note, and where the others are."""
    more = f' <a class="more" href="{escape(gallery)}">All products are in the gallery.</a>' if gallery else ""
    cards = "\n".join(card(product) for product in products)
    return f'<p class="quiet">{escape(note)}{more}</p>\n<div class="cards">\n{cards}\n</div>'
