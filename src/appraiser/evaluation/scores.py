"""Columns of truth and of answers, and the part of `report.json` that scores one against the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from appraiser.data.records import ProductRecord
from appraiser.data.task import FieldValue
from appraiser.evaluation.intervals import interval_coverage, interval_width
from appraiser.evaluation.metrics import (
    Column,
    Columns,
    Headline,
    Scores,
    difference,
    field_scores,
    headline,
    score,
    visible_words,
)
from appraiser.predict import Prediction

Part = dict[str, Any]
USUAL_FIELDS = ("price", "title", "category")


@dataclass(frozen=True)
class Truth:
    """What is true of the products to score.

    Args:
        columns: the fields that the records have; None where one record has no value.
        visible_words: what the pictures show, for sample data.
    """

    columns: Columns
    visible_words: tuple[str, ...] | None
    num_rows: int

    @classmethod
    def of(cls, records: Sequence[ProductRecord], fields: Sequence[str]) -> Truth:
        columns = {field: [value_of(record, field) for record in records] for field in fields}
        words = [(record.extra or {}).get("truth_visible_words") for record in records]
        return cls(
            {field: column for field, column in columns.items() if any(value is not None for value in column)},
            tuple(map(str, words)) if records and all(words) else None,
            len(records),
        )

    def known(self, field: str, answers: Column) -> tuple[list[FieldValue | None], list[FieldValue]]:
        """Answers and truth of the records that have a value of this field."""
        pairs = [(said, true) for said, true in zip(answers, self.columns[field], strict=True) if true is not None]
        return [said for said, _ in pairs], [true for _, true in pairs]

    def headline(self, field: str, answers: Column) -> Headline:
        """What methods are compared by, row by row."""
        return headline(field, *self.known(field, answers))


def value_of(record: ProductRecord, field: str) -> FieldValue | None:
    """A record's value of any field; None if it has none."""
    if field in ("title", "category", "price", "currency"):
        value: FieldValue | None = getattr(record, field)
        return value
    return (record.extra or {}).get(field)


def columns_of(predictions: Sequence[Prediction], fields: Sequence[str]) -> Columns:
    """The answers of a model, field by field."""
    return {field: [prediction.fields.get(field) for prediction in predictions] for field in fields}


def score_columns(truth: Truth, answers: Columns) -> Part:
    """Scores of every field that is both answered and known: the usual ones at the top, others below `fields`."""
    part: Part = {}
    for field, column in answers.items():
        if field not in truth.columns:
            continue
        said, true = truth.known(field, column)
        scores: dict[str, Any] = dict(field_scores(field, said, true))
        if len(true) < truth.num_rows:
            scores["n"] = len(true)
        if field in USUAL_FIELDS:
            part[field] = scores
        else:
            part.setdefault("fields", {})[field] = scores
    if "title" in part and truth.visible_words:
        part["title"]["visible_words"] = visible_words(answers["title"], truth.visible_words)
    return part


def score_predictions(truth: Truth, predictions: Sequence[Prediction], fields: Sequence[str]) -> Part:
    """Parse and stop rates, length of the answers, and the scores of every field."""
    part: Part = {
        "n": len(predictions),
        "parse_rate": score([p.parsed for p in predictions]),
        "stop_rate": score([p.stopped for p in predictions]),
        "answer_tokens": score([p.num_tokens for p in predictions]),
    }
    part |= score_columns(truth, columns_of(predictions, fields))
    if "price" in part:
        part["price"] |= _interval_scores(truth, predictions)
    return part


def _interval_scores(truth: Truth, predictions: Sequence[Prediction]) -> Scores:
    """How often price intervals hold the truth, and how wide they are."""
    known = [(p, float(t)) for p, t in zip(predictions, truth.columns["price"], strict=True) if t is not None]
    scores: Scores = {}
    for percent in (80, 90):
        intervals = [p.interval(percent) for p, _ in known]
        width = interval_width(intervals)
        if width is not None:
            scores[f"interval_{percent}_coverage"] = interval_coverage(intervals, [true for _, true in known])
            scores[f"interval_{percent}_width"] = width
    return scores


def part_fields(part: Part) -> dict[str, Scores]:
    """Field -> its scores, wherever they lie in a part."""
    usual = {field: part[field] for field in USUAL_FIELDS if field in part}
    return usual | part.get("fields", {})


def differences(truth: Truth, mine: Columns, others: Mapping[str, Columns]) -> dict[str, dict[str, Part]]:
    """How much better `mine` is than each of the others, by the headline metric of every field both answer.

    Returns:
        rival -> field -> {"metric", "gain", "p_value"}; the gain is above 0 where `mine` is better.
    """
    own = {field: truth.headline(field, column) for field, column in mine.items() if field in truth.columns}
    found: dict[str, dict[str, Part]] = {}
    for name, columns in others.items():
        rows = {field: truth.headline(field, column) for field, column in columns.items() if field in own}
        found[name] = {
            field: {
                "metric": own[field].metric,
                "gain": difference(own[field], rival),
                "p_value": swap_p_value(own[field], rival),
            }
            for field, rival in rows.items()
        }
    return {name: fields for name, fields in found.items() if fields}


NUM_SWAPS = 1000
SWAPPED_AT_ONCE = 4_000_000


def swap_p_value(mine: Headline, other: Headline, seed: int = 0) -> float:
    """How often chance alone would make `mine` look as much better: a paired permutation test, one-sided.

    If it did not matter which of the two answered, their results could be swapped on any product. So they are, at
    random, NUM_SWAPS times.
    """
    sign = -1.0 if mine.lower_is_better else 1.0
    observed = sign * float(mine.statistic(mine.rows, axis=0) - other.statistic(other.rows, axis=0))
    rng = np.random.default_rng(seed)
    at_once = max(1, min(NUM_SWAPS, SWAPPED_AT_ONCE // max(1, len(mine.rows))))
    as_good = 0
    for start in range(0, NUM_SWAPS, at_once):
        swapped = rng.random((min(at_once, NUM_SWAPS - start), len(mine.rows))) < 0.5
        first = np.where(swapped, other.rows, mine.rows)
        second = np.where(swapped, mine.rows, other.rows)
        gains = sign * (mine.statistic(first, axis=1) - mine.statistic(second, axis=1))
        as_good += int((gains >= observed - 1e-12).sum())
    return (1 + as_good) / (1 + NUM_SWAPS)


def validation_score(part: Part, category_median_ape: float | None) -> float:
    """What chooses the best checkpoint: the mean over the fields of price skill, chrF / 100 of texts, and accuracy.

    Price skill is 1 - median APE / median APE of the category median; it falls below 0 for a model that is worse.
    """
    found: list[float] = []
    for field, scores in part_fields(part).items():
        if field == "price":
            found.append(1.0 - scores["median_ape"]["value"] / (category_median_ape or 1.0))
        elif "accuracy" in scores:
            found.append(scores["accuracy"]["value"])
        else:
            found.append(scores["chrf"]["value"] / 100)
    return float(np.mean(found)) if found else float(part["parse_rate"]["value"])
