"""How far price intervals can be trusted, and what answering only the surest products would buy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from appraiser.evaluation.report.lines import axis_of, line_chart
from appraiser.evaluation.report.tables import drawn_cell, figure_table, value_cell
from appraiser.evaluation.report.words import lookup, metric_of, number
from appraiser.pages.words import escape

PERCENTS = (80, 90)
SHARES = (0.5, 0.8)
"""Of the products, for which the page says in words what abstaining on the others would buy."""


def calibration_section(scores: dict[str, Any]) -> str:
    return "\n".join(part for part in (_intervals(scores), _risk_coverage(scores)) if part)


def _intervals(scores: dict[str, Any]) -> str:
    rows = []
    for percent in PERCENTS:
        coverage = lookup(scores, metric_of("price", f"interval_{percent}_coverage"))
        width = lookup(scores, metric_of("price", f"interval_{percent}_width"))
        if coverage is None:
            continue
        promised = percent / 100
        keeps = coverage["low"] <= promised <= coverage["high"]
        verdict = (
            '<span class="right">✓ as promised</span>' if keeps
            else '<span class="near">≈ too cautious</span>' if coverage["low"] > promised
            else '<span class="wrong">✗ too narrow</span>'
        )  # fmt: skip
        rows.append(
            (
                f"{percent} % interval",
                [
                    f"{promised:.0%}",
                    drawn_cell(coverage, "share", 0.5, 1.0, promised),
                    verdict,
                    value_cell(width, "times") if width else "—",
                ],
            )
        )
    if not rows:
        return ""
    heads = ["interval", "should hold the truth", "holds the truth", "verdict", "width: upper / lower end"]
    table = figure_table("Price intervals: promised and found", heads, rows, "calibration")
    return (
        '<p class="quiet">The line in each drawing, which goes from 50 to 100 %, is what was promised. As promised: it '
        f"lies within the 95 % interval of what was found.</p>\n{table}"
    )


def _risk_coverage(scores: dict[str, Any]) -> str:
    """The curve, and two of its points in words."""
    points: Sequence[dict[str, float]] = scores.get("risk_coverage") or []
    if len(points) < 2:
        return ""
    described = "; ".join(
        f"surest {point['share']:.0%}: {number(point['median_ape'], 'share')}"
        for point in points[:: len(points) // 5 or 1]
    )
    chart = line_chart(
        [(point["share"], point["median_ape"]) for point in points],
        axis_of([0.0, 1.0], lambda share: f"{share:.0%}", from_zero=True),
        axis_of([0.0, *(point["median_ape"] for point in points)], lambda error: f"{100 * error:.3g}%", from_zero=True),
        "share of products answered, surest first",
        f"Median price error of the surest products. {described}",
    )
    everything = points[-1]["median_ape"]
    said = []
    for share in SHARES:
        point = min(points, key=lambda point: abs(point["share"] - share))
        said.append(
            f"If only the surest {point['share']:.0%} are answered, half of these prices are within "
            f"{number(point['median_ape'], 'share')} of the truth (all: {number(everything, 'share')})."
        )
    listed = "".join(f"<li>{escape(sentence)}</li>" for sentence in said)
    return (
        '<figure class="beside"><div><figcaption>Half of the prices of the surest products are closer to the truth '
        "than this. A line that rises to the right: the model knows where it is unsure.</figcaption>"
        f"<ul>{listed}</ul></div>{chart}</figure>"
    )
