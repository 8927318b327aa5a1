"""The gallery: every product once, as data that cannot do harm, beside a report that says so."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluations import HOSTILE, Balance, answer, picture, record, result_of, whole_result

from appraiser.data.records import ProductRecord
from appraiser.evaluation.evaluate import EvalResult, save_result
from appraiser.evaluation.report import gallery
from appraiser.evaluation.report.gallery import render_gallery
from appraiser.predict import Prediction


@pytest.fixture(scope="module")
def full() -> EvalResult:
    return whole_result()


def products_of(page: str) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="products">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def between(page: str, start: str, end: str) -> str:
    return page[page.index(start) + len(start) :].split(end)[0]


def test_report_and_gallery_lie_side_by_side(full: EvalResult, tmp_path: Path) -> None:
    page = save_result(full, tmp_path / "out")
    assert page.name == "report.html"
    assert '<a href="gallery.html">' in page.read_text()
    assert '<a href="report.html">' in (tmp_path / "out/gallery.html").read_text()
    assert json.loads((tmp_path / "out/report.json").read_text())["n"] == 12


def test_every_product_is_there_once_and_the_worst_comes_first(full: EvalResult) -> None:
    products = products_of(render_gallery(full))
    assert sorted(product["number"] for product in products) == list(range(1, 13))
    assert products[0]["number"] == 5
    assert products[0]["badges"] == [["wrong", "answer incomplete"]]
    assert products[0]["priceError"] is None
    assert products[0]["unsure"] is None
    worst = next(product for product in products if product["number"] == 4)
    assert worst["mark"] == "wrong"
    assert worst["priceError"] == pytest.approx(797 / 103, abs=1e-4)
    assert worst["category"] == "HATS"
    [title] = [field for field in worst["fields"] if field["name"] == "title"]
    assert title["said"] == [["Blue", True], ["Shoe", True]]
    assert (
        "most alike in training: Red Jacket 1,290 USD · Red Coat 51 151 USD · Red Coat 52 152 USD" in worst["details"]
    )


def test_page_is_well_formed_and_loads_nothing(full: EvalResult) -> None:
    page = render_gallery(full)
    seen = Balance(page)
    assert seen.headings[0] == 1
    assert len(seen.values("id")) == len(set(seen.values("id")))
    assert set(seen.values("href")) == {"report.html"}
    assert not seen.values("src")
    assert all(product["image"].startswith("data:image/jpeg;base64,") for product in products_of(page))
    controls = [value for tag, name, value in seen.attributes if tag in ("select", "input") and name == "id"]
    assert controls == ["text", "answer", "category", "price", "order"]
    assert seen.values("for") == controls
    assert seen.values("aria-label").count("Page") == 2
    assert not any(name.startswith("on") or name == "style" for _, name, _ in seen.attributes)


def test_policy_allows_one_script_and_the_script_writes_no_html(full: EvalResult) -> None:
    page = render_gallery(full)
    script = between(page, "<script>", "</script>")
    digests = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (between(page, "<style>", "</style>"), script)
    ]
    [policy] = [value for value in Balance(page).values("content") if "default-src" in value]
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert page.count("<script") == 2
    for danger in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(", "http"):
        assert danger not in script


def test_texts_from_data_stay_texts() -> None:
    records = [
        replace(record(row, title=HOSTILE, category=f"{HOSTILE}{row}", currency=HOSTILE), id=HOSTILE)
        for row in range(3)
    ]
    fields: dict[str, str | float] = {"title": HOSTILE, "category": HOSTILE, "price": 90.0, "brand<b>": HOSTILE}
    predictions = [Prediction(fields, HOSTILE, None, 0.5, HOSTILE, True, True) for _ in records]
    result = result_of(records, predictions)
    scores = result.scores | dict.fromkeys(("model", "dataset", "split"), HOSTILE)
    page = render_gallery(replace(result, scores=scores, neighbours=[records] * 3))
    seen = Balance(page)
    assert page.count("<script") == 2
    assert "<img" not in page
    assert {name for _, name, _ in seen.attributes}.isdisjoint({"onerror", "quoted", "double"})
    products = products_of(page)
    assert products[0]["id"] == HOSTILE
    assert products[0]["answer"] == HOSTILE
    assert f"{HOSTILE}1" in seen.values("value")


def test_filters_are_those_that_the_products_have() -> None:
    records = [record(row, title=None, price=None, category="HATS") for row in range(3)]
    predictions = [Prediction({"category": "HATS"}, None, None, 0.5, "HATS", True, True)] * 3
    seen = Balance(render_gallery(result_of(records, predictions, ("category",))))
    controls = [value for tag, name, value in seen.attributes if tag in ("select", "input") and name == "id"]
    assert controls == ["text", "answer", "order"]  # one category, no prices
    assert "unsure" not in seen.values("value")
    assert "wrong:category" in seen.values("value")


def test_very_many_products_are_capped_and_the_page_says_so(full: EvalResult, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "evenly chosen" not in render_gallery(full)
    monkeypatch.setattr(gallery, "MAX_PRODUCTS", 5)
    page = render_gallery(full)
    assert len(products_of(page)) == 5
    assert "5 of the 12 scored products are on this page, evenly chosen" in page


def test_busy_pictures_keep_two_thousand_products_below_12_mb() -> None:
    busy = picture(1, (300, 300), noise=True)
    records = [ProductRecord(str(row), (busy,), str(row), "Coat " * 12, "COATS", 100.0, "USD") for row in range(20)]
    predictions = [answer(r, title="Red " * 12, price=80.0 + row) for row, r in enumerate(records)]
    result = replace(result_of(records, predictions), neighbours=[records[:3]] * 20)
    products = products_of(render_gallery(result))
    per_product = len(json.dumps(products).encode()) / len(products)
    assert 2000 * per_product < 12_000_000


def test_numbers_that_json_has_not_are_left_out() -> None:
    records = [record(0)]
    result = result_of(records, [answer(records[0], price=1e308)])
    found = products_of(render_gallery(result))
    assert found[0]["priceError"] is None or found[0]["priceError"] > 1e300
