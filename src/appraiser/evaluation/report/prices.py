"""The price scatter with its legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from appraiser.evaluation.evaluate import EvalResult
from appraiser.evaluation.report.plots import MAX_POINTS, PricePoint, mark_shape, price_scatter, scale_of
from appraiser.evaluation.report.products import evenly
from appraiser.evaluation.report.words import number, span


def price_section(result: EvalResult, anchors: Mapping[int, str]) -> str:
    """Nothing where prices were not scored.

    Args:
        anchors: row -> where a product is shown.
    """
    if "price" not in result.scores:
        return ""
    points = [
        PricePoint(
            record.title or f"product {record.id}", record.price, prediction.price, prediction.price_interval,
            anchors.get(row),
        )
        for row, (record, prediction) in enumerate(zip(result.records, result.predictions, strict=True))
        if record.price and prediction.price
    ]  # fmt: skip
    if not points:
        return "<p>No answer had a price that could be drawn.</p>"
    drawn = evenly(points, MAX_POINTS)
    currencies = {record.currency for record in result.records}
    currency = currencies.pop() if len(currencies) == 1 else None
    legend = _legend(
        result.scores, drawn, num_missing=len(result.records) - len(points), num_left_out=len(points) - len(drawn)
    )
    return f'<figure class="prices">\n{price_scatter(drawn, currency)}\n<figcaption>{legend}</figcaption></figure>'


def _legend(scores: dict[str, Any], points: Sequence[PricePoint], num_missing: int, num_left_out: int) -> str:
    items = [
        (mark_shape(9, 9, near=True), "at most 20 % off"),
        (mark_shape(9, 9, near=False), "more than 20 % off"),
        ('<path class="diagonal" d="M1 16L17 2"/>', "predicted = true"),
        ('<rect class="band" x="1" y="4" width="16" height="10"/>', "within 20 % of the truth"),
    ]
    scale = scale_of(points)
    if any(scale.is_clipped(point) for point in points):
        items.append((mark_shape(9, 11, near=False, clipped=True), "prediction beyond the axis"))
    if any(point.interval for point in points):
        items.append(('<path class="interval strong" d="M9 1V17"/>', "80 % interval of a prediction"))
    listed = "".join(
        f'<li><svg viewBox="0 0 18 18" aria-hidden="true">{shape}</svg>{text}</li>' for shape, text in items
    )
    notes = ["Each mark is a product. Point at it for its name; follow it to its card where it has one."]
    coverage = scores["price"].get("interval_80_coverage")
    if coverage:
        value = number(coverage["value"], "share")
        notes.append(
            f"{value} of the true prices lie inside their 80 % interval (95 % interval {span(coverage, 'share')})."
        )
    if num_missing:
        notes.append(f"{num_missing:,} products are not drawn: no price could be read, or it was 0.")
    if num_left_out:
        notes.append(f"{len(points):,} of the prices are drawn, evenly chosen; {num_left_out:,} more were scored.")
    return f'<ul class="legend">{listed}</ul>' + "".join(f"<p>{note}</p>" for note in notes)
