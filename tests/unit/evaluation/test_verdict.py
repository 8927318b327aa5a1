"""The verdict says plainly when a model is no better than cheap methods, does not look, or looks at the wrong thing."""

from __future__ import annotations

from typing import Any

from appraiser.evaluation.scores import validation_score
from appraiser.evaluation.verdict import verdict


def at(value: float, spread: float = 0.01) -> dict[str, float]:
    return {"value": value, "low": value - spread, "high": value + spread}


def gain(value: float, spread: float = 0.01, p_value: float = 0.001) -> dict[str, Any]:
    return {"price": {"metric": "median_ape", "gain": at(value, spread), "p_value": p_value}}


def scores(mine: float, best: float, shuffled: float, rim: float | None = None, spread: float = 0.01) -> dict[str, Any]:
    chance = 0.5 if shuffled <= mine else 0.001
    return {
        "n": 100,
        "parse_rate": at(1.0, 0.0),
        "price": {"median_ape": at(mine)},
        "baselines": {"knn": {"price": {"median_ape": at(best)}}},
        "controls": {"shuffled": {"price": {"median_ape": at(shuffled)}}},
        "differences": {
            "knn": gain(best - mine, spread),
            "shuffled": gain(shuffled - mine, p_value=chance),
        }
        | ({} if rim is None else {"surroundings": gain(rim - mine)}),
    }


def test_a_good_model_beats_baselines_and_looks() -> None:
    said = " ".join(verdict(scores(0.10, 0.20, 0.60)))
    assert "beat every baseline" in said
    assert "The model looks" in said
    assert "WARNING" not in said


def test_a_blind_model_is_called_out() -> None:
    assert any(line.startswith("WARNING: the model may not need") for line in verdict(scores(0.30, 0.20, 0.30)))


def test_few_products_are_no_ground_for_a_warning() -> None:
    few = scores(0.10, 0.20, 0.60) | {"n": 6}
    few["differences"]["shuffled"] = gain(0.5, spread=0.6, p_value=0.07)
    said = verdict(few)
    assert any(line.startswith("Whether the model needs the picture cannot be told from 6") for line in said)
    assert not any("WARNING" in line for line in said)
    many = few | {"n": 600}
    assert any(line.startswith("WARNING: the model may not need") for line in verdict(many))


def test_prices_in_several_currencies_are_called_out() -> None:
    mixed = scores(0.10, 0.20, 0.60) | {"data": {"currencies": {"EUR": 1200, "NOK": 2}}}
    [line] = [line for line in verdict(mixed) if line.startswith("WARNING")]
    assert "several currencies (here 1,200 EUR, 2 NOK): baselines" in line
    assert not any("currencies" in line for line in verdict(scores(0.10, 0.20, 0.60) | {"data": {}}))
    del mixed["price"]
    assert not any("currencies" in line for line in verdict(mixed))


def test_a_model_that_judges_the_rim_is_called_out() -> None:
    assert not any("rim" in line for line in verdict(scores(0.10, 0.20, 0.60, rim=0.50)))
    assert any(line.startswith("WARNING: the rim") for line in verdict(scores(0.10, 0.20, 0.60, rim=0.20)))


def test_a_model_behind_a_baseline_is_told_so() -> None:
    assert any("do NOT beat" in line for line in verdict(scores(0.30, 0.20, 0.60)))


def test_a_lead_that_may_be_chance_is_no_win() -> None:
    assert any("may be chance" in line for line in verdict(scores(0.195, 0.20, 0.60)))


def test_a_baseline_that_knows_the_true_category_is_no_rival() -> None:
    told = scores(0.20, 0.10, 0.60)
    told["baselines"] = {"category_median": told["baselines"]["knn"]}
    told["differences"]["category_median"] = told["differences"].pop("knn")
    assert not any("baseline" in line for line in verdict(told))


def test_twins_tell_whether_visible_features_are_followed() -> None:
    follows = scores(0.10, 0.20, 0.60) | {"reasoning": {"n": 50, "sign_accuracy": at(0.95), "slope": at(0.9)}}
    assert any(line.startswith("The model follows visible features: 95%") for line in verdict(follows))
    blind = scores(0.10, 0.20, 0.60) | {"reasoning": {"n": 50, "sign_accuracy": at(0.5), "slope": at(0.0)}}
    assert any(line.startswith("WARNING: the model does not follow") for line in verdict(blind))


def test_validation_score_is_the_mean_over_the_fields_present() -> None:
    part = {
        "price": {"median_ape": at(0.10)},
        "title": {"chrf": at(80.0)},
        "category": {"accuracy": at(0.9)},
        "fields": {"brand": {"accuracy": at(0.5), "chrf": at(70.0)}, "caption": {"chrf": at(30.0)}},
        "parse_rate": at(1.0),
    }
    assert abs(validation_score(part, 0.25) - (0.6 + 0.8 + 0.9 + 0.5 + 0.3) / 5) < 1e-12
    assert validation_score({"category": part["category"], "parse_rate": at(1.0)}, None) == 0.9
