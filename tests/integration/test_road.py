"""The real commands' functions, end to end on a very small model: sample, build, train, evaluate, predict."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tiny import tiny_backbone
from wandb_files import staged_tables

from appraiser import Predictor, build_dataset, evaluate, make_catalogue, train
from appraiser.config import RunConfig, config_from, load_config
from appraiser.data.dataset import open_dataset, share_of
from appraiser.data.pictures import decode
from appraiser.errors import CheckpointError, ConfigError, DataError
from appraiser.evaluation.against import against_sentences, compare
from appraiser.evaluation.evaluate import save_result
from appraiser.evaluation.wandb_table import log_evaluation, numbers
from appraiser.predicting.run import predict_source, predict_to_file
from appraiser.price_intervals import PriceIntervals
from appraiser.trained_task import TrainedTask, read_task
from appraiser.training.learning_curve import learning_curve
from appraiser.training.trainer import RunSummary


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a catalogue of 120 products and 8 pairs of twins at 64 px, and its data set."""
    root = tmp_path_factory.mktemp("road")
    tiny_backbone(root / "model")
    make_catalogue(root / "catalogue", 120, seed=3, size=64, twins=8)
    build_dataset(root / "catalogue", root / "dataset")
    return root


def settings(place: Path, out: str, **sections: dict[str, Any]) -> Any:
    base: dict[str, dict[str, Any]] = {
        "model": {"base": str(place / "model")},
        "adapter": {"kind": "none"},
        "optim": {"learning_rate": 1e-3},
        "data": {"dataset": str(place / "dataset")},
        "run": {"out": str(place / out), "steps": 4, "batch_size": 4, "micro_batch_size": 2, "eval_every": 2,
                "eval_records": 2, "log_every": 1},
        "tracking": {"wandb": "off"},
    }  # fmt: skip
    for name, values in sections.items():
        base[name] |= values
    return config_from(base, "test")


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    summary = train(settings(place, "run"))
    assert summary.steps == 4
    return summary.out


