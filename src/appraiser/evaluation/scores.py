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
    currencies: tuple[str | None, ...]
    visible_words: tuple[str, ...] | None

    @property
    def num_rows(self) -> int:
        return len(self.currencies)

    @classmethod
    def of(cls, records: Sequence[ProductRecord], fields: Sequence[str]) -> Truth:
        columns = {field: [record.value(field) for record in records] for field in fields}
        words = [record.value("truth_visible_words") for record in records]
        return cls(
            {field: column for field, column in columns.items() if any(value is not None for value in column)},
            tuple(record.currency for record in records),
            tuple(map(str, words)) if records and all(words) else None,
        )

    def known(self, field: str, answers: Column) -> tuple[list[FieldValue | None], list[FieldValue]]:
        """Answers and truth of the records that have a value of this field."""
        pairs = [(said, true) for said, true in zip(answers, self.columns[field], strict=True) if true is not None]
        return [said for said, _ in pairs], [true for _, true in pairs]

    def headline(self, field: str, answers: Column) -> Headline:
        """What methods are compared by, row by row."""
        return headline(field, *self.known(field, answers))


def columns_of(truth: Truth, predictions: Sequence[Prediction], fields: Sequence[str]) -> Columns:
    """The answers of a model, field by field."""
    columns: dict[str, Column] = {field: [p.fields.get(field) for p in predictions] for field in fields}
    if "price" in fields:
        pairs = zip(predictions, truth.currencies, strict=True)
        columns["price"] = [price_in_currency(prediction, currency, fields) for prediction, currency in pairs]
    return columns


def price_in_currency(prediction: Prediction, currency: str | None, fields: Sequence[str]) -> float | None:
    """The predicted price; None where answers state a currency and this one states another than the true one."""
    is_other = "currency" in fields and currency not in (None, prediction.currency)
    return None if is_other else prediction.price


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
    columns = columns_of(truth, predictions, fields)
    part |= score_columns(truth, columns)
    if "price" in part:
        part["price"] |= _interval_scores(truth, predictions, columns["price"])
    return part


def _interval_scores(truth: Truth, predictions: Sequence[Prediction], prices: Column) -> Scores:
    """How often price intervals hold the truth, and how wide they are."""
    rows = zip(predictions, prices, truth.columns["price"], strict=True)
    known = [(prediction, price, float(true)) for prediction, price, true in rows if true is not None]
    scores: Scores = {}
    for percent in (80, 90):
        intervals = [prediction.interval(percent) if price else None for prediction, price, _ in known]
        width = interval_width(intervals)
        if width is not None:
            scores[f"interval_{percent}_coverage"] = interval_coverage(intervals, [true for *_, true in known])
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
