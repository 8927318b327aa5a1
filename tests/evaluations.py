"""Evaluation results for tests of the report and the gallery, without a model, and a reader of pages."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
from PIL import Image

from appraiser.data.records import ProductRecord
from appraiser.evaluation.evaluate import EvalResult, confusion
from appraiser.evaluation.intervals import risk_coverage
from appraiser.evaluation.metrics import absolute_percentage_errors
from appraiser.evaluation.reasoning import reasoning_scores
from appraiser.evaluation.scores import Truth, columns_of, differences, score_columns, score_predictions
from appraiser.evaluation.slices import slices
from appraiser.evaluation.verdict import verdict
from appraiser.predict import Prediction
from appraiser.price_distribution import PriceDistribution

VOID = {"meta", "img", "br", "link", "input", "hr"}
FIELDS = ("title", "category", "price")
HOSTILE = """<script>alert("1")</script> 'quoted' "double" & </title><img src=x onerror=y>"""


def picture(seed: int = 0, size: tuple[int, int] = (40, 30), *, noise: bool = False) -> bytes:
    rng = np.random.default_rng(seed)
    shape = (size[1], size[0], 3)
    pixels = rng.integers(0, 256, shape) if noise else np.broadcast_to(rng.integers(0, 256, 3), shape)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def record(row: int, **values: Any) -> ProductRecord:
    known: dict[str, Any] = {
        "title": f"Red Coat {row}", "category": ("COATS", "HATS")[row % 2], "price": 100.0 + row, "currency": "USD",
    }  # fmt: skip
    return ProductRecord(str(row), (picture(row),), str(row), **(known | values))


def answer(of: ProductRecord, *, parsed: bool = True, **values: Any) -> Prediction:
    """A right answer but for `values`; a price comes with its intervals and a distribution."""
    true = {name: getattr(of, name) for name in FIELDS}
    fields = {name: value for name, value in (true | values).items() if value is not None}
    price = fields.get("price")
    return Prediction(
        fields, "USD", (price * 0.8, price * 1.25) if price else None, 0.9, f"Product: {fields.get('title')}", parsed,
        True, 21, (price * 0.7, price * 1.4) if price else None,
        PriceDistribution((price, price * 1.1), (0.5, 0.5), 1.0) if price else None,
    )  # fmt: skip


def result_of(
    records: list[ProductRecord], predictions: list[Prediction], fields: tuple[str, ...] = FIELDS, **more: Any
) -> EvalResult:
    scores: dict[str, Any] = {
        "format": 2, "appraiser": "0.1.0", "model": "runs/demo", "dataset": "/data/shop", "dataset_sha256": "ab" * 32,
        "split": "test", "seconds": 2.5, "products_per_s": 4.0, "device": "cpu", "price_point": "median",
    }  # fmt: skip
    scores |= score_predictions(Truth.of(records, fields), predictions, fields) | more
    return EvalResult(scores, records, predictions, verdict(scores))


def whole_result() -> EvalResult:
    """Twelve products with every part of a report; one answer wrong in everything, one that cannot be read."""
    brands = ("Acme", "Umbra", "Acme", "Acme")
    records = [record(row, extra={"truth_visible_words": "red coat", "brand": brands[row % 4]}) for row in range(12)]
    fields = (*FIELDS, "brand")
    predictions = [answer(r, price=r.price and round(r.price * 1.05), brand="Acme") for r in records]
    predictions[3] = answer(records[3], title="Blue Shoe", category="SHOES", price=900.0, brand="Acme")
    predictions[4] = Prediction({}, "USD", None, 0.1, "no idea", False, False)
    truth = Truth.of(records, fields)
    wrong = [answer(records[-1 - row], brand="Other") for row in range(12)]
    nothing = [predictions[4]] * 12
    prices = [150.0] * 12
    part, before = (score_predictions(truth, shown, fields) for shown in (wrong, nothing))
    cheap: dict[str, Any] = {
        "prior": {"price": prices, "category": ["COATS"] * 12, "title": ["Red Coat"] * 12},
        "global_median": {"price": prices},
        "category_median": {"price": prices},
        "knn": {"price": prices, "title": ["Red Coat"] * 12, "category": ["HATS"] * 12},
        "ridge": {"price": prices, "category": ["HATS"] * 12},
    }
    controls = ("shuffled", "same_category", "blank", "surroundings")
    mine, theirs = (columns_of(truth, shown, fields) for shown in (predictions, wrong))
    rivals = dict.fromkeys(controls, theirs) | cheap | {"before": columns_of(truth, nothing, fields)}
    gains = differences(truth, mine, rivals)
    errors = absolute_percentage_errors(mine["price"], truth.columns["price"])
    moved = {"row": 3, "id": "3", "title": "Red Coat 3", "true": 103.0, "mine": 900.0, "other": 110.0}
    named = {"row": 5, "id": "5", "title": None, "true": "HATS", "mine": "HATS", "other": "COATS"}
    point = score_columns(truth, {"price": prices, "category": ["HATS"] * 12})
    more = {
        "before": before,
        "baselines": {name: score_columns(truth, columns) for name, columns in cheap.items()},
        "baseline_records": 40,
        "controls": dict.fromkeys(controls, part),
        "oracle": score_columns(truth, {"price": [r.price for r in records]}),
        "differences": gains,
        "reasoning": reasoning_scores(
            ["material", "size", "size", "size"], [0.3, -0.2, 0.4, None], [0.5, -0.4, 0.6, 0.01]
        ),
        "curves": {
            "train/loss": [[step, 4.0 / step] for step in range(1, 21)],
            "eval/score": [[10, 0.5], [20, 0.75]],
            "eval/price_median_ape": [[20, 0.25]],
            "train/grad_norm": [[1, 2.0], [2, float("nan")], [3, 1.0]],
        },
        "slices": slices(records, truth, mine),
        "confusion": confusion(mine["category"], truth.columns["category"]),
        "risk_coverage": risk_coverage(errors, np.arange(12.0)),
        "against": {
            "model": "runs/other",
            "scores": part,
            "differences": gains["shuffled"],
            "moved": [moved, named],
        },
        "learning_curve": {
            "points": [
                {"share": 0.5, "n": 20, "scores": point, "warnings": ["no price intervals"]},
                {"share": 1.0, "n": 40, "scores": point},
            ],
            "sentence": "More data would bring little.",
        },
        "data": {
            "source": "shop.csv", "licence": None, "rows_in": 1301, "kept": 1300, "quarantined": 1,
            "quarantined_by_reason": {"no_picture": 1}, "splits": {"train": 1288, "test": 12}, "row_split_leak": 0.5,
        },
        "settings": {"model": {"base": "phi3v-tiny"}, "optim": {"learning_rate": 0.001, "tower": None}},
        "versions": {"python": "3.11", "torch": "2.9"},
    }  # fmt: skip
    result = result_of(records, predictions, fields, **more)
    alike = [[record(50, title="Red Jacket", price=1290.0), record(51), record(52), record(53)]] * 12
    return EvalResult(result.scores, records, predictions, result.verdict, alike)


class Balance(HTMLParser):
    """Fails on tags that are not closed in order; collects attributes, ids, headings and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.headings: list[int] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]
