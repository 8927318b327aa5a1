"""What a data set holds, in numbers: ranges, prices per category, lengths, picture sizes and what they will cost."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from appraiser.data.checking.findings import Findings
from appraiser.data.dataset import RECORD_COLUMNS, Manifest
from appraiser.data.records import ProductRecord, is_missing

MAX_LEVELS = 50
"""A column with more different values tells single products rather than kinds of them."""
QUANTILES = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95, "max": 1.0}


@dataclass
class ColumnCounts:
    """The source's own columns: missing values, an example, and which records have the same value.

    Args:
        levels: value -> number, for columns of few different values.
        codes: those numbers, record by record.
    """

    missing: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    levels: dict[str, dict[str, int]] = field(default_factory=dict)
    codes: dict[str, array[int]] = field(default_factory=dict)

    def see(self, record: ProductRecord) -> None:
        """Take one record into account."""
        for name, value in (record.extra or {}).items():
            self.missing[name] += is_missing(value)
            if not is_missing(value):
                self.examples.setdefault(name, str(value)[:60])
                self.kinds.setdefault(name, type(value).__name__)
            known = self.levels.setdefault(name, {})
            if len(known) <= MAX_LEVELS:
                code = known.setdefault(str(value), len(known))
                self.codes.setdefault(name, array("h")).append(code)
            else:
                self.codes.pop(name, None)


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
        found["price_explained"] = _price_explained(findings, columns)
    return {name: part for name, part in found.items() if part}


def _price_explained(findings: Findings, columns: ColumnCounts) -> dict[str, float]:
    """Share of the variance of ln price that lies between the values of a column (eta squared), largest first."""
    codes = {name: list(values) for name, values in columns.codes.items() if len(columns.levels[name]) > 1}
    names = {name: number for number, name in enumerate(dict.fromkeys(findings.categories))}
    codes = {"category": [names[category] for category in findings.categories]} | codes
    logs = np.array([np.log(price) if price else np.nan for price in findings.prices])
    known = ~np.isnan(logs)
    total = logs[known].var()
    found = {}
    for name, values in codes.items():
        kinds = np.array(values)[known]
        counts = np.bincount(kinds)
        if 1 < np.count_nonzero(counts) <= len(kinds) // 2 and total > 0:
            means = np.bincount(kinds, logs[known]) / np.maximum(counts, 1)
            found[name] = round(float((counts * (means - logs[known].mean()) ** 2).sum() / known.sum() / total), 4)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


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
