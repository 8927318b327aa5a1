"""Measures of privacy and of pictures: how near the sample comes to the real table, and whether it hangs together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from appraiser.data.fidelity import measures
from appraiser.data.fidelity.picture_sets import ALIKE_BITS, PictureSet, mean_distance, nearest, share_alike
from appraiser.data.fidelity.result import Measure
from appraiser.data.fidelity.shapes import complete_rows
from appraiser.data.tables import ProductTable


@dataclass(frozen=True)
class Halves:
    """The test of the method: a sample made from one half of the real rows, the other half kept from it."""

    training: ProductTable
    sample: ProductTable
    holdout: ProductTable


def privacy(real: ProductTable, sample: ProductTable, halves: Halves | None) -> Iterator[Measure]:
    """How near the sample's rows come to real ones."""
    with_titles = [_columns(table, with_title=True) for table in (real, sample)]
    if all(with_titles) and with_titles[0].keys() == with_titles[1].keys() and "title" in with_titles[0]:
        yield Measure(
            "privacy.new_row_synthesis", "New rows", measures.new_row_synthesis(with_titles[0], with_titles[1]),
            "Share of the rows that match no real row in title, category and price, 1 % of the price aside "
            "(NewRowSynthesis).", "higher", 1.0,
        )  # fmt: skip
    tables = [_columns(table) for table in (real, sample)]
    if all(tables) and tables[0].keys() == tables[1].keys():
        random = measures.random_rows(tables[0], len(next(iter(tables[1].values()))), seed=0)
        baseline = float(np.median(measures.distances_to_closest(random, tables[0])))
        score = measures.dcr_baseline_protection(tables[0], tables[1])
        if score is not None:
            own = float(np.median(measures.distances_to_closest(tables[0], tables[0], is_same=True))) / baseline
            yield Measure(
                "privacy.dcr_baseline_protection", "Distance to the closest real row", score,
                "Median distance of a row to the closest real one, against that of random rows "
                "(DCRBaselineProtection). The real table's figure is that of a real row to the closest other one. "
                "Likeness brings rows near; a sample much nearer than real rows are to each other would be copying.",
                "higher", 0.5 * own, None, own,
            )  # fmt: skip
    if halves is not None:
        parts = [_columns(table) for table in (halves.training, halves.sample, halves.holdout)]
        if all(parts) and parts[0].keys() == parts[1].keys() == parts[2].keys():
            yield Measure(
                "privacy.dcr_overfitting_protection", "No nearer to the rows it was made from",
                measures.dcr_overfitting_protection(*parts),
                "A test of the method: a sample is made from every other real row. 100 % if at most half of its rows "
                "are closer to these than to the rows that it was not made from (DCROverfittingProtection).",
                "higher", 0.75,
            )  # fmt: skip


def _columns(table: ProductTable, *, with_title: bool = False) -> dict[str, Any]:
    """The columns that rows are compared in, complete rows only: titles by their lengths, or as they are."""
    columns: dict[str, Sequence[Any]] = {"price": table.prices, "category": table.categories, "title": table.titles}
    kept = {name: column for name, column in columns.items() if any(value is not None for value in column)}
    found = dict(zip(kept, complete_rows(*kept.values()), strict=True))
    if not all(found.values()):
        return {}
    arrays: dict[str, Any] = {name: np.array(values) for name, values in found.items()}
    if with_title or "title" not in arrays:
        return arrays
    texts = found["title"]
    del arrays["title"]
    return arrays | {
        "title_words": np.array([len(title.split()) for title in texts]),
        "title_characters": np.array([len(title) for title in texts]),
    }


def pictures(real: PictureSet | None, sample: PictureSet | None) -> Iterator[Measure]:
    """How different the pictures of a set are from each other, and how near the sets come."""
    if sample is None or len(sample.hashes) < 2:
        return
    has_real = real is not None and len(real.hashes) >= 2
    sets = [sample.hashes, *([real.hashes] if real is not None and has_real else [])]
    apart = [mean_distance(hashes) for hashes in sets]
    yield Measure(
        "pictures.mean_distance", "Difference between pictures", apart[0],
        "Mean number of differing bits over all pairs, of 256 of a difference hash; 128 would be unrelated noise. Far "
        "below the real set: the pictures are too much alike.",
        "higher", 0.6 * apart[1] if has_real else 32.0, None, apart[1] if has_real else None, "bits",
    )  # fmt: skip
    alike = [share_alike(hashes) for hashes in sets]
    yield Measure(
        "pictures.share_alike", "Pairs that look alike", alike[0],
        f"Share of the pairs that differ in at most {ALIKE_BITS} bits. Colour variants of one product do.",
        "lower", 0.05, None, alike[1] if has_real else None,
    )  # fmt: skip
    distances = picture_distances(real, sample)
    if distances is not None:
        near, own = (np.array(found) for found in distances)
        yield Measure(
            "pictures.nearest_median", "To the nearest real picture, median", float(np.median(near)),
            "Bits between a sample picture and the real one that looks most like it. The real table's figure is that "
            "of a real picture to the nearest other one.",
            "higher", None, None, float(np.median(own)), "bits",
        )  # fmt: skip
        yield Measure(
            "pictures.nearest_minimum", "To the nearest real picture, closest of all", float(near.min()),
            f"The closest that any sample picture comes to a real one. Unrelated pictures are {ALIKE_BITS} bits "
            "apart or more.",
            "higher", float(ALIKE_BITS), None, float(own.min()), "bits",
        )  # fmt: skip


def picture_distances(
    real: PictureSet | None, sample: PictureSet | None
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Bits to the nearest real picture, of each drawn picture and of each real one to another; None without both."""
    if real is None or sample is None or len(real.hashes) < 2 or not len(sample.hashes):
        return None
    near = nearest(sample.hashes, real.hashes)
    own = nearest(real.hashes, real.hashes, is_same=True)
    return tuple(near.tolist()), tuple(own.tolist())


def keys(sample: ProductTable, sample_pictures: PictureSet | None) -> Iterator[Measure]:
    """Whether the sample hangs together in itself."""
    if any(name is not None for name in sample.ids):
        yield Measure(
            "keys.id.key_uniqueness", "Unique ids", measures.key_uniqueness(sample.ids),
            "Share of the sample's ids that are no repetition (KeyUniqueness).", "higher", 1.0,
        )  # fmt: skip
    if sample_pictures is not None and sample_pictures.rows:
        num_looked_at = len(sample_pictures.rows) + sample_pictures.num_missing + sample_pictures.num_unreadable
        yield Measure(
            "keys.image.referential_integrity", "Rows with their picture", len(sample_pictures.rows) / num_looked_at,
            "Share of the sample's rows whose picture is there and can be read (ReferentialIntegrity).", "higher", 1.0,
        )  # fmt: skip
