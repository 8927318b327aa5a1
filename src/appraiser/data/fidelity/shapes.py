"""Measures of likeness: columns by themselves, pairs of columns, coverage, titles.

Where chance alone keeps two tables of one shop from being equal, a score is held against what chance leaves, so that a
small table is not called unlike for being small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appraiser.data.fidelity import measures
from appraiser.data.fidelity.result import Measure
from appraiser.data.samples.nouns import SLOT_WORDS
from appraiser.data.samples.shop_prices import MIN_GROUP
from appraiser.data.samples.title_shapes import mentions
from appraiser.data.tables import ProductTable, plain_title

CHANCE_MARGIN = 0.10
"""How far a score may lie below what chance leaves before it is a warning."""
Number = Callable[[ProductTable], list[float | None]]


def _prices(table: ProductTable) -> list[float | None]:
    return list(table.prices)


def _words(table: ProductTable) -> list[float | None]:
    return [None if title is None else float(len(title.split())) for title in table.titles]


def _characters(table: ProductTable) -> list[float | None]:
    return [None if title is None else float(len(title)) for title in table.titles]


NUMBERS: dict[str, tuple[str, Number]] = {
    "price": ("Price", _prices),
    "title_words": ("Words per title", _words),
    "title_characters": ("Characters per title", _characters),
}


def _numbers(table: ProductTable, name: str) -> NDArray[np.float64]:
    return np.array([value for value in NUMBERS[name][1](table) if value is not None], dtype=np.float64)


def _present(real: ProductTable, sample: ProductTable) -> list[str]:
    return [name for name in NUMBERS if len(_numbers(real, name)) >= MIN_GROUP and len(_numbers(sample, name))]


def complete_rows(*columns: Sequence[Any]) -> list[list[Any]]:
    """The columns without rows that lack a value in one of them."""
    rows = [row for row in zip(*columns, strict=True) if None not in row]
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in columns]


def _pair(table: ProductTable, first: str, second: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    columns = complete_rows(NUMBERS[first][1](table), NUMBERS[second][1](table))
    return np.array(columns[0]), np.array(columns[1])


def _categories(table: ProductTable) -> list[str]:
    return [category for category in table.categories if category is not None]


def _endings(table: ProductTable) -> list[int]:
    return [round(price * 100) % 1000 for price in table.prices if price is not None]


def column_shapes(real: ProductTable, sample: ProductTable) -> Iterator[Measure]:
    """Each column by itself."""
    names = _categories(real), _categories(sample)
    if all(names):
        chance = measures.tv_by_chance(*names)
        yield Measure(
            "columns.category.tv_complement", "Categories", measures.tv_complement(*names),
            "How alike the shares of the categories are (TVComplement); 100 % is the same mix.",
            "higher", chance - CHANCE_MARGIN, chance,
        )  # fmt: skip
    for name in _present(real, sample):
        columns, label = (_numbers(real, name), _numbers(sample, name)), NUMBERS[name][0]
        chance = measures.ks_by_chance(len(columns[0]), len(columns[1]))
        yield Measure(
            f"columns.{name}.ks_complement", label, measures.ks_complement(*columns),
            f"How alike the spread of {label.lower()} is: 100 % less the widest gap between the two cumulative curves "
            "(KSComplement).",
            "higher", chance - CHANCE_MARGIN, chance,
        )  # fmt: skip
    endings = _endings(real), _endings(sample)
    if all(endings):
        chance = measures.tv_by_chance(*endings)
        yield Measure(
            "columns.price_ending.tv_complement", "Price endings", measures.tv_complement(*endings),
            "How alike prices end (9.99, 9.00, ...): last whole digit and cents (TVComplement).",
            "higher", chance - CHANCE_MARGIN, chance,
        )  # fmt: skip


def pair_trends(real: ProductTable, sample: ProductTable) -> Iterator[Measure]:
    """Pairs of columns: whether what goes together in the real table does so in the sample."""
    present = _present(real, sample)
    for place, first in enumerate(present):
        for second in present[place + 1 :]:
            columns = _pair(real, first, second), _pair(sample, first, second)
            score = measures.correlation_similarity(*columns)
            if score is not None:
                chance = measures.correlation_by_chance(columns[0], len(columns[1][0]))
                label = f"{NUMBERS[first][0]} and {NUMBERS[second][0].lower()}"
                yield Measure(
                    f"pairs.{first}_{second}.correlation_similarity", label, score,
                    "How alike their correlation is: 100 % less half the difference (CorrelationSimilarity).",
                    "higher", chance - CHANCE_MARGIN, chance,
                )  # fmt: skip
    for name in present:
        pairs = [complete_rows(table.categories, NUMBERS[name][1](table)) for table in (real, sample)]
        if not all(pair[0] for pair in pairs):
            continue
        bins = measures.in_bins(np.array(pairs[0][1]), np.array(pairs[1][1]))
        cells = [list(zip(pair[0], found, strict=True)) for pair, found in zip(pairs, bins, strict=True)]
        chance = measures.tv_by_chance(cells[0], cells[1])
        yield Measure(
            f"pairs.category_{name}.contingency_similarity", f"Category and {NUMBERS[name][0].lower()}",
            measures.contingency_similarity((pairs[0][0], bins[0]), (pairs[1][0], bins[1])),
            f"How alike the shares of every category in every tenth of the range of {NUMBERS[name][0].lower()} are "
            "(ContingencySimilarity).",
            "higher", chance - CHANCE_MARGIN, chance,
        )  # fmt: skip


def quality(shapes: Sequence[Measure], trends: Sequence[Measure]) -> Iterator[Measure]:
    """The means that SDMetrics calls column shapes, column pair trends and quality."""
    parts = [
        ("column_shapes", "Likeness of single columns", "Mean over the columns.", shapes),
        ("pair_trends", "Likeness of pairs of columns", "Mean over the pairs of columns.", trends),
    ]
    means = []
    for key, label, meaning, found in parts:
        if found:
            means.append(fmean(measure.value for measure in found))
            chance = fmean(1.0 if measure.by_chance is None else measure.by_chance for measure in found)
            yield Measure(f"quality.{key}", label, means[-1], meaning, "higher", chance - CHANCE_MARGIN, chance)
    if means:
        yield Measure(
            "quality.overall", "Likeness to the real table", fmean(means),
            "Mean of both: what SDMetrics calls quality. 100 % is a table with the same columns and pairs.",
            "higher", 0.75,
        )  # fmt: skip


def coverage(real: ProductTable, sample: ProductTable) -> Iterator[Measure]:
    """Whether the sample has all that the real table has, and nothing beyond it."""
    names = _categories(real), _categories(sample)
    if all(names):
        yield Measure(
            "coverage.category.category_coverage", "Categories covered", measures.category_coverage(*names),
            "Share of the real categories that the sample has (CategoryCoverage).", "higher", 0.90,
        )  # fmt: skip
    for name in _present(real, sample):
        columns = _numbers(real, name), _numbers(sample, name)
        what = NUMBERS[name][0].lower()
        covered = measures.range_coverage(*columns)
        if covered is not None:
            yield Measure(
                f"coverage.{name}.range_coverage", f"Range covered: {what}", covered,
                f"Share of the real range of {what} that the sample reaches (RangeCoverage). Its ends are single rows, "
                "which a sample must not copy: 100 % is not what is wanted.", "higher", 0.50,
            )  # fmt: skip
        yield Measure(
            f"coverage.{name}.boundary_adherence", f"Inside the range: {what}", measures.boundary_adherence(*columns),
            f"Share of the sample inside the real range of {what} (BoundaryAdherence).", "higher", 0.90,
        )  # fmt: skip


def titles(real: ProductTable, sample: ProductTable) -> Iterator[Measure]:
    """What titles are like, without their words."""
    both = [[title for title in table.titles if title is not None] for table in (real, sample)]
    if not all(both):
        return
    for slot in SLOT_WORDS:
        shares = [fmean(mentions(title, slot) for title in found) for found in both]
        yield Measure(
            f"titles.mentions_{slot}", f"Titles with a word for {slot}", shares[1],
            f"Share of the titles that speak of a {slot}. A sample's titles are made of visible words alone: where the "
            "shop's hold names instead, it has more of them.",
            "nearer", None, None, shares[0],
        )  # fmt: skip
    distinct = [len({plain_title(title) for title in found}) / len(found) for found in both]
    yield Measure(
        "titles.distinct", "Different titles", distinct[1],
        "Share of the titles that are no repetition; it falls with the number of rows.",
        "nearer", None, None, distinct[0],
    )  # fmt: skip
