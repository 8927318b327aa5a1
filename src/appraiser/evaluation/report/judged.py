"""Products with their answers compared field by field, ordered by how wrong the answer is."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Literal

from appraiser.data.records import ProductRecord
from appraiser.evaluation.metrics import normalize_title, sentence_chrf
from appraiser.evaluation.report.words import MINUS
from appraiser.evaluation.scores import price_in_currency
from appraiser.pages.words import amount, shorten
from appraiser.predict import Prediction

NEAR_CHRF = 50.0
NONE = "—"

Mark = Literal["right", "near", "wrong", "unknown"]
SIGNS: dict[Mark, str] = {"right": "✓", "near": "≈", "wrong": "✗", "unknown": ""}
SHOWN_FIRST = ("title", "category", "price")


@dataclass(frozen=True)
class Comparison:
    """One field of one product; texts are plain, not HTML.

    Args:
        predicted: pieces of the answer, each with whether it is wrong.
        distance: 0 for right to 1 for quite wrong; None where there is no truth.
        note: what is wrong, in a few words; empty where nothing is, or where the answer lacks the field.
        off: how far a price is off, as `+12.0%`.
        interval: of a price.
    """

    field: str
    true: str
    predicted: tuple[tuple[str, bool], ...]
    mark: Mark
    distance: float | None
    note: str = ""
    off: str = ""
    interval: str = ""


@dataclass(frozen=True)
class Judged:
    """A product with its answer compared field by field.

    Args:
        row: its place in the split, counted from 0.
        neighbours: the training products that look most like it, nearest first.
    """

    row: int
    record: ProductRecord
    prediction: Prediction
    comparisons: tuple[Comparison, ...]
    neighbours: tuple[ProductRecord, ...] = ()

    @property
    def name(self) -> str:
        return self.record.title or f"product {self.record.id}"

    @property
    def badness(self) -> float:
        """Mean distance over the fields: 0 all right, 1 all wrong."""
        known = [c.distance for c in self.comparisons if c.distance is not None]
        return sum(known) / len(known) if known else float(not self.prediction.parsed)

    @property
    def mark(self) -> Mark:
        """The worst of its fields'."""
        marks = {c.mark for c in self.comparisons}
        if "wrong" in marks or not (self.prediction.parsed or self.prediction.abstained):
            return "wrong"
        return "near" if "near" in marks else "right"

    @property
    def price_error(self) -> float:
        true, predicted = self.record.price, self.prediction.price
        return abs((predicted or 0.0) - true) / true if true else 0.0

    @property
    def anchor(self) -> str:
        return f"product-{self.row + 1}"


def judge(
    records: Sequence[ProductRecord],
    predictions: Sequence[Prediction],
    scored: Container[str] = (),
    neighbours: Sequence[Sequence[ProductRecord]] = (),
) -> list[Judged]:
    """All products compared, worst first; ties by price error, then by place in the split.

    Args:
        scored: fields to compare even if no answer states them; fields that some answer states are always compared.
        neighbours: of every product; empty where none were looked for.
    """
    answered = list(dict.fromkeys(name for p in predictions for name in p.fields))
    fields = [name for name in SHOWN_FIRST if name in answered or name in scored]
    fields += [name for name in answered if name not in SHOWN_FIRST]
    judged = [
        Judged(
            row, record, prediction, tuple(_compare(name, record, prediction, fields) for name in fields),
            tuple(neighbours[row]) if neighbours else (),
        )
        for row, (record, prediction) in enumerate(zip(records, predictions, strict=True))
    ]  # fmt: skip
    return sorted(judged, key=lambda product: (-product.badness, -product.price_error, product.row))


def _compare(field: str, record: ProductRecord, prediction: Prediction, fields: Sequence[str]) -> Comparison:
    if field == "price":
        return _compare_price(record, prediction, fields)
    true, said = record.value(field), prediction.fields.get(field)
    if true is None:
        return Comparison(field, NONE, _whole(said), "unknown", None)
    if said is None:
        return Comparison(field, _text(true), _whole(None), "wrong", 1.0)
    if field == "title":
        return _compare_title(str(true), str(said))
    if str(true) == str(said):
        return Comparison(field, _text(true), _whole(said), "right", 0.0)
    return Comparison(field, _text(true), ((_text(said), True),), "wrong", 1.0, f"wrong {field}")


def _compare_title(true: str, said: str) -> Comparison:
    if normalize_title(true) == normalize_title(said):
        return Comparison("title", _text(true), _whole(said), "right", 0.0)
    likeness = sentence_chrf(said, true)
    known = set(normalize_title(true).split())
    words = tuple((word, not set(normalize_title(word).split()) <= known) for word in _text(said).split())
    mark: Mark = "near" if likeness >= NEAR_CHRF else "wrong"
    return Comparison("title", _text(true), words or _whole(None), mark, 1.0 - likeness / 100, "title differs")


def _compare_price(record: ProductRecord, prediction: Prediction, fields: Sequence[str]) -> Comparison:
    true, said = record.price, prediction.price
    target = amount(true, record.currency) if true else NONE
    if said is None:
        note = "price left out" if prediction.abstained else ""
        mark: Mark = "wrong" if true else "unknown"
        return Comparison("price", target, _whole(None), mark, 1.0 if true else None, note)
    written = _whole(amount(said, prediction.currency or record.currency))
    interval = _interval(prediction.price_interval)
    if not true:
        return Comparison("price", target, written, "unknown", None, interval=interval)
    if price_in_currency(prediction, record.currency, fields) is None:
        return Comparison("price", target, written, "wrong", 1.0, "other currency", interval=interval)
    error = (said - true) / true
    mark = "right" if abs(error) <= 0.10 + 1e-12 else "near" if abs(error) <= 0.20 + 1e-12 else "wrong"
    off = signed_percent(error)
    note = "" if mark == "right" else f"price {off}"
    return Comparison("price", target, written, mark, min(abs(error), 1.0), note, off, interval)


def _interval(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f"80 % interval {price_range(ends)}"


def price_range(ends: tuple[float, float]) -> str:
    """`360 to 550`, without cents where these would only pretend precision."""
    digits = None if ends[1] >= 100 else 2
    low, high = (amount(round(end, digits)) for end in ends)
    return f"{low} to {high}"


def signed_percent(error: float) -> str:
    """`+12.0%` for a price that is too high, with a true minus sign for one that is too low."""
    return f"{error:+,.1%}".replace("-", MINUS) if abs(error) < 1e6 else f"{error:+.2g}x"


def _whole(value: object) -> tuple[tuple[str, bool], ...]:
    return ((_text(value), False),)


def _text(value: object) -> str:
    return NONE if value is None else shorten(str(value))
