"""What the parts of the evaluation page say: leads, pictures, twins, curves, intervals, slices, confusions, facts."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest
from evaluations import Balance, record, result_of, whole_result

from appraiser.evaluation.evaluate import EvalResult
from appraiser.evaluation.metrics import Score
from appraiser.evaluation.report.confusion import MAX_WHOLE, confusion_section
from appraiser.evaluation.report.gains import outcome
from appraiser.evaluation.report.lines import MAX_POINTS, axis_of, line_chart, linear_ticks, thinned
from appraiser.evaluation.report.page import render_report
from appraiser.evaluation.report.tables import dot
from appraiser.evaluation.report.words import chance, gain_number, short_span
from appraiser.predict import Prediction


@pytest.fixture(scope="module")
def full() -> EvalResult:
    return whole_result()


@pytest.fixture(scope="module")
def page(full: EvalResult) -> str:
    return render_report(full)


def section(page: str, key: str) -> str:
    found = page[page.index(f'<section id="{key}"') :]
    return found[: found.index("</section>")]


def rendered(full: EvalResult, **scores: Any) -> str:
    return render_report(replace(full, scores=full.scores | scores))


def row_of(html: str, name: str) -> str:
    """The table row that begins with a name."""
    return next(row for row in html.split("<tr>") if re.match(f'<th scope="row">(<a [^>]*>)?{re.escape(name)}', row))


def test_every_rival_has_its_paired_lead_with_interval_and_p(full: EvalResult, page: str) -> None:
    lead, picture = section(page, "lead"), section(page, "picture")
    knn = full.scores["differences"]["knn"]["price"]
    cell = row_of(lead, "Nearest neighbours").split("<td>")[1]
    assert gain_number(knn["gain"]["value"], "share") in cell
    assert f"{gain_number(knn['gain']['low'], 'share')} to {gain_number(knn['gain']['high'], 'share')}" in cell
    assert chance(knn["p_value"]) in cell
    assert lead.count('<th scope="row">') == 1 + 1 + 5  # before, the other model, baselines
    assert picture.count('<th scope="row">') == 4
    assert row_of(lead, "Category median").count("<td>—</td>") == 3  # it has prices only
    assert "The rim of the own picture" in picture


@pytest.mark.parametrize(
    ("low", "high", "word"), [(0.1, 0.2, "ahead"), (-0.1, 0.2, "may be chance"), (-0.2, -0.1, "behind")]
)
def test_a_lead_is_one_only_where_its_interval_leaves_zero(low: float, high: float, word: str) -> None:
    assert outcome({"value": (low + high) / 2, "low": low, "high": high})[2] == word


def test_page_says_field_by_field_whether_the_picture_is_needed(full: EvalResult, page: str) -> None:
    gain = {"value": 50.0, "low": 40.0, "high": 60.0}
    for p_value, said in ((0.004, "✓ The picture is needed"), (0.4, "✗ The picture may not be needed")):
        gains = {"shuffled": {"title": {"metric": "chrf", "gain": gain, "p_value": p_value}}}
        found = section(rendered(full, differences=gains), "picture")
        assert f"{said} for the title (against another product's: p {p_value:.3f})." in found


def test_rim_that_tells_much_is_marked(full: EvalResult) -> None:
    def gain(value: float) -> dict[str, Any]:
        score = {"value": value, "low": value, "high": value}
        return {"price": {"metric": "median_ape", "gain": score, "p_value": 0.001}}

    for of_the_rim, said in ((0.1, "✗ 80% of what the picture tells about the price"), (0.45, "✓ 10% of what")):
        shown = rendered(full, differences={"shuffled": gain(0.5), "surroundings": gain(of_the_rim)})
        assert said in section(shown, "picture")


def test_twins_are_scored_together_and_by_attribute(full: EvalResult, page: str) -> None:
    found = section(page, "reasoning")
    assert "1 more whose true prices differ by less than 15% are left out." in found
    assert "100.0%<small>" in row_of(found, "all twins")
    assert "<td>1</td>" in row_of(found, "material")
    assert "<td>2</td>" in row_of(found, "size")
    assert 'id="reasoning"' not in rendered(full, reasoning={})


def test_curves_show_first_what_matters_and_skip_what_is_no_number(page: str) -> None:
    found = section(page, "training")
    unfolded, folded = found.split("<details")
    assert "0.2 at step 20, the lowest." in unfolded
    assert "Training loss: 4 at step 1, 0.2 at step 20, the lowest, 20 points, logarithmic axis" in unfolded
    assert "0.75 at step 20, the highest." in unfolded
    assert "Measured once: Validation: median price error 25.0% (step 20)." in unfolded
    assert "train/grad_norm: 2 at step 1, 1 at step 3, 2 points" in folded
    assert "nan" not in found


def test_no_curves_no_section(full: EvalResult) -> None:
    assert 'id="training"' not in rendered(full, curves={})
    assert 'id="training"' not in rendered(full, curves={"train/loss": [[1, math.nan]]})


def test_learning_curve_has_its_sentence_charts_and_table(full: EvalResult, page: str) -> None:
    found = section(page, "more-data")
    assert "<p>More data would bring little.</p>" in found
    assert found.count('class="lines"') == 2
    assert "50%" in row_of(found, "20")
    assert "<li>Training on 50%: no price intervals</li>" in found
    one = full.scores["learning_curve"]["points"][:1]
    assert 'class="lines"' not in section(rendered(full, learning_curve={"points": one, "sentence": ""}), "more-data")


def test_other_model_is_a_row_and_its_largest_differences_are_listed(page: str) -> None:
    assert "Other model: runs/other" in section(page, "numbers")
    found = section(page, "against")
    price = row_of(found, "Red Coat 3")
    assert 'href="#product-4"' in price
    assert "<td>103</td>" in price
    assert "<td>900<small>+773.8%</small></td>" in price
    assert '<td><span class="right">✓</span>\N{NO-BREAK SPACE}110<small>+6.8%</small></td>' in price
    label = row_of(found, "product 5")
    assert '<td><span class="right">✓</span>\N{NO-BREAK SPACE}HATS</td><td>COATS</td>' in label


def test_intervals_are_held_against_their_promise(full: EvalResult, page: str) -> None:
    found = section(page, "trust")
    narrow = row_of(found, "80 % interval")
    assert "<td>80%</td>" in narrow
    assert "✓ as promised" in narrow
    assert "1.56×" in narrow
    assert "2.00×" in row_of(found, "90 % interval")
    for value, said in ((0.5, "✗ too narrow"), (0.99, "≈ too cautious")):
        score = {"value": value, "low": value - 0.01, "high": value + 0.01}
        price = full.scores["price"] | {"interval_80_coverage": score}
        assert said in row_of(section(rendered(full, price=price), "trust"), "80 % interval")


def test_page_says_what_abstaining_would_buy(full: EvalResult, page: str) -> None:
    points = full.scores["risk_coverage"]
    half = next(point for point in points if point["share"] == 0.5)
    said = f"If only the surest 50% are answered, half of these prices are within {half['median_ape']:.1%} of the truth"
    assert said in section(page, "trust")


def test_worst_slices_come_first_and_are_marked(full: EvalResult) -> None:
    def part(name: str, value: float) -> dict[str, Any]:
        score = {"value": value, "low": value - 0.05, "high": value + 0.05}
        return {"name": name, "n": 9, "scores": {"price": {"median_ape": score}, "category": {"accuracy": score}}}

    price = full.scores["price"] | {"median_ape": {"value": 0.2, "low": 0.1, "high": 0.3}}
    cuts = {"category": [part("BAGS", 0.2), part("HATS", 0.5)], "price band": [part("1 to 9", 0.1), part("9 up", 0.9)]}
    found = section(rendered(full, price=price, slices=cuts), "slices")
    assert re.findall(r'<th scope="row">([^<]+)</th>', found) == ["HATS", "BAGS", "1 to 9", "9 up"]
    worst = row_of(found, "HATS").split("<td>")
    assert "▼ worst" in worst[2]
    assert "✗ worse than usual" in worst[2]
    assert "▼ worst" not in worst[3]
    assert "▼ worst" in row_of(found, "BAGS").split("<td>")[3]


def test_confusions_are_told_and_counted() -> None:
    labels = ["BAGS", "HATS", "(others)"]
    found = confusion_section({"confusion": {"labels": labels, "counts": [[7, 3, 0], [0, 5, 1], [0, 0, 2]]}})
    assert "<li>BAGS taken for HATS: 3 of 10</li><li>HATS taken for (others): 1 of 6</li>" in found
    assert '<td class="hit shade-4">7</td><td class="miss shade-2">3</td><td class="none">0</td><td>10</td>' in found
    assert '<td class="open shade-5">2</td>' in found  # may be right or wrong
    assert "<caption>" in found


def test_large_confusions_show_only_what_was_mixed_up() -> None:
    size = MAX_WHOLE + 4
    counts = [[5 * (row == column) for column in range(size)] for row in range(size)]
    labels = [f"C{row}" for row in range(size - 1)] + ["(others)"]
    assert confusion_section({"confusion": {"labels": labels, "counts": counts}}) == (
        "<p>No category was taken for another.</p>"
    )
    counts[2][9] = 1
    found = confusion_section({"confusion": {"labels": labels, "counts": counts}})
    assert re.findall(r'<th scope="row">(\w+)</th>', found) == ["C2", "C9"]
    assert "all others were always right" in found


def test_facts_tell_data_settings_and_versions(page: str) -> None:
    found = section(page, "facts")
    for label, value in (
        ("Rows of the source", "1,301"), ("Left out, by reason", "no_picture 1"), ("Splits", "train 1,288 · test 12"),
        ("Licence", "not stated"), ("optim.learning_rate", "0.001"), ("optim.tower", "none"), ("torch", "2.9"),
        ("model.base", "phi3v-tiny"), ("Training products known to the baselines", "40"),
    ):  # fmt: skip
        assert f'<th scope="row">{label}</th><td>{value}</td>' in found
    assert "<summary>Settings of the run (3)</summary>" in found


def test_report_without_the_new_parts_still_renders() -> None:
    records = [record(row) for row in range(3)]
    silent = Prediction({}, None, None, 0.1, "", False, True)
    found = render_report(result_of(records, [silent] * 3))
    for key in ("lead", "against", "picture", "reasoning", "training", "more-data", "trust", "slices", "confusion"):
        assert f'id="{key}"' not in found
    assert "None" not in Balance(found).text


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (0, 1000, [0, 250, 500, 750, 1000]), (0.31, 0.38, [0.32, 0.34, 0.36, 0.38])],
)
def test_ticks_are_round_and_few(low: float, high: float, ticks: list[float]) -> None:
    assert linear_ticks(low, high) == ticks


@pytest.mark.parametrize("values", [[0.0], [5.0], [-3.0, -1.0], [1e-9, 2e-9], [0.0, 1e12]])
@pytest.mark.parametrize("from_zero", [False, True])
def test_axes_hold_all_values(values: list[float], from_zero: bool) -> None:
    axis = axis_of(values, str, from_zero=from_zero)
    assert axis.low < axis.high
    assert all(0 <= axis.share(value) <= 1 for value in values)
    assert 1 <= len(axis.ticks()) <= 8


def test_long_curves_are_thinned_but_end_where_they_ended() -> None:
    points = [(float(step), 1.0) for step in range(10_000)]
    drawn = thinned(points)
    assert len(drawn) == MAX_POINTS
    assert drawn[-1] == points[-1]
    assert thinned(points[:5]) == points[:5]


def test_line_charts_stay_within_their_frame() -> None:
    points = [(1.0, 3.0), (5.0, -2.0)]
    chart = line_chart(points, axis_of([1, 5], str), axis_of([3, -2], str), "step", "falls")
    path = re.search(r'class="line" d="M([^"]+)"', chart)
    assert path is not None
    assert all(0 <= float(number) <= 330 for number in re.findall(r"[-\d.]+", path[1]))


def test_drawn_intervals_stay_on_their_axis() -> None:
    score: Score = {"value": 0.5, "low": -9.0, "high": 9.0}
    numbers = [float(number) for number in re.findall(r"-?\d+\.\d", dot(score, 0.0, 1.0, 2.0))]
    assert numbers
    assert all(0 <= number <= 110 for number in numbers)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.123, "share", "+12.3"), (-0.5, "points", "\N{MINUS SIGN}0.5"), (-1e-9, "share", "0.0")],
)
def test_gains_have_signs(value: float, unit: Any, text: str) -> None:
    assert gain_number(value, unit) == text


def test_intervals_of_one_number_are_written_once() -> None:
    assert short_span({"value": 1.0, "low": 1.0, "high": 1.0}, "share") == "100.0%"
    assert short_span({"value": 0.0, "low": -0.5, "high": 0.5}, "plain") == "\N{MINUS SIGN}0.500 to 0.500"
