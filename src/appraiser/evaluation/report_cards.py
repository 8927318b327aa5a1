"""The report's product cards: picture, truth and prediction side by side, ordered by how wrong the answer is."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Literal

from sacrebleu.metrics import CHRF

from appraiser.data.records import OWN_FIELDS, ProductRecord
from appraiser.evaluation.metrics import normalize_title
from appraiser.pages.thumbnails import THUMBNAIL_SIDE, picture_uri
from appraiser.pages.words import amount, escape, shorten
from appraiser.predict import Prediction

NEAR_CHRF = 50.0

Mark = Literal["right", "near", "wrong", "unknown"]
SIGNS: dict[Mark, str] = {"right": "✓", "near": "≈", "wrong": "✗", "unknown": ""}


@dataclass(frozen=True)
class Comparison:
    """One field of one product.

    Args:
        true, predicted: HTML.
        distance: 0 for right to 1 for quite wrong; None where there is no truth.
        note: what is wrong, in a few words; empty where nothing is, or where the answer lacks the field.
    """

    field: str
    true: str
    predicted: str
    mark: Mark
    distance: float | None
    note: str = ""


@dataclass(frozen=True)
class Judged:
    """A product with its answer compared field by field; `row` is its place in the split, counted from 0."""

    row: int
    record: ProductRecord
    prediction: Prediction
    comparisons: tuple[Comparison, ...]

    @property
    def badness(self) -> float:
        """Mean distance over the fields: 0 all right, 1 all wrong."""
        known = [c.distance for c in self.comparisons if c.distance is not None]
        return sum(known) / len(known) if known else float(not self.prediction.parsed)

    @property
    def price_error(self) -> float:
        true, predicted = self.record.price, self.prediction.price
        return abs((predicted or 0.0) - true) / true if true else 0.0

    @property
    def anchor(self) -> str:
        return f"product-{self.row + 1}"


def judge(
    records: Sequence[ProductRecord], predictions: Sequence[Prediction], scored: Container[str] = ()
) -> list[Judged]:
    """All products compared, worst first; ties by price error, then by place in the split.

    Args:
        scored: fields to compare even if no answer states them; fields that some answer states are always compared.
    """
    answered = list(dict.fromkeys(name for p in predictions for name in p.fields))
    usual = ("title", "category", "price")
    fields = [name for name in usual if name in answered or name in scored]
    fields += [name for name in answered if name not in usual]
    chrf = CHRF()
    judged = [
        Judged(row, record, prediction, tuple(_compare(name, record, prediction, chrf) for name in fields))
        for row, (record, prediction) in enumerate(zip(records, predictions, strict=True))
    ]
    return sorted(judged, key=lambda product: (-product.badness, -product.price_error, product.row))


def _compare(field: str, record: ProductRecord, prediction: Prediction, chrf: CHRF) -> Comparison:
    if field == "price":
        return _compare_price(record, prediction)
    true = getattr(record, field) if field in OWN_FIELDS else (record.extra or {}).get(field)
    said = prediction.fields.get(field)
    if true is None:
        return Comparison(field, "—", _text(said), "unknown", None)
    if said is None:
        return Comparison(field, _text(true), "—", "wrong", 1.0)
    if field == "title":
        return _compare_title(str(true), str(said), chrf)
    if str(true) == str(said):
        return Comparison(field, _text(true), _text(said), "right", 0.0)
    return Comparison(field, _text(true), f"<mark>{_text(said)}</mark>", "wrong", 1.0, f"wrong {field}")


def _compare_title(true: str, said: str, chrf: CHRF) -> Comparison:
    if normalize_title(true) == normalize_title(said):
        return Comparison("title", _text(true), _text(said), "right", 0.0)
    likeness = float(chrf.sentence_score(said, [true]).score)
    known = set(normalize_title(true).split())
    words = [
        _text(word) if set(normalize_title(word).split()) <= known else f"<mark>{_text(word)}</mark>"
        for word in shorten(said).split()
    ]
    mark: Mark = "near" if likeness >= NEAR_CHRF else "wrong"
    return Comparison("title", _text(true), " ".join(words) or "—", mark, 1.0 - likeness / 100, "title differs")


def _compare_price(record: ProductRecord, prediction: Prediction) -> Comparison:
    true, said = record.price, prediction.price
    target = escape(amount(true, record.currency)) if true else "—"
    if said is None:
        return Comparison("price", target, "—", "wrong" if true else "unknown", 1.0 if true else None)
    written = escape(amount(said, prediction.currency or record.currency))
    interval = _interval(prediction.price_interval)
    if not true:
        return Comparison("price", target, written + interval, "unknown", None)
    error = (said - true) / true
    mark: Mark = "right" if abs(error) <= 0.10 + 1e-12 else "near" if abs(error) <= 0.20 + 1e-12 else "wrong"
    note = "" if mark == "right" else f"price {signed_percent(error)}"
    written += f" <strong>{signed_percent(error)}</strong>{interval}"
    return Comparison("price", target, written, mark, min(abs(error), 1.0), note)


def _interval(ends: tuple[float, float] | None) -> str:
    """The 80 % interval, without cents where these would only pretend precision."""
    if ends is None:
        return ""
    digits = None if ends[1] >= 100 else 2
    low, high = (amount(round(end, digits)) for end in ends)
    return f" <small>80 % interval {low} to {high}</small>"


def signed_percent(error: float) -> str:
    """`+12.0%` for a price that is too high, with a true minus sign for one that is too low."""
    return f"{error:+,.1%}".replace("-", "\N{MINUS SIGN}") if abs(error) < 1e6 else f"{error:+.2g}x"


def _text(value: object) -> str:
    return "—" if value is None else escape(shorten(str(value)))


def card(product: Judged) -> str:
    """One product as an `<article>`."""
    record, prediction = product.record, product.prediction
    name = record.title or f"product {record.id}"
    badges = [] if prediction.parsed else [_badge("wrong", "answer incomplete")]
    badges += [_badge(c.mark, c.note) for c in product.comparisons if c.note]
    pictures = f'<p class="quiet">1 of {len(record.images)} pictures</p>' if len(record.images) > 1 else ""
    cut_off = "" if prediction.stopped else "; cut off at the length limit"
    rows = "\n".join(_row(comparison) for comparison in product.comparisons)
    return f"""<article class="card" id="{product.anchor}">
<header><img src="{picture_uri(record.images[0])}" width="{THUMBNAIL_SIDE}" height="{THUMBNAIL_SIDE}" \
alt="Picture of {_text(name)}">
<div><h3>{_text(record.id)}</h3>{pictures}
<p class="badges">{" ".join(badges) or _badge("right", "all right")}</p></div></header>
<table><caption class="sr">Truth and prediction</caption>
<thead><tr><td></td><th scope="col">true</th><th scope="col">predicted</th></tr></thead>
<tbody>
{rows}
</tbody></table>
<details><summary>raw answer</summary><pre>{_text(prediction.text) or "(empty)"}</pre>
<p class="quiet">confidence {prediction.confidence:.0%}{cut_off}</p>
</details>
</article>"""


def _row(comparison: Comparison) -> str:
    sign = ""
    if comparison.mark != "unknown":
        sign = f'<span class="sign" title="{comparison.mark}">{SIGNS[comparison.mark]}</span>'
    return (
        f'<tr class="{comparison.mark}"><th scope="row">{_text(comparison.field)}</th><td>{comparison.true}</td>'
        f"<td>{sign}{comparison.predicted}</td></tr>"
    )


def _badge(mark: Mark, note: str) -> str:
    return f'<span class="badge {mark}">{SIGNS[mark]} {escape(note)}</span>'
