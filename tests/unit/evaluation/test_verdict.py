"""The verdict says plainly when a model is no better than cheap methods or does not look."""

from __future__ import annotations

from typing import Any

from appraiser.evaluation.evaluate import validation_score, verdict


def at(value: float, spread: float = 0.01) -> dict[str, float]:
    return {"value": value, "low": value - spread, "high": value + spread}


def scores(mine: float, best: float, shuffled: float) -> dict[str, Any]:
    return {
        "n": 100,
        "parse_rate": at(1.0, 0.0),
        "price": {"median_ape": at(mine)},
        "baselines": {"knn": {"price": {"median_ape": at(best)}}},
        "controls": {"shuffled": {"price": {"median_ape": at(shuffled)}}},
    }


def test_a_good_model_beats_baselines_and_looks() -> None:
    said = " ".join(verdict(scores(0.10, 0.20, 0.60)))
    assert "beat every baseline" in said
    assert "The model looks" in said
    assert "WARNING" not in said


def test_a_blind_model_is_called_out() -> None:
    assert any(line.startswith("WARNING") for line in verdict(scores(0.30, 0.20, 0.30)))


def test_a_model_behind_a_baseline_is_told_so() -> None:
    assert any("do NOT beat" in line for line in verdict(scores(0.30, 0.20, 0.60)))


def test_overlapping_intervals_are_no_win() -> None:
    assert any("overlap" in line for line in verdict(scores(0.195, 0.20, 0.60)))


def test_validation_score_is_the_mean_over_the_fields_present() -> None:
    part = {
        "price": {"median_ape": at(0.10)},
        "title": {"chrf": at(80.0)},
        "category": {"accuracy": at(0.9)},
        "parse_rate": at(1.0),
    }
    assert abs(validation_score(part, 0.25) - (0.6 + 0.8 + 0.9) / 3) < 1e-12
    assert validation_score({"category": part["category"], "parse_rate": at(1.0)}, None) == 0.9
