"""Runs that are interrupted at awkward moments, and run folders that are moved: nothing is done twice or lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny import tiny_backbone
from trainings import fingerprint

from appraiser import build_dataset, make_catalogue
from appraiser.config import RunConfig, config_from, load_config
from appraiser.training import session as session_module
from appraiser.training import step as step_module
from appraiser.training import trainer
from appraiser.training.checkpoint import find_damage
from appraiser.training.gradients import StepGradients
from appraiser.training.session import Session
from appraiser.training.stop_signals import RunStopped
from appraiser.training.trainer import train


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a catalogue of 30 products at 64 px, and its data set."""
    root = tmp_path_factory.mktemp("folders")
    tiny_backbone(root / "model")
    make_catalogue(root / "catalogue", 30, seed=3, size=64)
    build_dataset(root / "catalogue", root / "dataset", shares={"train": 0.6, "val": 0.2, "calib": 0.1, "test": 0.1})
    return root


def settings(place: Path, out: Path, **sections: dict[str, Any]) -> RunConfig:
    base: dict[str, dict[str, Any]] = {
        "model": {"base": str(place / "model")},
        "adapter": {"kind": "none"},
        "optim": {"learning_rate": 1e-3},
        "data": {"dataset": str(place / "dataset")},
        "run": {"out": str(out), "steps": 6, "epochs": None, "batch_size": 2, "micro_batch_size": 2, "eval_every": 2,
                "eval_records": 2, "log_every": 1, "keep_last": 1},
        "tracking": {"wandb": "off"},
    }  # fmt: skip
    for name, values in sections.items():
        base[name] = base.get(name, {}) | values
    return config_from(base, "test")


@pytest.fixture(scope="module")
def whole(place: Path) -> dict[str, Any]:
    """A run that nothing disturbs, with one checkpoint beside the best."""
    train(settings(place, place / "whole"))
    assert len(list((place / "whole/checkpoints").iterdir())) <= 2
    return fingerprint(place / "whole")


Taken = Callable[[Session, StepGradients, float], Any]


def in_step(number: int, act: Callable[[], Any]) -> Taken:
    """Steps in one of which something happens."""
    take_step = trainer.take_step

    def taken(session: Session, gradients: StepGradients, done: float) -> Any:
        found = take_step(session, gradients, done)
        if session.state.step + 1 == number:
            act()
        return found

    return taken


class Killed(BaseException):
    pass


def kill(*_: Any, **__: Any) -> Any:
    raise Killed


def test_a_validation_that_was_killed_before_it_was_saved_is_recorded_once(
    place: Path, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(place, tmp_path / "run")
    with monkeypatch.context() as patch:  # stopped where a validation is due: saved, not validated
        patch.setattr(trainer, "take_step", in_step(4, lambda: os.kill(os.getpid(), signal.SIGTERM)))
        with pytest.raises(RunStopped):
            train(config)
    state = json.loads((tmp_path / "run/last/training/state.json").read_text())
    assert (state["step"], state["is_validated"]) == (4, False)
    with monkeypatch.context() as patch:  # validated and recorded, not saved
        patch.setattr(session_module, "save_checkpoint", kill)
        with pytest.raises(Killed):
            train(config, resume=True)
    assert [json.loads(line)["step"] for line in (tmp_path / "run/samples.jsonl").read_text().splitlines()] == [
        2,
        2,
        4,
        4,
    ]
    train(config, resume=True)
    assert fingerprint(tmp_path / "run") == whole


def test_a_best_that_is_lost_when_all_steps_are_done_is_chosen_anew(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(place, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(session_module, "calibrated", kill)
        # The first validation is the best one.
        score = session_module.RunState.score
        patch.setattr(session_module.RunState, "score", lambda self, metrics, _: score(self, metrics, -self.step))
        with pytest.raises(Killed):
            train(config)
    best = (tmp_path / "run/best").resolve()
    assert best.name == "step-2"
    with (best / "model.safetensors").open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"abc")
    summary = train(config, resume=True)
    assert summary.best_step == 6
    assert any("the best checkpoint (step 2) is missing or damaged" in warning for warning in summary.warnings)
    assert find_damage(tmp_path / "run/best") is None
    assert (tmp_path / "run/best").resolve().name == "step-6"


def test_minutes_are_counted_over_all_parts_of_a_run_on_any_clock(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step takes a second; the second part of the run is on a machine that was just started."""

    def clock(now: float) -> Any:
        def monotonic() -> float:
            nonlocal now
            now += 1.0
            return now

        return SimpleNamespace(monotonic=monotonic)

    config = settings(
        place, tmp_path / "run", run={"steps": None, "max_minutes": 0.1, "eval_every": 100, "save_every": 1}
    )
    with monkeypatch.context() as patch:
        patch.setattr(step_module, "time", clock(1e6))
        patch.setattr(trainer, "take_step", in_step(4, lambda: os.kill(os.getpid(), signal.SIGTERM)))
        with pytest.raises(RunStopped):
            train(config)
    monkeypatch.setattr(step_module, "time", clock(0))
    seen: list[float] = []
    summary = train(config, resume=True, progress=lambda what, n: seen.append(n["done"]) if what == "train" else None)
    assert (summary.steps, summary.training_seconds) == (6, 6.0)
    assert seen == [pytest.approx(4 / 6), 1.0]


def test_a_run_and_its_data_set_may_move(
    place: Path, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To another place, copied as `scp -r` does, resumed from within by a relative name and through a link."""
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "take_step", in_step(3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
        with pytest.raises(RunStopped):
            train(settings(place, tmp_path / "run"))
    shutil.copytree(tmp_path / "run", tmp_path / "elsewhere/run", symlinks=False)
    shutil.copytree(place / "dataset", tmp_path / "elsewhere/products")
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "elsewhere/link").symlink_to("run")
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = settings(place, Path("link"), data={"dataset": "products"})
    train(config, resume=True)
    assert fingerprint(tmp_path / "elsewhere/run") == whole
    assert load_config(tmp_path / "elsewhere/run/config.yaml").run.steps == 6
