"""Each built-in prompt language trains, generates, parses and is scored; data sets with several currencies as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from shops import error_of, records_of, save, shop
from tiny import tiny_backbone

from appraiser import Predictor, build_dataset, train
from appraiser.config import DataConfig, config_from
from appraiser.data.dataset import open_dataset
from appraiser.data.exports.export import export_dataset
from appraiser.data.pictures import decode
from appraiser.data.task import LABELS, LOCALES, MAX_ANSWER_TOKENS, QUESTIONS, Language, Task
from appraiser.evaluation.evaluate import evaluate
from appraiser.evaluation.scores import Truth, score_predictions
from appraiser.price_distribution import PriceGrammar

# A comma and a colon, as shops write them; the Russian answer has more than MAX_ANSWER_TOKENS tokens.
TITLES = {
    "en": "Coat, wool: red",
    "fr": "Manteau, laine : rouge",
    "ru": "Пальто, шерсть: красное",
    "ro": "Palton, lână: roșu",
    "no": "Kåpe, ull: rød",
    "ja": "コート、ウール, 赤",
}
SPLITS = ("train", "train", "val", "calib", "test")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("languages")
    tiny_backbone(root / "model")
    return root


def rows_of(folder: Path, title: str, count: int = 10) -> list[dict[str, Any]]:
    """Rows that all say the same: very small models learn that in some seconds."""
    rows = shop(folder, count)
    same = {"title": title, "category": "COATS", "price": "1290.50"}
    return [row | same | {"group": str(n), "split": SPLITS[n % len(SPLITS)]} for n, row in enumerate(rows)]


def settings(place: Path, name: str, steps: int, **data: Any) -> Any:
    sections: dict[str, dict[str, Any]] = {
        "model": {"base": str(place / "model")},
        "adapter": {"kind": "none"},
        "optim": {"learning_rate": 5e-3},
        "data": {"dataset": str(place / name)} | data,
        "run": {"out": str(place / f"run-{name}"), "steps": steps, "batch_size": 2, "micro_batch_size": 2,
                "eval_every": steps, "eval_records": 1},
        "tracking": {"wandb": "off"},
    }  # fmt: skip
    return config_from(sections, "test")


def test_every_place_that_lists_the_languages_lists_the_same() -> None:
    languages = set(get_args(Language))
    assert languages == set(QUESTIONS) == set(LABELS) == set(LOCALES) == set(TITLES)
    assert languages == set(get_args(DataConfig.model_fields["language"].annotation))


@pytest.mark.parametrize("language", TITLES)
def test_a_model_learns_to_answer_in_each_language(place: Path, language: str) -> None:
    title = TITLES[language]
    save(place / f"shop-{language}", rows_of(place / f"shop-{language}", title))
    build_dataset(place / f"shop-{language}", place / language, split_by="split")
    summary = train(settings(place, language, steps=70, language=language))
    predictor = Predictor.load(summary.out)
    assert predictor.task.language == language
    assert PriceGrammar.of(predictor.backbone, predictor.task) is not None
    records = list(open_dataset(place / language).split("test"))
    predictions = predictor.predict([[decode(picture) for picture in record.images] for record in records])
    for prediction in predictions:
        assert prediction.text == predictor.task.format({"title": title, "category": "COATS", "price": 1290.5})
        assert (prediction.title, prediction.category, prediction.price) == (title, "COATS", 1290.5)
    scores = score_predictions(Truth.of(records, predictor.task.fields), predictions, predictor.task.fields)
    assert scores["parse_rate"]["value"] == scores["stop_rate"]["value"] == 1
    assert scores["price"]["median_ape"]["value"] == 0
    assert scores["title"]["exact"]["value"] == scores["category"]["accuracy"]["value"] == 1


def test_languages_that_a_tokenizer_spells_in_bytes_get_the_tokens_for_it(place: Path) -> None:
    from appraiser.backbone import load_reader
    from appraiser.predict import max_answer_tokens

    reader = load_reader("phi3v-tiny")
    limits = {language: max_answer_tokens(reader, language) for language in TITLES}
    assert limits["en"] == MAX_ANSWER_TOKENS
    answer = Task(language="ru").format({"title": TITLES["ru"], "category": "ПАЛЬТО", "price": 1290.5})
    assert MAX_ANSWER_TOKENS < len(reader.completion_ids(answer)) < limits["ru"]


@pytest.fixture(scope="module")
def two_currencies(place: Path) -> Path:
    rows = rows_of(place / "shop-two", "Coat")
    save(place / "shop-two", [row | {"currency": "EUR" if row["split"] != "calib" else "NOK"} for row in rows])
    build_dataset(place / "shop-two", place / "two", split_by="split", several_currencies=True)
    return place / "two"


def test_several_currencies_are_kept_if_that_is_wanted(place: Path, two_currencies: Path) -> None:
    error = error_of(lambda: build_dataset(place / "shop-two", place / "refused", split_by="split"))
    assert error.what == "prices are in several currencies: EUR (8), NOK (2)"
    assert "--several-currencies" in error.fix
    manifest = open_dataset(two_currencies).manifest
    assert manifest.currency is None
    assert manifest.has_currencies
    currencies = {name: record.currency for name, record in records_of(two_currencies).items()}
    assert currencies == {f"P{n:03d}": "NOK" if SPLITS[n % 5] == "calib" else "EUR" for n in range(10)}
    export_dataset(two_currencies, place / "two-csv", "csv")
    for number, source in enumerate((two_currencies, place / "two-csv")):
        build_dataset(source, place / f"again-{number}", several_currencies=True)
        assert {name: record.currency for name, record in records_of(place / f"again-{number}").items()} == currencies


def test_prices_in_several_currencies_are_not_mixed_silently(place: Path, two_currencies: Path) -> None:
    def warnings(**data: Any) -> list[str]:
        return train(settings(place, "two", steps=1, **data), dry_run=True).warnings

    [warning] = warnings()
    assert "--set data.fields=[title,category,currency,price]" in warning
    assert warnings(fields=["title", "currency", "price"]) == warnings(fields=["title"]) == []


def test_a_model_states_the_currency_and_is_wrong_in_another(place: Path, two_currencies: Path) -> None:
    summary = train(settings(place, "two", steps=70, fields=["title", "currency", "price"]))
    assert not any("currencies" in warning for warning in summary.warnings)
    predictor = Predictor.load(summary.out)
    assert predictor.trained.currency is None
    for split, price_error in (("test", 0), ("calib", 1)):
        result = evaluate(predictor, two_currencies, split, controls=(), with_baselines=False, before=False)
        assert sum("WARNING: prices are in several currencies" in line for line in result.verdict) == 1
        for prediction in result.predictions:
            assert (prediction.currency, prediction.price) == ("EUR", 1290.5)
            assert prediction.as_dict()["currency"] == "EUR"
        assert result.scores["price"]["median_ape"]["value"] == price_error
