"""What a data set holds, in numbers: ranges, prices per category, lengths, picture sizes and what they will cost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from appraiser.data.checking.findings import Findings
from appraiser.data.dataset import RECORD_COLUMNS, Manifest
from appraiser.data.records import ProductRecord, is_missing

QUANTILES = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95, "max": 1.0}


@dataclass
class ColumnCounts:
    """The source's own columns: how many values are missing, and a value as an example."""

    missing: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    def see(self, record: ProductRecord) -> None:
        """Take one record into account."""
        for name, value in (record.extra or {}).items():
            self.missing[name] += is_missing(value)
            if not is_missing(value):
                self.examples.setdefault(name, str(value)[:60])
                self.kinds.setdefault(name, type(value).__name__)


def profile(
    findings: Findings, columns: ColumnCounts, manifest: Manifest, image_tokens: Callable[[int, int], int]
) -> dict[str, Any]:
    """Numbers of a data set; parts whose field it does not have are left out.

    Args:
        image_tokens: tokens of a picture of (width, height) pixels.
    """
    sizes = Counter(
        (round(width), round(height))
        for width, height in zip(findings.numbers["width"], findings.numbers["height"], strict=True)
    )
    cost = {size: image_tokens(*size) for size in sizes}
    image_tokens_of_all = [cost[size] for size, count in sizes.items() for _ in range(count)]
    found: dict[str, Any] = {
        "columns": _columns(findings, columns),
        "pictures": {
            "width": quantiles(findings.numbers["width"]),
            "height": quantiles(findings.numbers["height"]),
            "kilobytes": quantiles([size / 1000 for size in findings.numbers["num_bytes"]]),
            "num_crops": manifest.num_crops,
            "image_tokens": quantiles(image_tokens_of_all),
        },
    }
    if any(findings.titles):
        found["titles"] = {
            "characters": quantiles([len(title) for title in findings.titles if title]),
            "tokens": quantiles([count for count in findings.title_tokens if count]),
            "different": len({title for title in findings.titles if title}),
        }
    found["answer_tokens"] = quantiles(findings.answer_tokens)
    if any(findings.categories):
        found["categories"] = dict(Counter(name for name in findings.categories if name).most_common())
    if any(findings.prices):
        found["prices"] = quantiles([price for price in findings.prices if price])
        by_category: dict[str, list[float]] = defaultdict(list)
        for category, price in zip(findings.categories, findings.prices, strict=True):
            if category and price:
                by_category[category].append(price)
        found["prices_by_category"] = {
            name: quantiles(prices) | {"n": len(prices)}
            for name, prices in sorted(by_category.items(), key=lambda item: float(np.median(item[1])))
        }
    return {name: part for name, part in found.items() if part}


def _columns(findings: Findings, columns: ColumnCounts) -> list[dict[str, Any]]:
    own = [
        {"name": name, "type": columns.kinds.get(name, "empty"), "missing": columns.missing[name],
         "example": columns.examples.get(name, "")}
        for name in columns.missing
    ]  # fmt: skip
    standard: dict[str, Sequence[Any]] = {
        "title": findings.titles,
        "category": findings.categories,
        "price": findings.prices,
    }
    present = [
        {"name": name, "type": type(next(v for v in values if v is not None)).__name__,
         "missing": sum(value is None for value in values),
         "example": str(next(v for v in values if v is not None))[:60]}
        for name, values in standard.items()
        if any(value is not None for value in values)
    ]  # fmt: skip
    return present + [column for column in own if column["name"] not in RECORD_COLUMNS]


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Smallest, quartiles, 95 % point and largest of some numbers; nothing of none."""
    if not len(values):
        return {}
    found = np.quantile(np.asarray(values, dtype=float), list(QUANTILES.values()))
    return {name: round(float(value), 4) for name, value in zip(QUANTILES, found, strict=True)}
