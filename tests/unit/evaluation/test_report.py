"""The evaluation page: well-formed, self-contained, safe, and showing the numbers of the scores."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from dataclasses import replace
from typing import Any

import pytest
from evaluations import FIELDS, HOSTILE, Balance, answer, picture, record, result_of, whole_result
from PIL import Image

from appraiser.data.records import ProductRecord
from appraiser.evaluation.evaluate import EvalResult
from appraiser.evaluation.report.judged import judge
from appraiser.evaluation.report.page import display_name, render_report
from appraiser.evaluation.report.plots import PricePoint, price_scatter, scale_of
from appraiser.evaluation.report.products import CARDS_PER_END, choose_cards, evenly
from appraiser.evaluation.report.words import METRICS, MORE_METRICS, lookup, methods, number, span
from appraiser.evaluation.scores import Truth, score_columns
from appraiser.pages.thumbnails import MAX_THUMBNAIL_BYTES, picture_uri
from appraiser.pages.words import amount, shorten
from appraiser.predict import Prediction


@pytest.fixture(scope="module")
def full() -> EvalResult:
    return whole_result()


def test_page_is_well_formed_and_accessible(full: EvalResult) -> None:
    page = render_report(full)
    seen = Balance(page)
    assert page.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert len(seen.values("id")) == len(set(seen.values("id")))
    assert seen.headings[0] == 1
    assert seen.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(seen.headings, seen.headings[1:], strict=False))
    assert len([tag for tag, name, value in seen.attributes if (tag, name) == ("img", "alt") and value]) == 12
    assert page.count("<table") == page.count("<caption")
    assert len(re.findall(r"<svg [^>]*(?:role=\"img\" aria-label=\"[^\"]|aria-hidden=\"true\")", page)) == page.count(
        "<svg"
    )
    assert {target for target in seen.values("href")} <= {f"#{name}" for name in seen.values("id")}
    assert {name for name in seen.values("aria-labelledby")} <= set(seen.values("id"))


def test_sections_come_in_order_and_all_are_linked(full: EvalResult) -> None:
    page = render_report(full)
    keys = re.findall(r'<section id="([\w-]+)" aria-labelledby', page)
    assert keys == [
        "numbers", "lead", "against", "picture", "reasoning", "training", "more-data", "prices", "trust", "slices",
        "confusion", "products-0", "figures", "facts", "units",
    ]  # fmt: skip
    assert page.index('class="verdict"') < page.index('class="tiles"') < page.index('id="numbers"')
    assert re.findall(r'<li><a href="#([\w-]+)">', page) == keys


def test_gallery_is_linked_only_where_there_is_one(full: EvalResult) -> None:
    assert "gallery" not in render_report(full)
    page = render_report(full, "gallery.html")
    links = {target for target in Balance(page).values("href") if not target.startswith("#")}
    assert links == {"gallery.html", "gallery.html#category=COATS", "gallery.html#category=HATS"}


def test_products_without_a_card_lead_to_the_gallery() -> None:
    records = [record(row) for row in range(60)]
    result = result_of(records, [answer(r, price=100.0 + 3 * row) for row, r in enumerate(records)])
    page = render_report(result, "gallery.html")
    assert '<a href="gallery.html#product=31" tabindex="-1">' in page
    assert '<a href="#product-60" tabindex="-1">' in page
    assert "gallery.html#product=60" not in page


def test_page_fetches_nothing_and_runs_nothing(full: EvalResult) -> None:
    page = render_report(full)
    seen = Balance(page)
    assert all(source.startswith("data:image/jpeg;base64,") for source in seen.values("src"))
    assert all(target.startswith("#") for target in seen.values("href"))
    assert not any(tag in ("script", "link", "iframe", "object", "base") for tag, _, _ in seen.attributes)
    assert "<script" not in page
    assert not any(name.startswith("on") or name == "style" for _, name, _ in seen.attributes)
    style = page[page.index("<style>") + len("<style>") : page.index("</style>")]
    assert not re.search(r"@import|url\(|https?:", style)


def test_policy_allows_the_pages_own_style_and_nothing_else(full: EvalResult) -> None:
    page = render_report(full)
    style = page[page.index("<style>") + len("<style>") : page.index("</style>")]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    [policy] = [value for value in Balance(page).values("content") if "default-src" in value]
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def hostile(value: Any, key: str = "") -> Any:
    """The value with every name and text of data made hostile; names that the report relies on stay."""
    match value:
        case dict():
            is_data = key in ("curves", "by_attribute", "data", "settings", "versions", "splits", "fields")
            return {f"{HOSTILE}{name}" if is_data else name: hostile(item, name) for name, item in value.items()}
        case list():
            return [hostile(item, key) for item in value]
        case str() if key != "metric":
            return HOSTILE
    return value


def test_texts_from_data_are_escaped_everywhere() -> None:
    records = [record(row, title=HOSTILE, category=HOSTILE, currency=HOSTILE) for row in range(3)]
    fields: dict[str, str | float] = {"title": HOSTILE + " x", "category": HOSTILE, "price": 90.0, "brand<b>": HOSTILE}
    predictions = [Prediction(fields, HOSTILE, None, 0.5, HOSTILE, True, True) for _ in records]
    base = result_of(
        records, predictions, baselines={'<i a="b">': score_columns(Truth.of(records, FIELDS), {"price": [1.0] * 3})}
    )
    rest = {key: value for key, value in hostile(whole_result().scores).items() if key not in base.scores}
    assert {"slices", "curves", "against", "learning_curve", "reasoning", "data", "settings"} <= set(rest)
    scores = base.scores | rest | dict.fromkeys(("model", "dataset", "split", "dataset_sha256", "x<u>"), HOSTILE)
    said = [HOSTILE, "WARNING " + HOSTILE]
    page = render_report(EvalResult(scores, records, predictions, said, [records] * 3), f"{HOSTILE}.html")
    seen = Balance(page)
    assert "<script" not in page
    assert "<img src=x" not in page
    assert not re.search(r"<(i|u|b)\b", page)
    assert {name for _, name, _ in seen.attributes}.isdisjoint({"onerror", "quoted", "double", "a"})
    assert HOSTILE in seen.text  # the reader still sees what the data says


def test_numbers_shown_are_those_of_the_scores(full: EvalResult) -> None:
    page = render_report(full)
    for method in methods(full.scores):
        for metric in METRICS:
            score = lookup(method.part, metric)
            if score is not None:
                assert f"{number(score['value'], metric.unit)}<small>" in page
    headline = full.scores["price"]["median_ape"]
    assert f'<p class="big">{headline["value"]:.1%}</p>' in page
    assert f"95 % interval {headline['low']:.1%} to {headline['high']:.1%}" in page
    assert f'<p class="big">{full.scores["category"]["accuracy"]["value"]:.1%}</p>' in page
    assert f'<p class="big">{full.scores["title"]["visible_words"]["value"]:.1%}</p>' in page
    assert span(full.scores["price"]["interval_80_coverage"], "share") in page
    assert '<th scope="row">Products scored</th><td>12</td>' in page
    assert full.scores["dataset_sha256"] in page
    for metric in MORE_METRICS:
        score = lookup(full.scores, metric)
        assert score is not None
        assert f"<td>{number(score['value'], metric.unit)}</td><td>{span(score, metric.unit)}</td>" in page


def test_every_row_of_the_table_is_named_and_explained(full: EvalResult) -> None:
    text = Balance(render_report(full)).text
    names = [method.name for method in methods(full.scores)]
    assert len(names) == 1 + 2 + 5 + 4 + 1
    for method in methods(full.scores):
        assert method.name in text
        assert method.explanation in text
    assert "It is told the true category" in text


def test_all_sentences_of_the_verdict_are_shown_and_bad_ones_are_loud(full: EvalResult) -> None:
    sentences = ["Half of the prices are fine.", "Prices do NOT beat the baseline x.", "WARNING: may not look."]
    page = render_report(EvalResult(full.scores, full.records, full.predictions, sentences))
    box = page[page.index('<div class="warning"') : page.index('<ul class="verdict">')]
    assert sentences[1] in box
    assert sentences[2] in box
    assert sentences[0] not in box
    assert sentences[0] in page
    assert 'class="warning"' not in render_report(EvalResult(full.scores, full.records, full.predictions, ["Fine."]))


def test_scores_on_training_products_are_called_worthless(full: EvalResult) -> None:
    page = render_report(EvalResult(full.scores | {"split": "train"}, full.records, full.predictions, []))
    assert "WARNING: these products were in training" in page


def test_parts_without_scores_are_left_out() -> None:
    records = [record(row, title=None, price=None, currency=None) for row in range(4)]
    predictions = [Prediction({"category": "HATS"}, None, None, 0.5, "Category: HATS", True, True) for _ in records]
    page = render_report(result_of(records, predictions, ("category",)))
    seen = Balance(page)
    assert page.count('class="tile"') == 1
    assert "<h2>Categories right</h2>" in page
    assert 'id="prices"' not in page
    assert "Oracle" not in seen.text
    assert "Before fine-tuning" not in seen.text
    assert "Baselines" not in seen.text
    assert "chrF</th>" not in page
    assert '<th scope="row">price</th>' not in page
    assert "None" not in seen.text
    assert "Ordered by category wrong (0 or 1)." in seen.text


def test_other_fields_of_a_task_are_compared_with_the_sources_columns() -> None:
    records = [record(0, extra={"brand": "Acme"}), record(1, extra={"brand": "Acme"})]
    predictions = [answer(records[0], brand="Acme"), answer(records[1], brand="Other")]
    page = render_report(result_of(records, predictions))
    assert "wrong brand" in page
    assert page.count('<th scope="row">brand</th>') == 2


def test_other_fields_have_tiles_and_a_table_of_their_own(full: EvalResult) -> None:
    page = render_report(full)
    brand = full.scores["fields"]["brand"]["accuracy"]
    assert f'<h2>Brand: right</h2><p class="big">{brand["value"]:.1%}</p>' in page
    table = page[page.index("All methods on the same 12 products: other fields</span>") :]
    table = table[: table.index("</table>")]
    assert f"{brand['value']:.1%}<small>" in table
    assert "Another product&#x27;s picture" in table
    assert "Nearest neighbours" not in table  # these did not answer it
    assert "chrF" in table


def test_metrics_without_words_are_shown_under_their_own_path(full: EvalResult) -> None:
    score = {"value": 0.5, "low": 0.4, "high": 0.6}
    page = render_report(replace(full, scores=full.scores | {"luck": {"share": score}, "speed": score}))
    for name in ("luck.share", "speed"):
        assert f'<th scope="row">{name}</th><td>0.500</td><td>0.400 to 0.600</td>' in page
    assert not re.search(r'<th scope="row">\w+\.(parse_rate|slope|median_ape)</th>', render_report(full))


def test_wrong_parts_are_marked_by_signs_and_words(full: EvalResult) -> None:
    page = render_report(full)
    worst = page[page.index('id="product-4"') :]
    worst = worst[: worst.index("</article>")]
    assert "✗ wrong category" in worst
    assert "✗ price +773.8%" in worst
    assert "<mark>Blue</mark> <mark>Shoe</mark>" in worst
    unread = page[page.index('id="product-5"') :]
    unread = unread[: unread.index("</article>")]
    assert "✗ answer incomplete" in unread
    assert "no idea" in unread
    assert "cut off at the length limit" in unread


def test_cards_tell_how_sure_the_answer_is_and_what_looks_like_the_product(full: EvalResult) -> None:
    page = render_report(full)
    first = page[page.index('id="product-1"') :]
    first = first[: first.index("</article>")]
    assert "confidence 90%, 21 tokens" in first
    assert "price unsure by about 5%; 90 % interval 74 to 147" in first
    assert "most alike in training: Red Jacket 1,290 USD · Red Coat 51 151 USD · Red Coat 52 152 USD</p>" in first


def test_prices_that_were_left_out_or_are_in_another_currency_are_wrong() -> None:
    records = [record(0), record(1)]
    silent = Prediction(
        {"title": "Red Coat 0"}, "USD", None, 0.9, "x", True, True, abstained="100 to 900 seem possible"
    )
    fields: dict[str, str | float] = {"title": "Red Coat 1", "price": 101.0, "currency": "EUR"}
    foreign = Prediction(fields, "EUR", None, 0.9, "y", True, True)
    page = render_report(result_of(records, [silent, foreign], ("title", "price", "currency")))
    assert "✗ price left out" in page
    assert "price left out: 100 to 900 seem possible" in page
    assert "answer incomplete" not in page
    assert "✗ other currency" in page
    assert "✗ wrong currency" in page


def test_worst_products_come_first_and_unreadable_answers_count_as_wrong(full: EvalResult) -> None:
    judged = judge(full.records, full.predictions, full.scores)
    assert {product.row for product in judged[:2]} == {3, 4}
    assert judged[0].row == 4  # nothing read is as wrong as it gets
    assert judged[0].badness == 1.0


def test_many_products_are_bounded_in_cards_and_bytes() -> None:
    busy = picture(1, (400, 300), noise=True)
    records = [ProductRecord(str(row), (busy,), str(row), f"Coat {row}", "COATS", 100.0, "USD") for row in range(310)]
    predictions = [answer(r, price=80.0 + row) for row, r in enumerate(records)]
    page = render_report(result_of(records, predictions), "gallery.html")
    assert page.count("<article") == 2 * CARDS_PER_END
    assert len(page.encode()) < 2_000_000
    assert page.count("All products are in the gallery.") == 2
    Balance(page)


def test_few_products_appear_once_each(full: EvalResult) -> None:
    [(heading, _, products)] = choose_cards(judge(full.records, full.predictions))
    assert heading == "All products, worst first"
    assert len(products) == 12


def test_worst_and_best_do_not_overlap() -> None:
    records = [record(row) for row in range(60)]
    judged = judge(records, [answer(r, price=100.0 + 3 * row) for row, r in enumerate(records)])
    worst, best = (products for _, _, products in choose_cards(judged))
    assert len(worst) == len(best) == CARDS_PER_END
    assert {p.row for p in worst}.isdisjoint(p.row for p in best)
    assert worst[0].price_error == max(p.price_error for p in judged)
    assert best[0].price_error == min(p.price_error for p in judged)


def test_thumbnails_stay_small_even_for_noise() -> None:
    uri = picture_uri(picture(3, (640, 640), noise=True))
    data = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
    assert len(data) <= MAX_THUMBNAIL_BYTES
    with Image.open(io.BytesIO(data)) as small:
        assert small.size == (160, 160)


def test_scatter_keeps_absurd_predictions_at_its_edge() -> None:
    points = [PricePoint(f"p{i}", 100.0 * (i + 1), 100.0 * (i + 1), None, None) for i in range(5)]
    points.append(PricePoint("absurd", 200.0, 1e12, (1e11, 1e13), None))
    scale = scale_of(points)
    assert scale.high < 2000
    svg = price_scatter(points, "USD")
    assert svg.count('class="off"') == 1
    assert svg.count('class="near"') == 5
    assert "absurd: true 200, predicted 1e+12" in svg
    ys = [float(y) for y in re.findall(r'cy="([\d.]+)"', svg)]
    assert all(0 <= y <= 480 for y in ys)


def test_scatter_of_a_single_price_has_an_axis() -> None:
    assert "<circle" in price_scatter([PricePoint("one", 10.0, 10.0, None, "#product-1")], None)


def test_no_drawable_price_is_said(full: EvalResult) -> None:
    nothing = [Prediction({}, None, None, 0.1, "", False, True)] * 12
    page = render_report(result_of(full.records, nothing))
    assert "No answer had a price that could be drawn." in page
    assert "(empty)" in page


@pytest.mark.parametrize(
    ("price", "text"), [(1290, "1,290 USD"), (12.5, "12.50 USD"), (0.1 + 0.2, "0.30 USD"), (1e300, "1e+300 USD")]
)
def test_amounts_are_written_as_shops_do(price: float, text: str) -> None:
    assert amount(price, "USD") == text


def test_long_texts_are_cut_and_say_so() -> None:
    assert shorten("a" * 410).endswith("a… (10 more characters)")
    assert shorten("short") == "short"


def test_runs_are_called_by_their_folder() -> None:
    assert display_name("/work/runs/demo/checkpoints/step-40") == "runs/demo"
    assert display_name("phi3v-tiny") == "phi3v-tiny"
    assert display_name("microsoft/Phi-3.5-vision-instruct") == "microsoft/Phi-3.5-vision-instruct"


def test_even_choice_spreads_over_the_whole_sequence() -> None:
    assert evenly(range(10), 5) == [0, 2, 4, 6, 8]
    assert evenly(range(3), 5) == [0, 1, 2]
