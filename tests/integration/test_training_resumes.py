"""A run that is killed, stopped or runs out of disk goes on to the very end that it would have had."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_backbone
from trainings import HOOKS, Trainings, fingerprint

from appraiser import build_dataset, make_catalogue
from appraiser.config import config_from
from appraiser.errors import ConfigError
from appraiser.training.checkpoint import checkpoints, find_damage, newest_intact
from appraiser.training.trainer import train


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a catalogue of 60 products at 64 px, and its data set."""
    root = tmp_path_factory.mktemp("resume")
    tiny_backbone(root / "model")
    make_catalogue(root / "catalogue", 60, seed=3, size=64)
    build_dataset(root / "catalogue", root / "dataset", shares={"train": 0.7, "val": 0.1, "calib": 0.1, "test": 0.1})
    return root


@pytest.fixture(scope="module")
def trainings() -> Iterator[Trainings]:
    with Trainings() as started:
        yield started


def settings(place: Path, out: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    """LoRA with dropout, augmentation and a window of metrics that a checkpoint cuts in two."""
    config: dict[str, dict[str, Any]] = {
        "model": {"base": str(place / "model")},
        "adapter": {"kind": "lora", "rank": 4, "dropout": 0.1},
        "optim": {"learning_rate": 1e-3},
        "data": {"dataset": str(place / "dataset")},
        "augment": {"mirror": True, "shift": 0.1},
        "run": {"out": str(out), "steps": 10, "epochs": None, "batch_size": 6, "micro_batch_size": 2, "eval_every": 5,
                "eval_records": 2, "log_every": 3, "save_every": 1},
        "tracking": {"wandb": "off"},
    }  # fmt: skip
    for name, values in sections.items():
        config[name] |= values
    return config


@pytest.fixture(scope="module")
def whole(place: Path, trainings: Trainings) -> dict[str, Any]:
    """A run that nothing disturbs."""
    assert trainings.run(settings(place, place / "whole"), place / "whole.err") == 0, (place / "whole.err").read_text()
    return fingerprint(place / "whole")


@pytest.mark.parametrize("num_kills", [5, pytest.param(200, marks=pytest.mark.soak)])
def test_a_run_that_is_killed_ends_like_one_that_was_not(place, whole, trainings, tmp_path, num_kills):
    rng = random.Random(num_kills)
    kills = 0
    number = 0
    begun = time.monotonic()
    assert trainings.run(settings(place, tmp_path / "timed"), tmp_path / "err") == 0
    usual_s = time.monotonic() - begun
    while kills < num_kills:
        number += 1
        out = tmp_path / f"run{number}"
        for _ in range(6):  # of kills per run, so that many runs come to their end
            pid = trainings.start(settings(place, out), tmp_path / "err")
            time.sleep(rng.uniform(0.2, 0.9) * usual_s)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            if trainings.status() != -signal.SIGKILL:
                break  # it was done before
            kills += 1
            if kills == num_kills:
                break
        if not (out / "summary.json").exists():
            assert trainings.run(settings(place, out), tmp_path / "err") == 0, (tmp_path / "err").read_text()
        assert fingerprint(out) == whole
        assert not list((out / "checkpoints").glob(".*"))
        shutil.rmtree(out)


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@pytest.mark.parametrize(
    ("phase", "number"),
    [
        pytest.param(phase, SIGNALS[(index + turn) % 3], marks=pytest.mark.soak if turn else ())
        for index, phase in enumerate(HOOKS)
        for turn in (0, 1, 2)
    ],
)
def test_a_signal_saves_the_run_wherever_it_comes(place, whole, trainings, tmp_path, phase, number):
    sections: dict[str, Any] = {}
    if phase == "seeing":  # only a frozen tower's pictures are seen beforehand
        sections = {
            "parts": {"tower": "freeze"},
            "augment": {"mirror": False, "shift": 0},
            "data": {"features_folder": str(tmp_path / "features")},
        }
    config = settings(place, tmp_path / "run") | {"parts": {}}
    for name, values in sections.items():
        config[name] |= values
    hook = {"phase": phase, "signal": int(number), "at": {"step": 4, "saving": 3, "validating": 2}.get(phase, 1)}
    code = trainings.run(config, tmp_path / "err", hook)
    message = (tmp_path / "err").read_text()
    assert code == 128 + number, message
    assert message.startswith(f"RunStopped: stopped by {number.name}")
    assert "appraiser train --resume --out" in message
    if phase == "step":  # saved within the step that the signal met
        assert json.loads((tmp_path / "run/last/training/state.json").read_text())["step"] in (4, 5)
    assert trainings.run(config, tmp_path / "err") == 0, (tmp_path / "err").read_text()
    if phase != "seeing":
        assert fingerprint(tmp_path / "run") == whole


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(place, whole, trainings, tmp_path):
    hook = {"phase": "step", "signal": int(signal.SIGTERM), "at": 6}
    assert trainings.run(settings(place, tmp_path / "run"), tmp_path / "err", hook) == 143
    newest = checkpoints(tmp_path / "run")[0]
    weights = newest / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    assert trainings.run(settings(place, tmp_path / "run"), tmp_path / "err") == 0
    assert (
        f"{newest.name} is damaged (adapter_model.safetensors was changed): it is not used"
        in (tmp_path / "err").read_text()
    )
    assert fingerprint(tmp_path / "run") == whole


@pytest.mark.parametrize("num_damages", [40, pytest.param(500, marks=pytest.mark.soak)])
def test_every_damage_is_found(place, whole, tmp_path, num_damages):
    rng = random.Random(num_damages)
    folder = tmp_path / "run/checkpoints/step-10"
    shutil.copytree((place / "whole/last").resolve(), folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert find_damage(folder) is None
    kinds: Counter[str] = Counter()
    for _ in range(num_damages):
        path = rng.choice(files)
        before = path.read_bytes()
        kind = rng.choice(("bit", "cut", "longer", "gone", "empty", "zeros"))
        data = bytearray(before)
        place_ = rng.randrange(len(data))
        if kind == "bit":
            data[place_] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            del data[place_:]
        elif kind == "longer":
            data += b"\0"
        elif kind == "empty":
            data.clear()
        elif kind == "zeros":
            data[place_ : place_ + 512] = bytes(len(data[place_ : place_ + 512]))
        if kind == "gone":
            path.unlink()
        elif bytes(data) == before:
            continue
        else:
            path.write_bytes(data)
        kinds[kind] += 1
        if path.name == "manifest.json" and _same_manifest(path, before):
            path.write_bytes(before)
            continue
        assert find_damage(folder) is not None, (kind, path.name, place_)
        assert newest_intact(tmp_path / "run")[0] is None
        path.write_bytes(before)
    assert find_damage(folder) is None
    assert len(kinds) == 6


def _same_manifest(path: Path, before: bytes) -> bool:
    """A changed space or a missing last newline says the same."""
    try:
        return bool(json.loads(path.read_text()) == json.loads(before))
    except (ValueError, FileNotFoundError):
        return False


def test_other_settings_are_refused_by_name(place, whole):
    config = settings(place, place / "whole", optim={"learning_rate": 2e-3}, run={"seed": 4})
    (place / "whole/summary.json").rename(place / "whole/summary.kept")
    try:
        with pytest.raises(ConfigError) as caught:
            train(config_from(config, "test"), resume=True)
    finally:
        (place / "whole/summary.kept").rename(place / "whole/summary.json")
    assert "optim.learning_rate: 0.001 -> 0.002; run.seed: 0 -> 4" in caught.value.what


def test_a_complete_run_is_not_resumed(place, whole):
    with pytest.raises(ConfigError, match="is complete"):
        train(config_from(settings(place, place / "whole"), "test"), resume=True)


def test_a_run_that_exists_is_begun_only_with_resume(place, whole):
    with pytest.raises(ConfigError, match="exists and is not empty") as caught:
        train(config_from(settings(place, place / "whole"), "test"))
    assert "--resume" in str(caught.value.fix)


def test_two_runs_in_one_folder_are_refused(place, trainings, tmp_path):
    config = settings(place, tmp_path / "run")
    trainings.start(config, tmp_path / "err")
    while not (tmp_path / "run/metrics.jsonl").exists():
        time.sleep(0.01)
    with pytest.raises(ConfigError, match="another process trains in"):
        train(config_from(config, "test"), resume=True)
    assert trainings.status() == 0, (tmp_path / "err").read_text()


def test_other_products_are_refused(place, whole, tmp_path):
    make_catalogue(tmp_path / "other", 60, seed=4, size=64)
    build_dataset(tmp_path / "other", tmp_path / "dataset")
    shutil.copytree(place / "whole", tmp_path / "run", symlinks=True)
    (tmp_path / "run/summary.json").unlink()
    config = settings(place, tmp_path / "run", data={"dataset": str(tmp_path / "dataset")})
    with pytest.raises(ConfigError, match="holds other products"):
        train(config_from(config, "test"), resume=True)


def test_worker_processes_make_the_same_run(place, whole, trainings, tmp_path):
    config = settings(place, tmp_path / "run", data={"workers": 1})
    assert trainings.run(config, tmp_path / "err") == 0, (tmp_path / "err").read_text()
    assert fingerprint(tmp_path / "run") == whole
