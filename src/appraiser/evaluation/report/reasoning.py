"""Twins on the page: does the price follow visible features, or only the kind of product?"""

from __future__ import annotations

from typing import Any

from appraiser.evaluation.reasoning import MIN_CHANGE
from appraiser.evaluation.report.tables import drawn_cell, figure_table
from appraiser.pages.words import escape


def reasoning_section(scores: dict[str, Any]) -> str:
    """All twins, then by the attribute in which they differ."""
    found = scores.get("reasoning")
    if not found:
        return ""
    rows = [("all twins", found), *found.get("by_attribute", {}).items()]
    slopes = [part["slope"] for _, part in rows]
    low, high = min([0.0, *(s["low"] for s in slopes)]), max([1.0, *(s["high"] for s in slopes)])
    lines = [
        (
            escape(name),
            [
                f"{part['n']:,}",
                drawn_cell(part["sign_accuracy"], "share", 0.0, 1.0, 0.5),
                drawn_cell(part["slope"], "plain", low, high, 1.0),
            ],
        )
        for name, part in rows
    ]
    left_out = found.get("n_too_small", 0)
    note = (
        f" {left_out:,} more whose true prices differ by less than {MIN_CHANGE:.0%} are left out." if left_out else ""
    )
    return (
        '<p class="quiet">Twins are two pictures of one product that differ in a single visible feature. Right way: '
        "share of pairs whose predicted price moves the same way as the true one; 50 % is chance (the line). Moved: "
        f"by how much of the true change, 1 being all of it (the line), 0 nothing.{note}</p>\n"
        + figure_table("Twins, by the feature that was changed", ["changed", "pairs", "right way ↑", "moved"], lines)
    )
