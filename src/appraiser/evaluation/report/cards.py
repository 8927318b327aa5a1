"""A product's card: picture, truth and prediction side by side."""

from __future__ import annotations

from collections.abc import Iterable

from appraiser.evaluation.report.judged import SIGNS, Comparison, Judged, Mark, price_range
from appraiser.pages.thumbnails import THUMBNAIL_SIDE, picture_uri
from appraiser.pages.words import amount, escape, shorten

NUM_NEIGHBOURS = 3


def card(product: Judged) -> str:
    """One product as an `<article>`."""
    record = product.record
    pictures = f'<p class="quiet">1 of {len(record.images)} pictures</p>' if len(record.images) > 1 else ""
    rows = "\n".join(_row(comparison) for comparison in product.comparisons)
    marks = " ".join(
        f'<span class="badge {mark}">{SIGNS[mark]} {escape(note)}</span>' for mark, note in badges(product)
    )
    more = "\n".join(f'<p class="quiet">{escape(line)}</p>' for line in details(product))
    return f"""<article class="card" id="{product.anchor}">
<header><img src="{picture_uri(record.images[0])}" width="{THUMBNAIL_SIDE}" height="{THUMBNAIL_SIDE}" \
alt="Picture of {escape(shorten(product.name))}">
<div><h3>{escape(shorten(record.id))}</h3>{pictures}
<p class="badges">{marks}</p></div></header>
<table><caption class="sr">Truth and prediction</caption>
<thead><tr><td></td><th scope="col">true</th><th scope="col">predicted</th></tr></thead>
<tbody>
{rows}
</tbody></table>
<details><summary>raw answer and more</summary><pre>{escape(raw_answer(product))}</pre>
{more}
</details>
</article>"""


def badges(product: Judged) -> list[tuple[Mark, str]]:
    """What is wrong with the answer in a few words, or that nothing is."""
    found: list[tuple[Mark, str]] = []
    if not (product.prediction.parsed or product.prediction.abstained):
        found.append(("wrong", "answer incomplete"))
    found += [(c.mark, c.note) for c in product.comparisons if c.note]
    return found or [("right", "all right") if product.mark == "right" else (product.mark, "not all is there")]


def raw_answer(product: Judged) -> str:
    return shorten(product.prediction.text) or "(empty)"


def details(product: Judged) -> list[str]:
    """Plain sentences on how sure the answer is, and on what looks like the product."""
    prediction = product.prediction
    first = f"confidence {prediction.confidence:.0%}"
    if prediction.num_tokens:
        first += f", {prediction.num_tokens:,} tokens"
    lines = [first + ("" if prediction.stopped else "; cut off at the length limit")]
    if prediction.abstained:
        lines.append(f"price left out: {shorten(prediction.abstained)}")
    sure = []
    if prediction.uncertainty is not None:
        sure.append(f"price unsure by about {prediction.uncertainty:.0%}")
    if prediction.price_interval_90:
        sure.append(f"90 % interval {price_range(prediction.price_interval_90)}")
    if sure:
        lines.append("; ".join(sure))
    if product.neighbours:
        lines.append("most alike in training: " + " · ".join(_neighbours(product)))
    return lines


def _neighbours(product: Judged) -> Iterable[str]:
    for record in product.neighbours[:NUM_NEIGHBOURS]:
        name = shorten(record.title or record.category or f"product {record.id}")
        yield f"{name} {amount(record.price, record.currency)}" if record.price else name


def _row(comparison: Comparison) -> str:
    sign = ""
    if comparison.mark != "unknown":
        sign = f'<span class="sign" title="{comparison.mark}">{SIGNS[comparison.mark]}</span>'
    said = " ".join(f"<mark>{escape(text)}</mark>" if wrong else escape(text) for text, wrong in comparison.predicted)
    if comparison.off:
        said += f" <strong>{escape(comparison.off)}</strong>"
    if comparison.interval:
        said += f" <small>{escape(comparison.interval)}</small>"
    return (
        f'<tr class="{comparison.mark}"><th scope="row">{escape(shorten(comparison.field))}</th>'
        f"<td>{escape(comparison.true)}</td><td>{sign}{said}</td></tr>"
    )
