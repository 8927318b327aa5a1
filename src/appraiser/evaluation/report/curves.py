"""How training went, and what more data would bring, as small line charts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from appraiser.evaluation.report.lines import axis_of, line_chart
from appraiser.evaluation.report.tables import figure_table, value_cell
from appraiser.evaluation.report.words import Metric, Unit, headline_metric, lookup, number, shown_fields
from appraiser.pages.words import escape, shorten

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """A curve of `metrics.jsonl` and its words."""

    name: str
    unit: Unit = "plain"
    lower_is_better: bool | None = None
    is_log: bool = False


CURVES = {
    "train/loss": Curve("Training loss", lower_is_better=True, is_log=True),
    "eval/loss": Curve("Validation loss", lower_is_better=True, is_log=True),
    "eval/score": Curve("Validation score (chooses the best checkpoint)", lower_is_better=False),
    "eval/price_median_ape": Curve("Validation: median price error", "share", True),
    "eval/category_accuracy": Curve("Validation: categories right", "share", False),
    "eval/title_chrf": Curve("Validation: title chrF", "points", False),
    "eval/title_visible_words": Curve("Validation: visible title words", "share", False),
    "eval/parse_rate": Curve("Validation: answers read", "share", False),
}
UNFOLDED = ("eval/", "train/loss")


def training_section(scores: dict[str, Any]) -> str:
    """Loss and validation at once, everything else that was logged folded below."""
    found = {name: _finite(values) for name, values in (scores.get("curves") or {}).items()}
    found = {name: points for name, points in found.items() if points}
    if not found:
        return ""
    once = {name: found.pop(name) for name in list(found) if len(found[name]) == 1}
    known = [name for name in CURVES if name in found]
    main = known + [name for name in found if name.startswith(UNFOLDED) and name not in known]
    more = [name for name in found if name not in main]
    folded = ""
    if more:
        charts = "\n".join(_curve(name, found[name]) for name in more)
        folded = (
            f'<details class="fold unprinted"><summary>{len(more):,} more curves</summary>\n'
            f'<div class="curves">{charts}</div></details>'
        )
    drawn = "".join(_curve(name, found[name]) for name in main)
    return f'<div class="curves">{drawn}</div>\n{_once(once)}{folded}'


def _finite(values: Sequence[Sequence[Any]]) -> Points:
    """What can be drawn: a diverged loss is logged as NaN, and other things may be logged as texts."""
    return [
        (float(step), float(value))
        for step, value in values
        if isinstance(value, int | float) and math.isfinite(value)
    ]  # fmt: skip


def _curve(name: str, points: Points) -> str:
    curve = CURVES.get(name, Curve(name))
    (first_step, first), (last_step, last) = points[0], points[-1]
    said = f"{_value(last, curve)} at step {last_step:,.0f}"
    if curve.lower_is_better is not None:
        best_step, best = (min if curve.lower_is_better else max)(points, key=lambda point: point[1])
        word = "lowest" if curve.lower_is_better else "highest"
        said += f", the {word}" if best == last else f"; {word} {_value(best, curve)} at step {best_step:,.0f}"
    values = [value for _, value in points]
    is_log = curve.is_log and min(values) > 0 and max(values) / min(values) > 4
    y_axis = axis_of(values, lambda value: _value(value, curve, short=True), is_log=is_log)
    x_axis = axis_of([step for step, _ in points], lambda step: f"{step:,.0f}", from_zero=True)
    label = (
        f"{curve.name}: {_value(first, curve)} at step {first_step:,.0f}, {said}, {len(points):,} points"
        + (", logarithmic axis" if is_log else "")
    )  # fmt: skip
    chart = line_chart(points, x_axis, y_axis, "step", label)
    note = " Logarithmic axis." if is_log else ""
    return (
        f'<figure class="curve"><figcaption><strong>{escape(shorten(curve.name))}</strong>{said}.{note}</figcaption>'
        f"{chart}</figure>"
    )


def _once(found: dict[str, Points]) -> str:
    """What has no curve in words."""
    said = [
        f"{curve.name} {_value(points[0][1], curve)} (step {points[0][0]:,.0f})"
        for name, points in found.items()
        for curve in [CURVES.get(name, Curve(name))]
    ]
    return f'<p class="quiet once">Measured once: {escape("; ".join(said))}.</p>\n' if said else ""


def _value(value: float, curve: Curve, *, short: bool = False) -> str:
    """Whole percents at the ticks; four digits where nothing is known about a number."""
    if curve.unit == "share" and short:
        return f"{100 * value:.3g}%"
    return f"{value:,.4g}" if curve.unit == "plain" or short else number(value, curve.unit)


def learning_curve_section(scores: dict[str, Any]) -> str:
    """Scores of models trained on growing shares of the data."""
    found = scores.get("learning_curve")
    if not found or not found.get("points"):
        return ""
    points = found["points"]
    last = points[-1]["scores"]
    metrics = [headline_metric(field, last) for field in shown_fields(last)]
    charts = "".join(_learning_chart(points, metric) for metric in metrics) if len(points) > 1 else ""
    rows = [
        (
            f"{point['n']:,}",
            [
                f"{point['share']:.0%}",
                *(value_cell(s, m.unit) if (s := lookup(point["scores"], m)) else "—" for m in metrics),
            ],
        )
        for point in points
    ]
    heads = ["training products", "of all", *(f"{escape(m.field)}: {escape(m.label)}{m.arrow}" for m in metrics)]
    sentence = f"<p>{escape(found['sentence'])}</p>" if found.get("sentence") else ""
    table = figure_table("Scores by number of training products", heads, rows)
    warned = "".join(
        f"<li>Training on {point['share']:.0%}: {escape(shorten(warning))}</li>"
        for point in points
        for warning in point.get("warnings", ())
    )
    warnings = f'\n<ul class="quiet">{warned}</ul>' if warned else ""
    return f'{sentence}\n<div class="curves">{charts}</div>\n{table}{warnings}'


def _learning_chart(points: Sequence[dict[str, Any]], metric: Metric) -> str:
    found = [(point["n"], score) for point in points if (score := lookup(point["scores"], metric)) and point["n"] > 0]
    if len(found) < 2:
        return ""
    curve = Curve(metric.name, metric.unit)
    ends = [score[end] for _, score in found for end in ("low", "high", "value")]
    described = "; ".join(f"{n:,} products {number(score['value'], metric.unit)}" for n, score in found)
    chart = line_chart(
        [(n, score["value"]) for n, score in found],
        axis_of([n for n, _ in found], lambda n: f"{n:,.0f}", is_log=True),
        axis_of(ends, lambda value: _value(value, curve, short=True)),
        "training products (logarithmic axis)",
        f"{metric.name}: {described}",
        [score for _, score in found],
    )
    return (
        f'<figure class="curve"><figcaption><strong>{escape(metric.name)}{metric.arrow}</strong>'
        f"with 95 % intervals</figcaption>{chart}</figure>"
    )
