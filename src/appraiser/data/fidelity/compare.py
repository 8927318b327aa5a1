"""A real table and a sample of it -> every measure, the leak checks, and a verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from appraiser.data.fidelity import measures
from appraiser.data.fidelity.leaks import find_leaks
from appraiser.data.fidelity.nearness import Halves, keys, picture_distances, pictures, privacy
from appraiser.data.fidelity.picture_sets import MAX_PICTURES, PictureSet
from appraiser.data.fidelity.result import CategoryFidelity, Fidelity
from appraiser.data.fidelity.shapes import column_shapes, coverage, pair_trends, quality, titles
from appraiser.data.samples.shop_prices import MIN_GROUP
from appraiser.data.tables import ProductTable

MAX_ROWS = 5000
"""Rows of each table that are compared all against all; evenly chosen where there are more. Leak checks take all."""


def compare(
    real: ProductTable,
    sample: ProductTable,
    real_pictures: PictureSet | None = None,
    sample_pictures: PictureSet | None = None,
    halves: Halves | None = None,
    *,
    is_drawn: bool = False,
) -> Fidelity:
    """Compare a sample with the real table that it should be like and hold nothing of.

    Args:
        halves: draws of the same method from one half of the real rows.
        is_drawn: the real table is a sample itself.
    """
    few = thinned(real), thinned(sample)
    shapes = list(column_shapes(*few))
    trends = list(pair_trends(*few))
    found = [
        *quality(shapes, trends),
        *shapes,
        *trends,
        *coverage(*few),
        *titles(*few),
        *privacy(*few, halves),
        *pictures(real_pictures, sample_pictures),
        *keys(sample, sample_pictures),
    ]
    leaks = find_leaks(real, sample, real_pictures, sample_pictures, is_drawn=is_drawn)
    notes = [*_notes(real, sample, real_pictures, sample_pictures)]
    if is_drawn:
        notes.append(
            "The real table is a sample itself: drawn pictures look alike, so likeness is not taken for copying."
        )
    distances = picture_distances(real_pictures, sample_pictures)
    return Fidelity(real, sample, tuple(found), tuple(leaks), tuple(categories(*few)), tuple(notes), distances)


def thinned(table: ProductTable) -> ProductTable:
    """At most MAX_ROWS of the rows, evenly chosen."""
    if len(table) <= MAX_ROWS:
        return table
    return table.rows([k * len(table) // MAX_ROWS for k in range(MAX_ROWS)])


def categories(real: ProductTable, sample: ProductTable) -> Iterator[CategoryFidelity]:
    """Every category of the real table, largest first: shares and prices."""
    counts = [Counter(c for c in table.categories if c is not None) for table in (real, sample)]
    for name in sorted(counts[0], key=lambda name: (-counts[0][name], name)):
        prices = [
            np.array([p for c, p in zip(table.categories, table.prices, strict=True) if c == name and p is not None])
            for table in (real, sample)
        ]
        is_scored = len(prices[0]) >= MIN_GROUP and len(prices[1]) > 0
        num_groups = min(5, len(prices[0]) // MIN_GROUP) if len(prices[0]) >= 2 * MIN_GROUP else 0
        yield CategoryFidelity(
            name,
            (counts[0][name], counts[1][name]),
            (counts[0][name] / counts[0].total(), counts[1][name] / max(1, counts[1].total())),
            measures.ks_complement(prices[0], prices[1]) if is_scored else None,
            measures.ks_by_chance(len(prices[0]), len(prices[1])) if is_scored else None,
            (_groups(prices[0], num_groups), _groups(prices[1], num_groups)),
        )


def _groups(prices: NDArray[np.float64], num_groups: int) -> tuple[float, ...]:
    if not num_groups or len(prices) < num_groups:
        return ()
    return tuple(float(np.exp(part.mean())) for part in np.array_split(np.sort(np.log(prices)), num_groups))


def _notes(
    real: ProductTable, sample: ProductTable, real_pictures: PictureSet | None, sample_pictures: PictureSet | None
) -> Iterator[str]:
    """What was not looked at, and why."""
    if real.num_other_currencies:
        yield f"{real.num_other_currencies} real prices are not in {real.currency}, the most common currency; left out."
    if real.num_unreadable_prices:
        yield f"{real.num_unreadable_prices} real rows have no price that can be read; left out."
    for table in (real, sample):
        if len(table) > MAX_ROWS:
            yield f"{MAX_ROWS:,} of the {len(table):,} rows of {table.name} were compared; all of them for leaks."
    if real_pictures is None or not real_pictures.rows:
        yield "The real table has no pictures that could be looked at here."
    for found, whose in ((real_pictures, "real"), (sample_pictures, "sample")):
        if found is not None:
            parts = (
                (found.num_urls, "behind URLs"),
                (found.num_missing, "not there"),
                (found.num_unreadable, "damaged"),
                (found.num_left_out, f"beyond {MAX_PICTURES:,} evenly chosen ones"),
            )
            yield from (f"{count:,} {whose} pictures were not looked at: {why}." for count, why in parts if count)
