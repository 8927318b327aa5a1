"""Misuse of the command line: the right exit code, three lines without a traceback, and a fix that can be typed."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Outcome
from PIL import Image
from tiny import tiny_backbone

from appraiser import __version__
from appraiser.errors import DataError


def jpeg(number: int) -> bytes:
    cells = np.random.default_rng(number).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(cells).resize((36, 36), Image.Resampling.NEAREST).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    with (folder / "products.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sku", "name", "class", "price", "currency", "image"])
        for number in range(20):
            (folder / f"{number}.jpg").write_bytes(jpeg(number))
            writer.writerow([f"P{number}", f"Article {number}", "BAGS", 10 + number, "EUR", f"{number}.jpg"])
    return folder


@pytest.fixture(scope="module")
def dataset(shop, tmp_path_factory) -> Path:
    from appraiser.data.building.build import build_dataset

    out = tmp_path_factory.mktemp("built") / "dataset"
    build_dataset(shop, out)
    return out


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_backbone(folder)
    return folder


def assert_refused(outcome: Outcome, code: int, kind: str, *said: str) -> None:
    """One error of the family: its kind, what, where or fix, and nothing on stdout."""
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    message = outcome.err[outcome.err.index(f"{kind}: ") :]
    assert "  fix:   " in message
    assert "Traceback" not in outcome.err
    assert 'File "' not in outcome.err
    assert not re.search(r" at 0x[0-9a-f]+", outcome.err)
    for text in said:
        assert text in message, message


def test_a_missing_table_is_bad_data(appraiser, tmp_path):
    outcome = appraiser("build", tmp_path / "absent.csv", tmp_path / "out")
    assert_refused(outcome, 3, "DataError", "no table at", "absent.csv", "hub:owner/name")
    assert not (tmp_path / "out").exists()


def test_a_wrong_column_is_named_with_those_there_are(appraiser, shop, tmp_path):
    outcome = appraiser("build", shop, tmp_path / "out", "--map", "title=titel")
    assert_refused(outcome, 3, "DataError", "no column 'titel'", "where: --map title=titel", "sku, name, class, price")


@pytest.mark.parametrize("value", ["nonsense", "=name", ""])
def test_a_map_of_another_form_is_bad_usage(appraiser, shop, tmp_path, value):
    outcome = appraiser("build", shop, tmp_path / "out", "--map", value)
    assert_refused(outcome, 2, "ConfigError", f"cannot read --map {value!r}", "--map title=name")


def test_a_map_of_an_unknown_field_is_bad_usage(appraiser, shop, tmp_path):
    outcome = appraiser("build", shop, tmp_path / "out", "--map", "titel=name")
    assert_refused(outcome, 2, "ConfigError", "no field 'titel'; did you mean title?")


def test_a_target_that_is_a_file_is_refused(appraiser, shop, tmp_path):
    (tmp_path / "out").write_text("mine")
    assert_refused(appraiser("build", shop, tmp_path / "out"), 3, "DataError", "is a file")
    assert (tmp_path / "out").read_text() == "mine"


def test_too_many_bad_rows_are_refused_with_the_option_that_accepts_them(appraiser, shop, tmp_path):
    table = shop / "half.csv"
    table.write_text("image,title\n0.jpg,Bag\nnowhere.jpg,Coat\n")
    outcome = appraiser("build", table, tmp_path / "out")
    assert_refused(outcome, 3, "DataError", "1 of 2 rows cannot be used: 1 missing_file", "--max-quarantined 0.5")


def test_a_damaged_table_names_its_line(appraiser, tmp_path):
    (tmp_path / "a.csv").write_bytes("image,title\na.jpg,Béret\n".encode("latin-1"))
    assert_refused(appraiser("build", tmp_path / "a.csv", tmp_path / "out"), 3, "DataError", "where: a.csv, line 2")


def test_an_unknown_setting_suggests_the_nearest(appraiser, dataset, tmp_path):
    outcome = appraiser("train", dataset, "--out", tmp_path / "run", "--set", "run.epoch=3")
    assert_refused(outcome, 2, "ConfigError", "unknown setting run.epoch; did you mean run.epochs?")
    assert not (tmp_path / "run").exists()


def test_an_unknown_recipe_names_those_that_exist(appraiser, dataset, tmp_path):
    outcome = appraiser("train", dataset, "--out", tmp_path / "run", "--recipe", "lora-8gb")
    assert_refused(outcome, 2, "ConfigError", "no recipe 'lora-8gb'", "demo, dpo-24gb, fast")


def test_training_without_a_data_set_says_how_to_make_one(appraiser, tmp_path):
    outcome = appraiser("train", tmp_path / "nothing", "--out", tmp_path / "run")
    assert_refused(outcome, 3, "DataError", "manifest.json is missing", "appraiser build")


def test_evaluating_without_a_data_set_or_a_split_is_bad_data(appraiser, model, dataset, tmp_path):
    assert_refused(appraiser("evaluate", model, tmp_path, "--out", tmp_path), 3, "DataError", "no data set at")
    outcome = appraiser("evaluate", model, dataset, "--split", "validation", "--out", tmp_path)
    assert_refused(outcome, 3, "DataError", "no split 'validation'", "train, val, calib, test")


def test_a_model_that_is_not_there_is_refused(appraiser, shop, tmp_path):
    outcome = appraiser("predict", tmp_path / "absent", shop / "0.jpg")
    assert_refused(outcome, 3, "CheckpointError", "no model folder at", "phi3v-tiny")
    (tmp_path / "empty").mkdir()
    outcome = appraiser("predict", tmp_path / "empty", shop / "0.jpg")
    assert_refused(outcome, 3, "CheckpointError", "config.json is missing")


def test_a_model_of_another_architecture_is_refused_in_one_sentence(appraiser, shop, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    outcome = appraiser("predict", tmp_path, shop / "0.jpg")
    assert_refused(outcome, 3, "CheckpointError", "a model of type 'llama', not phi3_v", "Phi-3-vision-128k-instruct")


@pytest.mark.parametrize("damage", ["cut", "flipped header", "a tensor missing", "no weights", "config is no JSON"])
def test_damaged_weights_are_refused(appraiser, shop, model, tmp_path, damage):
    from safetensors.torch import load_file, save_file

    for path in model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = tmp_path / "model.safetensors"
    data = weights.read_bytes()
    if damage == "cut":
        weights.write_bytes(data[: len(data) // 2])
    elif damage == "flipped header":
        weights.write_bytes(b"\xff" * 64 + data[64:])
    elif damage == "a tensor missing":
        tensors = load_file(weights)
        tensors.pop("model.norm.weight")
        save_file(tensors, weights, metadata={"format": "pt"})
    elif damage == "no weights":
        weights.unlink()
    else:
        (tmp_path / "config.json").write_text("{")
    outcome = appraiser("predict", tmp_path, shop / "0.jpg")
    said = "lacks 1 of the model's tensors, among them model.norm.weight" if "missing" in damage else "cannot"
    assert_refused(outcome, 3, "CheckpointError", said)


def test_a_pickled_checkpoint_is_not_loaded(appraiser, shop, model, tmp_path):
    import torch

    for path in model.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save({"x": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    assert_refused(appraiser("predict", tmp_path, shop / "0.jpg"), 3, "CheckpointError", "cannot load a model")


def test_a_folder_without_pictures_and_an_absent_picture_are_bad_data(appraiser, model, tmp_path):
    (tmp_path / "empty").mkdir()
    assert_refused(appraiser("predict", model, tmp_path / "empty"), 3, "DataError", "no pictures in", ".jpg")
    assert_refused(appraiser("predict", model, tmp_path / "a.jpg"), 3, "DataError", "no picture, folder or table at")


def test_one_unreadable_picture_costs_one_row_and_only_unreadable_ones_the_exit_code(appraiser, model, shop, tmp_path):
    (tmp_path / "good.jpg").write_bytes(jpeg(1))
    (tmp_path / "bad.jpg").write_bytes(jpeg(2)[:200])
    outcome = appraiser("predict", model, tmp_path, "--json")
    assert outcome.code == 0, outcome.err
    bad, good = json.loads(outcome.out)
    assert bad["error"].startswith("truncated: ")
    assert "error" not in good
    outcome = appraiser("predict", model, tmp_path / "bad.jpg")
    assert outcome.code == 3
    assert "cannot be read: truncated" in outcome.out


@pytest.mark.parametrize("name", ["out.xlsx", "out"])
def test_predictions_in_a_format_that_is_not_written_are_refused(appraiser, model, shop, tmp_path, name):
    outcome = appraiser("predict", model, shop / "0.jpg", "--out", tmp_path / name)
    assert_refused(outcome, 3, "DataError", f"cannot write {name}", ".csv, .jsonl or .parquet")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [["build"], ["build", "a", "b", "--seed", "x"], ["build", "a", "b", "--max-quarantined", "2"], ["frobnicate"],
     ["predict", "m", "p", "--nonsense"], ["build", "a", "b", "--num-crops", "17"]],
)  # fmt: skip
def test_bad_usage_ends_with_2_and_says_what_is_wrong(appraiser, arguments):
    outcome = appraiser(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    assert outcome.err.strip()


def test_json_prints_one_document_and_nothing_else(appraiser, shop, tmp_path):
    outcome = appraiser("build", shop, tmp_path / "out", "--json")
    assert outcome.code == 0, outcome.err
    document = json.loads(outcome.out)
    assert (document["rows_in"], document["ok"]) == (20, 20)
    assert document["fields"]["title"] == ["name"]


def test_a_finished_command_offers_the_next_one(appraiser, shop, tmp_path):
    outcome = appraiser("build", shop, tmp_path / "out")
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1].startswith(f"Try: appraiser train {tmp_path / 'out'}")


def test_debug_adds_the_traceback(appraiser, tmp_path):
    with pytest.raises(DataError, match="no table at"):
        appraiser("--debug", "build", tmp_path / "absent.csv", tmp_path / "out")


def test_the_version_and_the_help_need_no_model(appraiser):
    assert appraiser("--version").out.strip() == __version__
    for command in ("sample", "build", "train", "evaluate", "predict", "demo"):
        outcome = appraiser(command, "--help")
        assert outcome.code == 0
        assert f"appraiser {command}" in outcome.out


def test_python_m_gives_the_same_exit_codes(tmp_path):
    for arguments, code, kind in (
        (["build", str(tmp_path / "absent.csv"), str(tmp_path / "out")], 3, "DataError: "),
        (["build", "a.csv", "out", "--map", "nonsense"], 2, "ConfigError: "),
    ):
        command = [sys.executable, "-m", "appraiser", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (code, "")
        assert kind in done.stderr
        assert "Traceback" not in done.stderr
