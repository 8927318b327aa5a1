"""Scores of parts of the products: by category, price band, picture size, or any column with few values.

A good average can hide a category that is always wrong.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from appraiser.data.pictures import picture_size
from appraiser.data.records import ProductRecord
from appraiser.evaluation.metrics import MAX_CLASSES, Column, Columns, Headline, score
from appraiser.evaluation.scores import Truth

MIN_ROWS = 5
"""Of a slice; a smaller one says nothing, and joins the others."""
NUM_BANDS = 4
SIZE_NAMES = {
    256: "below 256 px", 512: "below 512 px", 1024: "below 1024 px", 2048: "below 2048 px",
    math.inf: "2048 px and more",
}  # fmt: skip
OTHERS = "others"


def slices(records: Sequence[ProductRecord], truth: Truth, answers: Columns) -> dict[str, list[dict[str, Any]]]:
    """Headline scores of every field for every slice.

    Returns:
        name of the cut -> slices, each `name`, `n` and `scores`: field -> {"metric", and its score}.
    """
    rows = {
        field: truth.headline(field, column)
        for field, column in answers.items()
        if field in truth.columns and None not in truth.columns[field]
    }
    cuts: dict[str, list[str]] = {}
    orders: dict[str, list[str]] = {}
    if "category" in truth.columns:
        cuts["category"] = [str(value) for value in truth.columns["category"]]
    if "price" in truth.columns and None not in truth.columns["price"]:
        cuts["price band"], orders["price band"] = price_bands(truth.columns["price"])
    cuts["picture size"], orders["picture size"] = [size_band(record) for record in records], [*SIZE_NAMES.values()]
    languages = [record.value("language") for record in records]
    if any(languages):
        cuts["language"] = [str(language or "?") for language in languages]
    found = {name: _cut(labels, rows, orders.get(name)) for name, labels in cuts.items()}
    return {name: parts for name, parts in found.items() if len(parts) > 1}


def _cut(labels: Sequence[str], rows: dict[str, Headline], order: Sequence[str] | None) -> list[dict[str, Any]]:
    """Scores of the rows with each label, in the order given or the most common label first."""
    counts = Counter(labels)
    usual = [label for label, count in counts.most_common(MAX_CLASSES) if count >= MIN_ROWS]
    placed = np.array([label if label in usual else OTHERS for label in labels])
    names = [label for label in order if label in usual] if order else usual
    return [
        {
            "name": name,
            "n": int((placed == name).sum()),
            "scores": {
                field: {head.metric: score(head.rows[placed == name], head.statistic)} for field, head in rows.items()
            },
        }
        for name in [*names, *([OTHERS] if OTHERS in placed else [])]
    ]


def price_bands(prices: Column) -> tuple[list[str], list[str]]:
    """Each price's quarter of all prices, named by its ends; and the names in ascending order."""
    values = np.array([float(price or 0.0) for price in prices])
    edges = np.quantile(values, np.linspace(0, 1, NUM_BANDS + 1))
    places = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, NUM_BANDS - 1)
    names = [f"{low:,.0f} to {high:,.0f}" for low, high in itertools.pairwise(edges)]
    return [names[place] for place in places], list(dict.fromkeys(names))


def size_band(record: ProductRecord) -> str:
    """How large the first picture's longer side is."""
    longer = max(picture_size(record.images[0]))
    return next(name for edge, name in SIZE_NAMES.items() if longer < edge)
