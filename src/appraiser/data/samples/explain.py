"""Where one item's title and price come from: which attribute made which word, and how many dollars."""

from __future__ import annotations

import math
from dataclasses import dataclass

from appraiser.data.samples import pricing
from appraiser.data.samples.attributes import TYPES, resolved_category
from appraiser.data.samples.items import CatalogueItem
from appraiser.data.samples.titles import HARDWARE_WORDS, capitals, make_title


@dataclass(frozen=True)
class Step:
    """One attribute's share in an item.

    Args:
        word: what it puts into the title; empty if it has no word.
        factor: what it multiplies the price by; None for the base price.
        dollars: what it adds to the price of the steps before it.
        price: price after this step.
    """

    attribute: str
    value: str
    word: str
    factor: float | None
    dollars: float
    price: float


@dataclass(frozen=True)
class Explanation:
    """An item's title and price, step by step; the last price is the one in the table."""

    item: int
    title: str
    category: str
    oracle_price: float
    price: float
    steps: tuple[Step, ...]


def explain_item(entry: CatalogueItem) -> Explanation:
    """Explain an item: attributes that move the price first, then those that only have a word, then the shop."""
    product = entry.product
    words = {
        "type": TYPES[product.type].noun,
        "material": capitals(product.material),
        "size": "" if product.size == "regular" else capitals(product.size),
        "hardware": HARDWARE_WORDS[product.hardware],
        "pattern": "" if product.pattern == "plain" else capitals(product.pattern),
    }
    steps: list[Step] = []
    price = 0.0
    for attribute, (value, effect) in zip(words, pricing.explain(product), strict=True):
        before, price = price, math.exp(effect) * (price or 1.0)
        factor = math.exp(effect) if steps else None
        steps.append(Step(attribute, value, words[attribute], factor, price - before, price))
    steps.append(Step("colour", product.colour, capitals(product.colour), 1.0, 0.0, price))
    if product.line_name:
        steps.append(Step("line name", product.line_name, product.line_name, 1.0, 0.0, price))
    # What no picture shows: the shop's own noise, and its rounding to tens.
    steps.append(Step("the shop", "", "", entry.price / price, entry.price - price, float(entry.price)))
    return Explanation(
        entry.item, make_title(product), resolved_category(product), round(price, 2), entry.price, tuple(steps)
    )


def as_text(explanation: Explanation) -> str:
    """The explanation as a table for the terminal."""
    lines = [f"item {explanation.item}: {explanation.title}  [{explanation.category}]  {explanation.price} USD"]
    lines.append(f"{'attribute':<10} {'value':<14} {'word in title':<14} {'factor':>7} {'dollars':>9} {'price':>9}")
    for step in explanation.steps:
        factor = "" if step.factor is None else f"{step.factor:.3f}"
        lines.append(
            f"{step.attribute:<10} {step.value:<14} {step.word or '-':<14} {factor:>7} {step.dollars:>+9.0f} "
            f"{step.price:>9.0f}"
        )
    lines.append(f"An oracle that sees everything but the noise says {explanation.oracle_price:.0f} USD.")
    return "\n".join(lines)
