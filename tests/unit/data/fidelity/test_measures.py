"""Likeness measures: the numbers of SDMetrics, values worked out by hand, and what holds for any table."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appraiser.data.fidelity import measures
from appraiser.data.fidelity.measures import Columns

CASES = json.loads(Path(__file__).with_name("sdmetrics_0_32.json").read_text(encoding="utf-8"))
numbers = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40).map(np.array)
texts = st.lists(st.sampled_from("abcde"), min_size=1, max_size=40)


def columns(table: dict[str, list[object]]) -> Columns:
    return {name: np.array(values) for name, values in table.items()}


@pytest.mark.parametrize("number", range(len(CASES)))
def test_measures_give_the_numbers_of_sdmetrics(number: int) -> None:
    # To 1e-9; TVComplement of SDMetrics adds 1e-6 for every value that the real table lacks. Made by
    # make_sdmetrics_vectors.py with SDMetrics 0.32.0.
    case = CASES[number]
    real, sample, holdout = (columns(case[name]) for name in ("real", "sample", "holdout"))
    texts_of = {name: (case["real"][name], case["sample"][name]) for name in real}
    bins = measures.in_bins(real["price"], sample["price"])
    keys = [value for value in case["sample"]["words"] if value > 3]
    found = {
        "ks_price": measures.ks_complement(real["price"], sample["price"]),
        "ks_words": measures.ks_complement(real["words"], sample["words"]),
        "tv_category": measures.tv_complement(*texts_of["category"]),
        "correlation": measures.correlation_similarity(
            (real["price"], real["words"]), (sample["price"], sample["words"])
        ),
        "contingency": measures.contingency_similarity(
            *((case[name]["category"], case[name]["colour"]) for name in ("real", "sample"))
        ),
        "contingency_price": measures.contingency_similarity(
            (case["real"]["category"], bins[0]), (case["sample"]["category"], bins[1])
        ),
        "category_coverage": measures.category_coverage(*texts_of["category"]),
        "range_coverage": measures.range_coverage(real["price"], sample["price"]),
        "boundary_adherence": measures.boundary_adherence(real["price"], sample["price"]),
        "key_uniqueness": measures.key_uniqueness(case["sample"]["words"]),
        "referential_integrity": measures.referential_integrity(case["sample"]["words"], keys),
        "new_rows": measures.new_row_synthesis(real, sample),
        "dcr_baseline": measures.dcr_baseline_protection(real, sample, seed=5),
        "dcr_overfitting": measures.dcr_overfitting_protection(real, sample, holdout),
    }
    assert found.keys() == case["scores"].keys()
    for name, expected in case["scores"].items():
        assert found[name] == pytest.approx(expected, abs=2e-6 if name == "tv_category" else 1e-9), name


def test_values_worked_out_by_hand() -> None:
    one_to_four = np.array([1.0, 2.0, 3.0, 4.0])
    assert measures.ks_complement(one_to_four, np.array([3.0, 4.0, 5.0, 6.0])) == 0.5
    assert measures.tv_complement("aab", "abb") == pytest.approx(2 / 3)
    assert measures.correlation_similarity((one_to_four, one_to_four), (one_to_four, -one_to_four)) == 0.0
    assert measures.contingency_similarity(("ab", "xy"), ("ab", "yx")) == 0.0
    assert measures.category_coverage("abcd", "abz") == 0.5
    assert measures.range_coverage(np.array([0.0, 10.0]), np.array([1.0, 8.0])) == pytest.approx(0.7)
    assert measures.boundary_adherence(np.array([0.0, 10.0]), np.array([-1.0, 0.0, 10.0, 11.0])) == 0.5
    assert measures.key_uniqueness(["a", "a", None, "b"]) == 0.5
    assert measures.referential_integrity(["a", "c"], ["a", "b"]) == 0.5


def test_a_row_within_one_percent_is_not_new() -> None:
    real = {"price": np.array([100.0, 200.0]), "kind": np.array(["a", "b"])}
    sample = {"price": np.array([100.9, 102.0, 100.0, 200.0]), "kind": np.array(["a", "a", "b", "b"])}
    assert measures.new_row_synthesis(real, sample) == 0.5


def test_distance_to_the_closest_record_is_the_mean_over_the_columns() -> None:
    real = {"price": np.array([0.0, 100.0]), "kind": np.array(["a", "b"])}
    rows = {"price": np.array([10.0, 60.0]), "kind": np.array(["a", "c"])}
    assert measures.distances_to_closest(rows, real).tolist() == pytest.approx([0.05, 0.7])


def test_a_row_is_not_its_own_closest_record() -> None:
    real = {"price": np.array([0.0, 30.0, 100.0])}
    assert measures.distances_to_closest(real, real, is_same=True).tolist() == pytest.approx([0.3, 0.3, 0.7])


def test_what_cannot_be_computed_is_none() -> None:
    same, other = np.array([5.0, 5.0]), np.array([1.0, 2.0])
    assert measures.correlation_similarity((same, other), (other, other)) is None
    assert measures.range_coverage(same, other) is None
    assert measures.dcr_baseline_protection({"a": same}, {"a": same}) is None


def test_copies_of_half_the_rows_show_as_overfitting() -> None:
    rng = np.random.default_rng(0)
    training, holdout = ({"price": rng.normal(size=200)} for _ in range(2))
    assert measures.dcr_overfitting_protection(training, {"price": rng.normal(size=400)}, holdout) > 0.9
    assert measures.dcr_overfitting_protection(training, training, holdout) < 0.05


@given(numbers, numbers)
def test_the_measures_of_numbers_stay_between_0_and_1_and_a_table_is_like_itself(
    real: np.ndarray, sample: np.ndarray
) -> None:
    assert 0.0 <= measures.ks_complement(real, sample) <= 1.0
    assert measures.ks_complement(real, sample) == pytest.approx(measures.ks_complement(sample, real))
    assert measures.ks_complement(real, real) == 1.0
    assert measures.boundary_adherence(real, real) == 1.0
    coverage = measures.range_coverage(real, sample)
    assert coverage is None or 0.0 <= coverage <= 1.0


@given(texts, texts)
def test_the_measures_of_texts_stay_between_0_and_1_and_a_table_is_like_itself(
    real: list[str], sample: list[str]
) -> None:
    assert -1e-12 <= measures.tv_complement(real, sample) <= 1.0
    assert measures.tv_complement(real, sample) == pytest.approx(measures.tv_complement(sample, real))
    assert measures.tv_complement(real, sorted(real)) == 1.0
    assert (measures.category_coverage(real, sample) == 1.0) == (set(real) <= set(sample))


@given(texts, st.integers(2, 5))
def test_a_sample_that_repeats_the_table_has_no_new_row(real: list[str], times: int) -> None:
    table = {"kind": np.array(real), "price": np.arange(len(real), dtype=np.float64)}
    copies = {name: np.tile(column, times) for name, column in table.items()}
    assert measures.new_row_synthesis(table, copies) == 0.0
    assert measures.distances_to_closest(copies, table).max() == 0.0


def test_what_chance_leaves_is_what_two_draws_from_one_shop_have() -> None:
    rng = np.random.default_rng(3)
    shares = np.array([0.4, 0.3, 0.2, 0.06, 0.02, 0.01, 0.01])
    ks, tv, expected = [], [], []
    for _ in range(200):
        ks.append(measures.ks_complement(rng.normal(size=50), rng.normal(size=300)))
        real, sample = (rng.choice(7, size, p=shares).tolist() for size in (50, 300))
        tv.append(measures.tv_complement(real, sample))
        expected.append(measures.tv_by_chance(real, sample))
    assert np.mean(ks) == pytest.approx(measures.ks_by_chance(50, 300), abs=0.015)
    assert np.mean(tv) == pytest.approx(np.mean(expected), abs=0.02)
    assert measures.ks_by_chance(50, 300) == pytest.approx(1 - 0.8687 * math.sqrt(1 / 50 + 1 / 300), abs=1e-4)
