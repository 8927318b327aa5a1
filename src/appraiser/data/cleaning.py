"""Faults that only show when all rows are seen together: one picture for many products, prices far from their kind."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

PLACEHOLDER_LABELS = 5
"""A picture that stands for so many different products shows none of them. Sets and families share one among fewer."""
MIN_PRICES = 8
"""A category with fewer prices says little about what is usual; then all prices do."""
MAX_DEVIATIONS = 4.0
MIN_SPREAD = math.log(1.2)
LogPrice = tuple[int, float, str | None]
"""Place of a row, ln of its price, its category."""


@dataclass(frozen=True)
class PriceOutlier:
    """A price far from its kind: `times` is price over the typical one."""

    place: int
    typical: float
    times: float


def placeholders(pictures: Sequence[str], labels: Sequence[Hashable]) -> dict[int, int]:
    """Rows whose picture stands for many products: place -> number of different labels.

    Args:
        pictures: content hash of each row's pictures.
        labels: what makes two rows different products, such as the title up to colour words.
    """
    seen: dict[str, set[Hashable]] = defaultdict(set)
    for picture, label in zip(pictures, labels, strict=True):
        seen[picture].add(label)
    return {
        place: len(seen[picture]) for place, picture in enumerate(pictures) if len(seen[picture]) >= PLACEHOLDER_LABELS
    }


def price_outliers(
    prices: Sequence[float | None], categories: Sequence[str | None], currencies: Sequence[str | None]
) -> list[PriceOutlier]:
    """Prices more than four deviations of ln price from the median of their category, among those of one currency.

    The deviation is the median one, scaled to that of a normal distribution, so that outliers do not hide each other.
    """
    by_currency: dict[str | None, list[LogPrice]] = defaultdict(list)
    for place, (price, category, currency) in enumerate(zip(prices, categories, currencies, strict=True)):
        if price:
            by_currency[currency].append((place, math.log(price), category))
    found = [outlier for known in by_currency.values() for outlier in _outliers(known)]
    return sorted(found, key=lambda outlier: outlier.place)


def _outliers(known: Sequence[LogPrice]) -> list[PriceOutlier]:
    if len(known) < MIN_PRICES:
        return []
    by_category: dict[str | None, list[float]] = defaultdict(list)
    for _, value, category in known:
        by_category[category].append(value)
    overall = _centre([value for _, value, _ in known])
    usual = {
        category: _centre(values) if len(values) >= MIN_PRICES else overall for category, values in by_category.items()
    }
    found = []
    for place, value, category in known:
        middle, spread = usual[category]
        if abs(value - middle) > MAX_DEVIATIONS * spread:
            found.append(PriceOutlier(place, math.exp(middle), math.exp(value - middle)))
    return found


def _centre(values: Sequence[float]) -> tuple[float, float]:
    middle = statistics.median(values)
    deviation = statistics.median(abs(value - middle) for value in values)
    return middle, max(1.4826 * deviation, MIN_SPREAD)
