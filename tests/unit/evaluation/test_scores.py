"""Parts of report.json: which rows count, what methods are compared by, and how likely chance would do as well."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from appraiser.data.records import ProductRecord
from appraiser.evaluation.intervals import interval_coverage, interval_width, risk_coverage
from appraiser.evaluation.metrics import Headline
from appraiser.evaluation.reasoning import MIN_CHANGE, reasoning_scores
from appraiser.evaluation.scores import Truth, differences, part_fields, score_columns, swap_p_value
from appraiser.evaluation.slices import price_bands, slices


def record(row: int, **extra: Any) -> ProductRecord:
    return ProductRecord(str(row), (b"",), "g", "Red Coat", "COATS", 100.0, "USD", extra)


def test_other_fields_are_scored_below_their_own_name_where_records_have_them() -> None:
    records = [record(row, brand="A" if row < 8 else None) for row in range(10)]
    truth = Truth.of(records, ("title", "brand", "colour"))
    assert set(truth.columns) == {"title", "brand"}  # no record has a colour
    part = score_columns(truth, {"title": ["Red Coat"] * 10, "brand": ["A"] * 4 + [None] * 6, "colour": ["red"] * 10})
    brand = part["fields"]["brand"]
    assert brand["n"] == 8
    assert brand["accuracy"]["value"] == 0.5
    assert part["title"]["exact"]["value"] == 1.0
    assert set(part_fields(part)) == {"title", "brand"}


def test_differences_name_the_metric_and_who_is_better() -> None:
    truth = Truth.of([record(row) for row in range(30)], ("price", "category"))
    mine = {"price": [100.0] * 30, "category": ["COATS"] * 30}
    worse = {"price": [150.0] * 30, "category": ["HATS"] * 15 + ["COATS"] * 15}
    found = differences(truth, mine, {"knn": worse, "titles": {"title": ["x"] * 30}})
    assert set(found) == {"knn"}
    assert found["knn"]["price"]["metric"] == "median_ape"
    assert found["knn"]["price"]["gain"]["value"] == pytest.approx(0.5)
    assert found["knn"]["category"]["gain"]["low"] > 0
    assert found["knn"]["category"]["p_value"] < 0.01


def test_p_values_of_equal_methods_are_even() -> None:
    """Under the null, a p-value below 0.1 has a chance of 0.1."""
    rng = np.random.default_rng(0)
    small = 0
    for _ in range(100):
        first, second = (Headline("accuracy", False, (rng.random(60) < 0.5).astype(float), np.mean) for _ in range(2))
        small += swap_p_value(first, second) <= 0.1
    assert 2 <= small <= 22
    same = Headline("median_ape", True, rng.random(50), np.median)
    assert swap_p_value(same, same) == 1.0


def test_coverage_and_width_by_hand() -> None:
    intervals = [(1.0, 2.0), (1.0, 4.0), None, (5.0, 5.0)]
    assert interval_coverage(intervals, [1.5, 5.0, 1.0, 5.0])["value"] == 0.5
    width = interval_width(intervals)
    assert width is not None
    assert width["value"] == 2.0
    assert interval_width([None]) is None


def test_risk_coverage_answers_the_surest_first() -> None:
    errors, spreads = np.array([0.4, 0.1, 0.2, 0.3]), np.array([np.inf, 0.1, 0.2, 0.3])
    points = risk_coverage(errors, spreads, steps=4)
    assert [point["share"] for point in points] == [0.25, 0.5, 0.75, 1.0]
    assert [point["median_ape"] for point in points] == pytest.approx([0.1, 0.15, 0.2, 0.25])
    assert [point.get("spread") for point in points] == [0.1, 0.2, 0.3, None]


def test_reasoning_by_hand() -> None:
    true = [0.2, -0.4, 0.3, 0.2, MIN_CHANGE / 2]
    predicted = [0.1, -0.4, -0.3, None, -5.0]  # the last true change is too small to count
    found = reasoning_scores(["material", "size", "size", "material", "size"], predicted, true)
    assert (found["n"], found["n_too_small"]) == (4, 1)
    assert found["sign_accuracy"]["value"] == 0.5
    slope = (0.02 + 0.16 - 0.09) / (0.04 + 0.16 + 0.09 + 0.04)
    assert found["slope"]["value"] == pytest.approx(slope)
    assert found["by_attribute"]["size"]["sign_accuracy"]["value"] == 0.5
    assert reasoning_scores(["size"], [0.1], [0.01]) == {}


def test_a_model_that_does_not_move_is_at_chance_and_zero() -> None:
    found = reasoning_scores(["size"] * 40, [0.0] * 40, [0.3, -0.3] * 20)
    assert found["sign_accuracy"]["value"] == 0.5
    assert found["slope"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_slices_show_a_category_that_is_always_wrong() -> None:
    kinds = ["COATS"] * 20 + ["HATS"] * 10 + ["BAGS"] * 2
    records = [
        ProductRecord(str(row), (encoded(100 if row < 25 else 600),), "g", None, kind, 100.0 + row)
        for row, kind in enumerate(kinds)
    ]
    truth = Truth.of(records, ("category", "price"))
    answers = {"category": ["COATS"] * 32, "price": [100.0 + row for row in range(32)]}
    found = slices(records, truth, answers)
    by_category = {part["name"]: part for part in found["category"]}
    assert list(by_category) == ["COATS", "HATS", "others"]  # 2 bags are too few for a slice of their own
    assert by_category["HATS"]["scores"]["category"]["accuracy"]["value"] == 0.0
    assert by_category["COATS"]["n"] == 20
    assert [(part["name"], part["n"]) for part in found["picture size"]] == [("below 256 px", 25), ("below 1024 px", 7)]
    assert [part["n"] for part in found["price band"]] == [8, 8, 8, 8]
    assert found["price band"][0]["name"].startswith("100 to")


def encoded(width: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, 20)).save(buffer, "PNG")
    return buffer.getvalue()


def test_price_bands_are_quarters() -> None:
    bands, names = price_bands([float(price) for price in range(1, 101)])
    assert [bands.count(name) for name in names] == [25, 25, 25, 25]
    assert bands[0] == names[0]
    assert set(price_bands([5.0] * 8)[0]) == {"5 to 5"}
