"""Scores equal hand-computed values and the libraries'; failures stay in every denominator."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sacrebleu.metrics import CHRF
from scipy.stats import spearmanr
from sklearn.metrics import f1_score, mean_absolute_error, mean_squared_log_error

from appraiser.evaluation import metrics


def test_price_scores_by_hand() -> None:
    scores = metrics.price_scores([110.0, 180.0, None, 400.0], [100.0, 200.0, 300.0, 400.0])
    # relative errors: 0.10, 0.10, 1.00 (nothing said counts as 0), 0.00
    assert scores["median_ape"]["value"] == pytest.approx(0.10)
    assert scores["mae"]["value"] == pytest.approx((10 + 20 + 300 + 0) / 4)
    assert scores["within_10"]["value"] == 0.75
    assert scores["within_20"]["value"] == 0.75


def test_price_scores_equal_the_library() -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.uniform(50, 500, 60), rng.uniform(50, 500, 60)
    scores = metrics.price_scores(list(predicted), list(true))
    assert scores["mae"]["value"] == pytest.approx(mean_absolute_error(true, predicted))
    assert scores["rmsle"]["value"] == pytest.approx(math.sqrt(mean_squared_log_error(true, predicted)))


def test_category_scores_equal_the_library() -> None:
    rng = np.random.default_rng(1)
    labels = ["BAGS", "COATS", "HATS"]
    true = [labels[i] for i in rng.integers(0, 3, 50)]
    predicted = [t if rng.random() < 0.6 else [*labels, "SHOES"][rng.integers(0, 4)] for t in true]
    scores = metrics.category_scores(predicted, true)
    assert scores["accuracy"]["value"] == pytest.approx(np.mean([p == t for p, t in zip(predicted, true, strict=True)]))
    expected = f1_score(true, predicted, labels=labels, average="macro")
    assert scores["macro_f1"]["value"] == pytest.approx(expected)
    index = {label: i for i, label in enumerate(labels)}
    fast = metrics._macro_f1(np.array([index.get(p, 3) for p in predicted]), np.array([index[t] for t in true]), 3)
    assert fast == pytest.approx(expected)


def test_a_missing_category_is_a_wrong_one() -> None:
    assert metrics.category_scores([None, "A"], ["A", "A"])["accuracy"]["value"] == 0.5


def test_title_scores_by_hand_and_library() -> None:
    scores = metrics.title_scores(["red WOOL coat!", None], ["Red Wool Coat", "Blue Hat"])
    assert scores["exact"]["value"] == 0.5
    chrf = CHRF().sentence_score("red WOOL coat!", ["Red Wool Coat"]).score
    assert scores["chrf"]["value"] == pytest.approx(chrf / 2)


def test_visible_words_are_counted_by_title() -> None:
    found = metrics.visible_words(["Red Coat", None], ["Red Wool Coat", "Blue Hat"])
    assert found["value"] == pytest.approx((2 / 3 + 0) / 2)


def test_intervals_hold_the_value_and_shrink_with_rows() -> None:
    rng = np.random.default_rng(2)
    few, many = (metrics.score(rng.normal(1.0, 0.5, n)) for n in (40, 4000))
    for found in (few, many):
        assert found["low"] <= found["value"] <= found["high"]
    assert many["high"] - many["low"] < (few["high"] - few["low"]) / 5


def test_interval_of_a_proportion_covers_the_truth() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(100):
        found = metrics.score((rng.random(200) < 0.7).astype(float))
        hits += found["low"] <= 0.7 <= found["high"]
    assert hits >= 88  # 95 expected; below 88 has a chance of about one in a thousand


def test_more_price_scores_by_hand_and_library() -> None:
    scores = metrics.price_scores([120.0, 200.0, None], [100.0, 250.0, 300.0])
    assert scores["within_25"]["value"] == pytest.approx(2 / 3)
    assert scores["smape"]["value"] == pytest.approx((20 / 110 + 50 / 225 + 2.0) / 3)
    rng = np.random.default_rng(5)
    true = rng.uniform(50, 500, 80)
    predicted = true * np.exp(rng.normal(0, 0.5, 80))
    found = metrics.price_scores(list(predicted), list(true))["spearman"]
    assert found["value"] == pytest.approx(spearmanr(predicted, true).statistic)
    assert found["low"] < found["value"] < found["high"] <= 1
    assert "spearman" not in metrics.price_scores([5.0, 5.0], [1.0, 2.0])  # one price for all has no order


def test_many_rank_correlations_at_once_equal_the_library() -> None:
    rng = np.random.default_rng(6)
    p, t = rng.integers(0, 9, (5, 30)).astype(float), rng.integers(0, 9, (5, 30)).astype(float)
    expected = [spearmanr(a, b).statistic for a, b in zip(p, t, strict=True)]
    assert metrics._rank_correlation(p, t, axis=1) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("said", "true", "expected"),
    [
        ("red wool coat", "Red Coat", 2 * 2 / 5),
        ("coat coat", "coat", 2 * 1 / 3),
        ("", "", 1.0),
        ("", "coat", 0.0),
        ("Coat!", "coat", 1.0),
    ],
)
def test_token_f1_by_hand(said: str, true: str, expected: float) -> None:
    assert metrics.token_f1(said, true) == pytest.approx(expected)


def test_texts_are_labels_or_captions_by_how_many_there_are() -> None:
    labels = ["red", "blue"] * 10
    assert metrics.text_scores(labels, labels)["accuracy"]["value"] == 1.0
    captions = [f"a picture of thing {number}" for number in range(20)]
    assert "accuracy" not in metrics.text_scores(captions, captions)


def test_headlines_have_the_value_of_their_metric() -> None:
    prices = metrics.headline("price", [110.0, None, 90.0], [100.0, 100.0, 100.0])
    assert prices.rows.tolist() == pytest.approx([0.1, 1.0, 0.1])
    labels = metrics.headline("category", ["A", "B"], ["A", "A"])
    assert (labels.metric, labels.rows.tolist()) == ("accuracy", [1.0, 0.0])
    assert metrics.headline("title", ["x"], ["x"]).rows.tolist() == [100.0]


def test_paired_differences_see_what_intervals_cannot() -> None:
    rng = np.random.default_rng(7)
    hard = rng.uniform(0, 1, 200)  # some rows are hard for everybody
    mine = metrics.Headline("median_ape", True, hard, np.median)
    other = metrics.Headline("median_ape", True, hard + 0.03, np.median)
    found = metrics.difference(mine, other)
    assert found["value"] == pytest.approx(0.03)
    assert found["low"] > 0.0
    alone = [metrics.score(rows, np.median) for rows in (hard, hard + 0.03)]
    assert alone[0]["high"] > alone[1]["low"]
    assert metrics.difference(other, mine)["value"] == pytest.approx(-0.03)
    assert metrics.difference(mine, mine) == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_large_tables_are_resampled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(8).normal(size=500)
    whole = metrics.score(values)
    monkeypatch.setattr(metrics, "RESAMPLED_AT_ONCE", 500 * 7)
    in_parts = metrics.score(values)
    assert in_parts == pytest.approx(whole)  # the same draws, some at a time
