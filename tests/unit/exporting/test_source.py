"""What is exported, and what is known of it: run, base, licence, and the report that belongs to it."""

import json
import os
from pathlib import Path

import pytest
from tiny import tiny_backbone

from appraiser.config import config_from, save_config
from appraiser.errors import CheckpointError
from appraiser.exporting.source import base_folder, find_source
from appraiser.trained_task import TrainedTask, write_task
from appraiser.training.checkpoint import save_checkpoint


def make_run(folder: Path, base: str | Path = "phi3v-tiny", dtype: str = "float32") -> Path:
    """A run of a tiny model, as training leaves it."""
    folder.mkdir()
    settings = {"model": {"base": str(base), "dtype": dtype}, "data": {"dataset": "gone"}, "run": {"out": str(folder)}}
    save_config(config_from(settings, "test"), folder / "config.yaml")

    def write(place: Path) -> None:
        tiny_backbone(place)
        write_task(place, TrainedTask())

    for step in (2, 4):
        save_checkpoint(folder, step, write, is_best=step == 2, keep_last=2)
    (folder / "summary.json").write_text("{}")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def test_a_run_means_its_best_checkpoint_and_a_checkpoint_itself(run):
    best = (run / "checkpoints/step-2").resolve()
    for name in (run, run / "best", run / "checkpoints/step-2"):
        found = find_source(name)
        assert (found.folder, found.run, found.title) == (best, run.resolve(), "run")
    assert find_source(run / "last").folder.name == "step-4"
    assert find_source(run).method == "all weights trained"
    assert find_source(run).data is None, "the data set is gone"


def test_models_that_are_no_runs(tmp_path, run):
    found = find_source("phi3v-tiny")
    assert (found.run, found.dtype, found.origin.licence, found.title) == (None, "bfloat16", "apache-2.0", "phi3v-tiny")
    tiny_backbone(tmp_path / "model")
    found = find_source(tmp_path / "model")
    assert (found.run, found.dtype, found.origin.name, found.origin.licence) == (None, "float32", "model", None)
    assert (found.report, found.method) == (None, "weights as they were found")


@pytest.mark.parametrize("missing", ["nothing", "README.md"])
def test_nothing_there(tmp_path, missing):
    (tmp_path / "README.md").write_text("")
    with pytest.raises(CheckpointError, match="no model at"):
        find_source(tmp_path / missing)
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        find_source(tmp_path)


def test_a_run_that_has_not_ended_names_the_way_on(run):
    (run / "summary.json").unlink()
    with pytest.raises(CheckpointError, match="has not ended") as caught:
        find_source(run)
    assert f"--resume --out {run}" in caught.value.fix
    assert find_source(run / "best").folder.name == "step-2", "asked for by name it is exported"
    (run / "best").unlink()
    with pytest.raises(CheckpointError, match="has not ended") as caught:
        find_source(run)
    assert "best" not in caught.value.fix


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_damaged_weights_are_found_before_anything_is_made(run, damage):
    path = run / "best" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data if damage == "flipped" else data[:-100])
    if damage == "missing":
        path.unlink()
    with pytest.raises(CheckpointError, match=r"not as they were written: model\.safetensors") as caught:
        find_source(run)
    assert "step-2" in caught.value.where


def test_the_dtype_is_that_of_training(tmp_path):
    assert find_source(make_run(tmp_path / "half", dtype="bfloat16")).dtype == "bfloat16"


def test_the_origin_is_found_through_runs_that_began_with_runs(tmp_path, run, monkeypatch):
    second = make_run(tmp_path / "second", run)
    third = make_run(tmp_path / "third", second / "best")
    assert find_source(third).origin.name == "phi3v-tiny"
    hub = find_source(make_run(tmp_path / "hub", "microsoft/Phi-3.5-vision-instruct")).origin
    assert (hub.hub_id, hub.licence, hub.folder) == ("microsoft/Phi-3.5-vision-instruct", "mit", None)
    other = find_source(make_run(tmp_path / "other", "somebody/phi3-vision")).origin
    assert (other.hub_id, other.licence) == ("somebody/phi3-vision", None)
    monkeypatch.chdir(tmp_path)
    assert base_folder("second") == os.path.realpath(second / "best")
    assert (base_folder("phi3v-tiny"), base_folder("owner/name")) == ("phi3v-tiny", "owner/name")


def report(run: Path, **changes) -> None:
    document = {"model": str(run), "curves": {"eval/score": [[2, 0.6], [4, 0.5]]}, "n": 3} | changes
    (run / "report.json").write_text(json.dumps(document))


def test_a_report_counts_for_the_checkpoint_that_it_is_about(run):
    assert find_source(run).report is None
    report(run)
    assert find_source(run).report["n"] == 3
    assert find_source(run / "last").report is None
    report(run, model=str(run / "last"))
    assert find_source(run).report is None
    report(run, model="elsewhere/checkpoints/step-2")
    assert find_source(run).report["n"] == 3
    report(run, curves={"eval/score": [[2, 0.6], [3, None], [4, 0.6]]})
    assert find_source(run).report["n"] == 3, "of equal scores the first is the best"
    report(run, curves={"eval/score": [[1, 0.7], [2, 0.6]]})
    assert find_source(run).report is None, "made when another checkpoint was the best"
    for broken in ("{", "[]", '{"model": 1}', '{"model": "x", "curves": {}}'):
        (run / "report.json").write_text(broken)
        assert find_source(run).report is None
