"""What the table says about an item, by the sample's own rules."""

from __future__ import annotations

from dataclasses import dataclass

from appraiser.data.samples import pricing
from appraiser.data.samples.attributes import Product, categories, resolved_category
from appraiser.data.samples.titles import make_title, visible_words

EUR_RATES = {"USD": 0.9225, "EUR": 1.0}
"""Euros for one unit; that of November 2023, as in the tables whose columns the sample has."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels but for the price, and what is known besides.

    Args:
        categories: levels 1 to 3.
        category: the most exact level that is there.
        oracle_price: the best guess from the picture, not rounded.
        is_redrawn: its first title stood in the user's own table.
    """

    title: str
    visible_words: str
    categories: tuple[str, str, str]
    category: str
    oracle_price: float
    currency: str = "USD"
    is_redrawn: bool = False


def own_labels(product: Product) -> Labels:
    """The labels of a product in an ordinary sample."""
    return Labels(
        title=make_title(product),
        visible_words=" ".join(visible_words(product)),
        categories=categories(product),
        category=resolved_category(product),
        oracle_price=pricing.oracle_price(product),
    )
