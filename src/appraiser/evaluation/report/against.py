"""Another model beside this one: the products on which their answers differ most."""

from __future__ import annotations

from typing import Any

from appraiser.evaluation.report.judged import NONE, signed_percent
from appraiser.evaluation.report.tables import figure_table
from appraiser.pages.words import amount, escape, shorten


def against_section(scores: dict[str, Any], anchors: dict[int, str]) -> str:
    """The products that moved most.

    Args:
        anchors: row -> where a product is shown.
    """
    other = scores.get("against")
    if not other or not other.get("moved"):
        return ""
    rows = [
        (
            _name(moved, anchors),
            [
                _value(moved["true"]),
                _beside(moved["mine"], moved["other"], moved["true"]),
                _beside(moved["other"], moved["mine"], moved["true"]),
            ],
        )
        for moved in other["moved"]
    ]
    caption = f"Where the answers differ most from those of {other['model']}"
    return (
        '<p class="quiet">✓ right, or nearer to the truth than the other model.</p>\n'
        + figure_table(caption, ["product", "true", "this model", "other model"], rows, "moved")
    )  # fmt: skip


def _name(moved: dict[str, Any], anchors: dict[int, str]) -> str:
    name = escape(shorten(str(moved.get("title") or f"product {moved['id']}")))
    anchor = anchors.get(moved["row"])
    linked = f'<a href="{escape(anchor)}">{name}</a>' if anchor else name
    return f"{linked}<small>{escape(shorten(str(moved['id'])))}</small>"


def _value(value: object) -> str:
    if value is None:
        return NONE
    return amount(value) if _is_number(value) else escape(shorten(str(value)))  # type: ignore[arg-type]


def _beside(value: Any, rival: Any, true: Any) -> str:
    if not _is_number(true):
        is_better = value == true
        off = ""
    elif not _is_number(value):
        is_better, off = False, ""
    else:
        is_better = not _is_number(rival) or abs(value - true) < abs(rival - true)
        off = f"<small>{signed_percent((value - true) / true)}</small>" if true else ""
    sign = '<span class="right">✓</span>\N{NO-BREAK SPACE}' if is_better else ""
    return f"{sign}{_value(value)}{off}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
