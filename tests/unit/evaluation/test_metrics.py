"""Scores equal hand-computed values and the libraries'; failures stay in every denominator."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics import CHRF
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


@given(st.lists(st.floats(0, 10), min_size=5, max_size=60))
def test_conformal_quantile_covers_its_share(residuals: list[float]) -> None:
    bound = metrics.conformal_quantile(residuals, 0.8)
    assert bound is not None
    assert np.mean(np.array(residuals) <= bound) >= 0.8


def test_too_few_rows_give_no_interval() -> None:
    assert metrics.conformal_quantile([0.1, 0.2, 0.3], 0.8) is None
    assert metrics.conformal_quantile([]) is None