def test_a_run_leaves_what_the_contract_names(run: Path, place: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert len(losses) == 4
    assert all(math.isfinite(loss) for loss in losses)
    assert any("eval/score" in line for line in lines)
    assert (run / "samples.jsonl").stat().st_size > 0
    assert load_config(run / "config.yaml") == settings(place, "run")
    for name in ("best", "last"):
        assert (run / name).is_symlink()
        assert (run / name / "model.safetensors").is_file()
    assert not list((run / "checkpoints").glob(".*"))


def test_training_moves_every_part_but_the_unused_block(run: Path, place: Path) -> None:
    from safetensors.torch import load_file

    before, after = load_file(place / "model/model.safetensors"), load_file(run / "last/model.safetensors")
    assert before.keys() == after.keys()
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still
    assert all(".encoder.layers." in name or "post_layernorm" in name for name in still)


def test_evaluation_fills_the_report(run: Path, place: Path) -> None:
    result = evaluate(run, place / "dataset")
    scores = result.scores
    assert scores["n"] == len(open_dataset(place / "dataset").split("test"))
    for part in (scores, scores["before"], *scores["controls"].values()):
        for metric in ("median_ape", "mae", "within_10", "within_20", "rmsle"):
            assert set(part["price"][metric]) == {"value", "low", "high"}
        assert {"exact", "chrf", "visible_words"} <= set(part["title"])
        assert {"accuracy", "macro_f1"} <= set(part["category"])
    assert set(scores["controls"]) == {"shuffled", "same_category", "blank", "surroundings"}
    assert {"global_median", "category_median", "prior", "knn", "ridge"} <= set(scores["baselines"])
    assert set(scores["differences"]) == {*scores["controls"], *scores["baselines"], "before"}
    assert scores["reasoning"]["n"] + scores["reasoning"]["n_too_small"] == 8
    assert set(scores["slices"]) <= {"category", "price band", "picture size"}  # 12 products: few are large enough
    assert sum(map(sum, scores["confusion"]["counts"])) == scores["n"]
    assert [len(near) for near in result.neighbours] == [5] * scores["n"]
    assert {"train/loss", "eval/score"} <= set(scores["curves"])
    # The oracle knows the rule, not the noise: sigma 0.12 is about 8 % in the median.
    assert scores["oracle"]["price"]["median_ape"]["value"] < 0.25
    page = save_result(result, place / "report")
    assert json.loads((place / "report/report.json").read_text())["n"] == scores["n"]
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_answers_do_not_depend_on_how_many_pictures_are_in_memory(
    run: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import appraiser.predict as predict

    predictor = Predictor.load(run)
    records = list(open_dataset(place / "dataset").split("val"))
    pictures = [[decode(data) for data in record.images] for record in records]
    together = predictor.predict(pictures)
    monkeypatch.setattr(predict, "MAX_ROWS_PER_WINDOW", 2)
    done: list[int] = []
    apart = predictor.predict(iter(pictures), done.append)
    assert [p.text for p in apart] == [p.text for p in together]
    assert done == sorted(done)
    assert done[-1] == len(records)


def test_closed_answers_can_always_be_read(run: Path, place: Path) -> None:
    """A model of four steps writes nothing readable by itself; within the grammar it cannot but."""
    open_answers = evaluate(run, place / "dataset", controls=(), with_baselines=False, before=False).scores
    assert open_answers["parse_rate"]["value"] < 1
    closed = evaluate(run, place / "dataset", controls=(), with_baselines=False, before=False, closed=["category"])
    assert closed.scores["parse_rate"]["value"] == 1.0
    known = set(open_dataset(place / "dataset").split("train").column("category"))
    assert {prediction.category for prediction in closed.predictions} <= known
    assert closed.scores["closed"] == ["category"]


def test_unsure_prices_are_left_out_when_asked(run: Path, place: Path) -> None:
    with pytest.raises(ConfigError, match="not calibrated"):
        Predictor.load(run, answer_share=0.5)
    intervals = PriceIntervals(bounds={80: 0.5}, scaled=False, spreads=(0.0,) * 20)
    trained = read_task(str(run / "best")).model_copy(update={"price_intervals": intervals})
    predictor = Predictor(Predictor.load(run).backbone, trained, closed=["category"], answer_share=0.5)
    record = open_dataset(place / "dataset").split("test")[0]
    (answer,) = predictor.predict([decode(record.images[0])])
    assert answer.parsed
    assert answer.price is None
    assert answer.price_interval is None
    assert answer.abstained
    assert answer.as_dict()["abstained"] == answer.abstained


def test_an_evaluation_scores_prices_that_would_be_left_out(
    run: Path, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    intervals = PriceIntervals(bounds={80: 0.5}, scaled=False, spreads=(0.0,) * 20)
    trained = read_task(str(run / "best")).model_copy(update={"price_intervals": intervals})
    backbone = Predictor.load(run).backbone
    scores = []
    for share in (0.5, None):
        predictor = Predictor(backbone, trained, closed=["category"], answer_share=share)
        result = evaluate(predictor, place / "dataset", controls=(), with_baselines=False, before=False)
        assert not any(prediction.abstained for prediction in result.predictions)
        scores.append(result.scores | {"seconds": 0, "products_per_s": 0})
        if share is not None:
            assert "answer_share is not used" in caplog.text
            assert predictor.abstains  # it is left as it was
            caplog.clear()
    assert caplog.messages == []
    assert scores[0] == scores[1]


def test_any_column_can_be_a_field(place: Path) -> None:
    fields = ["category", "category1_code", "price"]
    train(settings(place, "colours", data={"fields": fields}, run={"steps": 1}))
    predictor = Predictor.load(place / "colours")
    assert set(predictor.trained.choices) == {"category", "category1_code"}
    scores = evaluate(place / "colours", place / "dataset").scores
    assert {"accuracy", "macro_f1", "chrf"} <= set(scores["fields"]["category1_code"])
    assert "category1_code" in scores["baselines"]["ridge"]["fields"]
    assert "category1_code" in scores["differences"]["shuffled"]


def test_prediction_of_a_picture_a_folder_and_a_table(run: Path, place: Path) -> None:
    pictures = sorted((place / "catalogue/images").iterdir())
    [one] = predict_source(run, pictures[0])
    assert set(one) >= {"picture", "text", "parsed", "confidence"}
    assert 0 < one["confidence"] <= 1
    rows = predict_source(run, place / "catalogue" / "products.csv")
    assert len(rows) == 120
    assert rows[0]["text"] == one["text"]
    for suffix in ("csv", "jsonl", "parquet"):
        predict_to_file(run, place / "catalogue" / "products.csv", place / f"out.{suffix}")
    assert [json.loads(line) for line in (place / "out.jsonl").read_text().splitlines()] == rows
    assert pq.read_table(place / "out.parquet").to_pylist() == rows
    with (place / "out.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [
            {name: "" if value is None else str(value) for name, value in row.items()} for row in rows
        ]


def test_an_unreadable_picture_costs_one_row(run: Path, place: Path, tmp_path: Path) -> None:
    good = sorted((place / "catalogue/images").iterdir())[0]
    (tmp_path / "a.jpg").write_bytes(good.read_bytes())
    (tmp_path / "b.jpg").write_bytes(good.read_bytes()[:500])
    rows = predict_source(run, tmp_path)
    assert [("error" in row) for row in rows] == [False, True]
    assert "truncated" in rows[1]["error"]


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft 0.21 asks transformers 5.23
def test_a_lora_run_trains_its_adapter_and_is_loaded_again(place: Path) -> None:
    config = settings(place, "lora", adapter={"kind": "lora", "rank": 4, "alpha": 8}, optim={"learning_rate": 1e-2})
    train(config)
    files = {path.name for path in (place / "lora/best").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "appraiser.json", "preprocessor_config.json"} <= files
    predictor = Predictor.load(place / "lora")
    assert predictor.trained.base == str(place / "model")
    tuned = [name for name, value in predictor.backbone.model.named_parameters() if "lora_B" in name and value.any()]
    for part in (".img_processor.", ".img_projection.", ".layers.0.mlp."):
        assert any(part in name for name in tuned), part


def test_micro_batches_do_not_change_the_run(place: Path) -> None:
    from safetensors.torch import load_file

    for name, micro in (("one", 4), ("four", 1)):
        train(settings(place, name, run={"steps": 2, "micro_batch_size": micro}))
    one, four = (load_file(place / name / "last/model.safetensors") for name in ("one", "four"))
    # AdamW divides by the gradient's own size, so roundings near zero show up at the size of the learning rate.
    worst = max(float((one[name] - four[name]).abs().max()) for name in one)
    assert worst < 2e-4


def test_a_run_is_repeated_exactly_by_its_config(place: Path, run: Path) -> None:
    from safetensors.torch import load_file

    again = load_config(run / "config.yaml", [f"run.out={json.dumps(str(place / 'again'))}"])
    train(again)
    first, second = load_file(run / "last/model.safetensors"), load_file(place / "again/last/model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_without_epochs_lasts_as_long_as_its_minutes(place: Path) -> None:
    minutes = {"steps": None, "epochs": None, "max_minutes": 0.02, "eval_every": 1000}
    seen: list[dict[str, float]] = []
    summary = train(
        settings(place, "minutes", run=minutes),
        progress=lambda what, numbers: seen.append(numbers) if what == "train" else None,
    )
    assert summary.training_seconds >= 0.02 * 60
    assert summary.steps > 1
    assert not any("max_minutes" in warning for warning in summary.warnings)
    assert not any("of" in numbers for numbers in seen)
    assert [numbers["done"] for numbers in seen] == sorted(numbers["done"] for numbers in seen)
    assert seen[-1]["done"] == 1.0


def test_more_micro_batches_at_once_than_a_step_has_is_said(place: Path) -> None:
    run = {"steps": 1, "batch_size": 4, "micro_batch_size": 2}
    for at_once, expected in ((2, 0), (3, 1)):
        summary = train(settings(place, f"at-once-{at_once}", run=run | {"micro_batches_at_once": at_once}))
        said = [warning for warning in summary.warnings if "has only 2 micro-batches" in warning]
        assert len(said) == expected


def test_a_run_never_overwrites_another(run: Path, place: Path) -> None:
    with pytest.raises(ConfigError, match="exists and is not empty"):
        train(settings(place, "run"))


def test_w_and_b_mirrors_offline(place: Path) -> None:
    pytest.importorskip("wandb")
    train(settings(place, "tracked", run={"steps": 1}, tracking={"wandb": "offline"}))
    assert list((place / "tracked/wandb").rglob("run-*.wandb"))


def test_an_evaluation_in_w_and_b_holds_the_pictures(run: Path, place: Path) -> None:
    pytest.importorskip("wandb")
    result = evaluate(run, place / "dataset", controls=(), before=False)
    rows = log_evaluation(result, place / "evaluated", "offline", "test")
    assert rows == len(result.records)
    assert list((place / "evaluated/wandb").glob("offline-run-*/*.wandb"))
    (table, *_) = staged_tables(place / "evaluated")
    assert table["columns"] == [
        "id", "picture", "true price", "predicted price", "true title", "predicted title", "true category",
        "predicted category", "answer",
    ]  # fmt: skip
    shown = {row[0]: row for row in table["data"]}
    assert set(shown) == {record.id for record in result.records}
    for record, prediction in zip(result.records, result.predictions, strict=True):
        row = shown[record.id]
        assert row[2:5:2] == [record.price, record.title]
        assert row[-1] == prediction.text
        with Image.open(row[1]["file"]) as picture:
            assert picture.size == decode(record.images[0]).size  # 64 px: smaller than a thumbnail
    found = numbers(result)
    assert found["model/price/median_ape"] == result.scores["price"]["median_ape"]["value"]
    assert found["knn/category/accuracy"] == result.scores["baselines"]["knn"]["category"]["accuracy"]["value"]
    assert found["reasoning/slope"] == result.scores["reasoning"]["slope"]["value"]


def test_two_runs_are_compared_product_by_product(run: Path, place: Path) -> None:
    train(settings(place, "other", run={"steps": 1, "seed": 1}))
    mine = evaluate(run, place / "dataset", controls=(), with_baselines=False, before=False, closed=["category"])
    other = evaluate(
        place / "other", place / "dataset", controls=(), with_baselines=False, before=False, closed=["category"]
    )
    part = compare(mine, other, "other")
    assert set(part["differences"]) == {"price", "title", "category"}
    assert part["scores"]["price"] == {
        name: value for name, value in other.scores["price"].items() if not name.startswith("interval")
    }
    prices = {record.id: (a.price, b.price) for record, a, b in
              zip(mine.records, mine.predictions, other.predictions, strict=True)}  # fmt: skip
    assert {row["id"] for row in part["moved"]} == {name for name, (a, b) in prices.items() if a != b}
    itself = compare(mine, mine, "itself")
    assert itself["moved"] == []
    assert itself["differences"]["price"]["gain"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert all("no clear difference" in line for line in against_sentences(itself))
    short = evaluate(run, place / "dataset", controls=(), with_baselines=False, before=False, limit=2)
    with pytest.raises(DataError, match="different products"):
        compare(mine, short, "short")


def test_the_learning_curve_grows_by_whole_groups(
    run: Path, place: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def warned(config: RunConfig) -> RunSummary:
        summary = train(config)
        return replace(summary, warnings=[*summary.warnings, "it was short"])

    monkeypatch.setattr("appraiser.training.learning_curve.train", warned)
    result = evaluate(run, place / "dataset", controls=(), with_baselines=False, before=False)
    seen: list[tuple[float, int]] = []
    curve = learning_curve(
        run, place / "dataset", result, shares=(0.25, 0.5), on_training=lambda *facts: seen.append(facts)
    )
    counts = [point["n"] for point in curve["points"]]
    assert counts == sorted(counts)
    assert [point["share"] for point in curve["points"]] == [0.25, 0.5, 1.0]
    assert seen == [(0.25, counts[0]), (0.5, counts[1])]
    train_split = open_dataset(place / "dataset").split("train")
    assert counts[-1] == len(train_split)
    parts = [set(share_of(train_split, share, 0).column("id")) for share in (0.25, 0.5)]
    assert parts[0] < parts[1]
    half = set(share_of(train_split, 0.5, 0).column("group"))
    left = set(train_split.column("group")) - half
    assert half.isdisjoint(left)
    assert str(counts[1]) in curve["sentence"]
    assert all("it was short" in point["warnings"] for point in curve["points"][:2])
    assert "training on 25%: it was short" in caplog.messages
    with pytest.raises(DataError, match="is no run"):
        learning_curve(place / "model", place / "dataset", result)


def test_a_run_without_progress_ends_early_and_says_so(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import appraiser.training.validation as validation

    falling = iter([0.0, 0.5, 0.4, 0.3, 0.2])  # the first is that of the smoke test
    monkeypatch.setattr(validation, "validation_score", lambda part, reference: next(falling))
    summary = train(settings(place, "hopeless", run={"steps": 8, "eval_every": 1, "patience": 2}))
    assert (summary.steps, summary.best_step) == (3, 1)
    assert any("run.patience ended the run at step 3" in warning for warning in summary.warnings)


def test_scoring_that_cannot_work_fails_before_the_first_step(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import appraiser.training.validation as validation

    def broken(*arguments: Any) -> Any:
        raise RuntimeError("scoring is broken")

    monkeypatch.setattr(validation, "score_predictions", broken)
    with pytest.raises(RuntimeError, match="scoring is broken"):
        train(settings(place, "never-begun"))
    assert not (place / "never-begun").exists()


def test_calibration_is_written_beside_the_best_weights(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import appraiser.training.session as session

    intervals = PriceIntervals(bounds={80: 0.5, 90: 0.7}, scaled=False, spreads=(0.1,) * 20)

    def calibrated(predictor: Predictor, validation: Any, calibration: Any) -> tuple[TrainedTask, None]:
        assert len(validation) > 0
        assert len(calibration) > 0
        return predictor.trained.model_copy(update={"price_intervals": intervals}), None

    monkeypatch.setattr(session, "calibrated", calibrated)
    train(settings(place, "calibrated", run={"steps": 1}))
    trained = Predictor.load(place / "calibrated").trained
    assert trained.price_intervals == intervals
    assert set(trained.choices) == {"category"}  # titles are no closed list


def test_a_data_set_without_prices_and_titles_works(place: Path) -> None:
    build_dataset(place / "catalogue", place / "categories", mapping={"title": [], "price": [], "currency": []})
    config = settings(place, "sorter", data={"dataset": str(place / "categories")}, run={"steps": 1})
    train(config)
    scores = evaluate(place / "sorter", place / "categories").scores
    assert "price" not in scores
    assert "title" not in scores
    assert "accuracy" in scores["category"]


def test_a_run_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(CheckpointError, match="no best checkpoint"):
        Predictor.load(tmp_path)


def test_an_unknown_split_is_an_error(run: Path, place: Path) -> None:
    with pytest.raises(DataError, match="no split 'tets'"):
        evaluate(run, place / "dataset", "tets")
