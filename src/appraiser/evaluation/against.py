"""Two models on the same products: is one better, by how much, and which products moved?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from appraiser.data.records import ProductRecord
from appraiser.errors import DataError
from appraiser.evaluation.evaluate import EvalResult
from appraiser.evaluation.scores import Part, Truth, columns_of, differences, part_fields, score_columns
from appraiser.predict import Prediction

MAX_MOVED = 30


def compare(mine: EvalResult, other: EvalResult, name: str) -> Part:
    """What `mine` has over `other`, for the part `against` of report.json.

    Args:
        other: of the same records.
        name: of the other model.

    Raises:
        DataError: other records, or no field that both answer.
    """
    if [record.id for record in mine.records] != [record.id for record in other.records]:
        raise DataError("the two models answered for different products", fix="evaluate both on one split")
    common = [field for field in part_fields(mine.scores) if field in part_fields(other.scores)]
    if not common:
        raise DataError(f"{name} answers none of the fields of this model", fix="compare models of one task")
    truth = Truth.of(mine.records, common)
    theirs = columns_of(truth, other.predictions, common)
    gains = differences(truth, columns_of(truth, mine.predictions, common), {name: theirs})[name]
    return {
        "model": name,
        "scores": score_columns(truth, theirs),
        "differences": gains,
        "moved": moved(mine.records, mine.predictions, other.predictions, common),
    }


def moved(
    records: Sequence[ProductRecord], mine: Sequence[Prediction], other: Sequence[Prediction], fields: Sequence[str]
) -> list[dict[str, Any]]:
    """The products on which the two differ most: by the ratio of prices, or else by another category."""
    rows = []
    for row, (record, first, second) in enumerate(zip(records, mine, other, strict=True)):
        if "price" in fields:
            if first.price == second.price:
                continue
            far = abs(math.log(first.price / second.price)) if first.price and second.price else math.inf
            values: tuple[Any, Any, Any] = (record.price, first.price, second.price)
        else:
            field = fields[0]
            values = (record.value(field), first.fields.get(field), second.fields.get(field))
            if values[1] == values[2]:
                continue
            far = 1.0
        rows.append((far, {
            "row": row, "id": record.id, "title": record.title, "true": values[0], "mine": values[1],
            "other": values[2],
        }))  # fmt: skip
    rows.sort(key=lambda pair: (-pair[0], pair[1]["row"]))
    return [facts for _, facts in rows[:MAX_MOVED]]


def against_sentences(part: Part) -> list[str]:
    """The comparison in words."""
    said = []
    for field, found in part["differences"].items():
        gain = found["gain"]
        unit = "points of chrF" if found["metric"] == "chrf" else "points"
        factor = 1 if found["metric"] == "chrf" else 100
        size = f"{abs(gain['value']) * factor:.1f} {unit} (95 % interval {gain['low'] * factor:+.1f} to "
        size += f"{gain['high'] * factor:+.1f})"
        if gain["low"] > 0:
            said.append(f"{field.capitalize()}: better than {part['model']} by {size}.")
        elif gain["high"] < 0:
            said.append(f"{field.capitalize()}: NOT as good as {part['model']}, behind by {size}.")
        else:
            said.append(f"{field.capitalize()}: no clear difference from {part['model']}: {size}.")
    return said
