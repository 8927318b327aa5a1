"""One optimizer update: what is not a number stops it, what does not fit is cut; neither changes what is learned."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_backbone
from torch import Tensor

from appraiser import build_dataset, make_catalogue
from appraiser.config import RunConfig, config_from
from appraiser.data.dataset import open_dataset
from appraiser.errors import DataError
from appraiser.phi3_v.vision_phi3_v import Phi3VVisionTransformer
from appraiser.training import trainer
from appraiser.training.checkpoint import find_damage, newest_intact
from appraiser.training.gradients import StepGradients, step_gradients
from appraiser.training.session import Session
from appraiser.training.step import take_step
from appraiser.training.trainer import train

NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
NO_CPU_MEMORY = RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a catalogue of 30 products at 64 px, and its data set."""
    root = tmp_path_factory.mktemp("step")
    tiny_backbone(root / "model")
    make_catalogue(root / "catalogue", 30, seed=3, size=64)
    build_dataset(root / "catalogue", root / "dataset", shares={"train": 0.7, "val": 0.1, "calib": 0.1, "test": 0.1})
    return root


def settings(place: Path, out: Path, **sections: dict[str, Any]) -> RunConfig:
    base: dict[str, dict[str, Any]] = {
        "model": {"base": str(place / "model")},
        "adapter": {"kind": "none"},
        "optim": {"learning_rate": 1e-3},
        "data": {"dataset": str(place / "dataset")},
        "run": {"out": str(out), "steps": 4, "epochs": None, "batch_size": 8, "micro_batch_size": 8, "eval_every": 4,
                "eval_records": 2, "log_every": 1, "save_every": 1},
        "tracking": {"wandb": "off"},
    }  # fmt: skip
    for name, values in sections.items():
        base[name] = base.get(name, {}) | values
    return config_from(base, "test")


@pytest.fixture
def session(place: Path, tmp_path: Path) -> Session:
    config = settings(place, tmp_path / "run")
    return Session(config, open_dataset(config.data.dataset))


@contextmanager
def beginning(session: Session) -> Iterator[StepGradients]:
    with step_gradients(session.config, session.replica, session.objective) as gradients, session.feed:
        yield gradients


def weights(session: Session) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in session.replica.trained.items()}


Loss = Callable[..., tuple[Tensor, dict[str, float]]]


@pytest.mark.parametrize("what", ["loss", "gradient", "infinity"])
def test_what_is_not_a_number_stops_the_step_before_anything_is_learned(
    session: Session, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    loss_of: Loss = session.objective.loss

    def broken(*arguments: Any) -> tuple[Tensor, dict[str, float]]:
        loss, sums = loss_of(*arguments)
        if what == "gradient":
            loss.register_hook(lambda gradient: gradient * math.nan)
            return loss, sums
        return loss * (math.nan if what == "loss" else math.inf), sums

    monkeypatch.setattr(session.objective, "loss", broken)
    before = weights(session)
    with beginning(session) as gradients, pytest.raises(DataError, match="is not a number") as caught:
        take_step(session, gradients, 0.0)
    ids = [session.source.records[position].id for _, position in session.feed.order.step(0)]
    assert caught.value.where == f"records {', '.join(ids)}"
    assert "at step 1" in caught.value.what
    assert all(torch.equal(value, before[name]) for name, value in weights(session).items())
    assert all(not optimizer.state for optimizer in session.optimizers)


def test_the_checkpoint_before_a_number_that_is_none_is_intact(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = trainer.take_step

    def third_is_broken(session: Session, gradients: StepGradients, done: float) -> Any:
        if session.state.step == 2:
            loss_of: Loss = session.objective.loss
            monkeypatch.setattr(session.objective, "loss", lambda *a: (loss_of(*a)[0] * math.nan, {}), raising=False)
        return taken(session, gradients, done)

    monkeypatch.setattr(trainer, "take_step", third_is_broken)
    config = settings(place, tmp_path / "run")
    with pytest.raises(DataError, match="at step 3"):
        train(config)
    found, damage = newest_intact(tmp_path / "run")
    assert found is not None
    assert (found.name, damage) == ("step-2", [])
    assert find_damage(tmp_path / "run/last") is None
    monkeypatch.undo()
    assert train(config, resume=True).steps == 4


class Memory:
    """A machine with memory for so many rows at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rows: int, error: Exception = NO_MEMORY) -> None:
        self.forward = StepGradients._loss
        self.sizes: list[int] = []

        def limited(gradients: StepGradients, batch: Any, num_items: int) -> Any:
            found = self.forward(gradients, batch, num_items)
            self.sizes.append(batch.num_examples)
            if batch.num_examples > rows:
                raise error
            return found

        monkeypatch.setattr(StepGradients, "_loss", limited)


@pytest.mark.parametrize("error", [NO_MEMORY, NO_CPU_MEMORY, MemoryError()], ids=["gpu", "cpu", "python"])
def test_without_memory_for_a_batch_it_is_cut_and_the_step_is_the_same(
    place: Path, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with beginning(session) as gradients:
        expected = take_step(session, gradients, 0.0)
    config = settings(place, tmp_path / "run")
    small = Session(config, open_dataset(config.data.dataset))
    memory = Memory(monkeypatch, 3, error)
    with beginning(small) as gradients:
        found = take_step(small, gradients, 0.0)
        assert memory.sizes == [8, 4, 2, 2, 2, 2]
        small.state.step += 1
        take_step(small, gradients, 0.1)
    assert memory.sizes[6:] == [2, 2, 2, 2]  # not tried again
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert found.grad_norm == pytest.approx(expected.grad_norm, rel=1e-5)
    assert found.num_tokens == expected.num_tokens
    assert small.state.micro_batch_size == 2
    assert small.state.warnings == [
        f"out of memory at step 1: from here on micro-batches of {sizes}; the batch of 8 and the loss are the same"
        for sizes in ("4 instead of 8", "2 instead of 4")
    ]


def test_gradients_after_a_cut_are_those_of_the_whole(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def gradients_now() -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}

        def kept(gradients: StepGradients, optimizers: Any) -> None:
            found.update({n: p.grad.clone() for n, p in session.replica.trained.items() if p.grad is not None})
            gradients.forget()

        with monkeypatch.context() as patch, step_gradients(session.config, session.replica) as gradients:
            patch.setattr(StepGradients, "update", kept)
            take_step(session, gradients, 0.0)
        return found

    session.config.optim.__dict__["max_grad_norm"] = 1e9
    whole = gradients_now()
    Memory(monkeypatch, 3)  # raises after the forward pass of the first micro-batch
    cut = gradients_now()
    assert cut.keys() == whole.keys()
    for name, gradient in whole.items():
        # float32: padding and order of sums are others.
        torch.testing.assert_close(cut[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_one_row_that_does_not_fit_ends_the_run(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    Memory(monkeypatch, 0)
    with beginning(session) as gradients, pytest.raises(torch.OutOfMemoryError):
        take_step(session, gradients, 0.0)


def test_other_errors_are_not_taken_for_it(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    Memory(monkeypatch, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with beginning(session) as gradients, pytest.raises(RuntimeError, match="mat1 and mat2"):
        take_step(session, gradients, 0.0)
    assert session.state.micro_batch_size is None


def test_a_run_that_was_cut_stays_cut_when_it_goes_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very first batch that is computed, before the first step, is where memory ends first."""
    memory = Memory(monkeypatch, 4)
    taken = trainer.take_step

    def ends_in_the_third(session: Session, gradients: StepGradients, done: float) -> Any:
        if session.state.step == 2:
            raise KeyboardInterrupt
        return taken(session, gradients, done)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "take_step", ends_in_the_third)
        with pytest.raises(KeyboardInterrupt):
            train(settings(place, tmp_path / "run"))
    assert memory.sizes.count(8) == 1
    summary = train(settings(place, tmp_path / "run"), resume=True)
    assert memory.sizes.count(8) == 1
    assert [warning for warning in summary.warnings if "micro-batches of 4 instead of 8" in warning]


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_uneven_micro_batches_are_one_large_batch(place: Path, session: Session, tmp_path: Path, micro: int) -> None:
    """Rows of several lengths: micro-batches hold different numbers of supervised tokens."""
    config = settings(place, tmp_path / "run", run={"micro_batch_size": micro})
    parts = Session(config, open_dataset(config.data.dataset))
    with beginning(parts) as gradients:
        counts = {batch.num_supervised for batch in parts.feed.take(0).batches}
        found = take_step(parts, gradients, 0.0)
    with beginning(session) as gradients:
        expected = take_step(session, gradients, 0.0)
    assert len(counts) > 1
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert found.grad_norm == pytest.approx(expected.grad_norm, rel=1e-5)
    assert found.part_norms == pytest.approx(expected.part_norms, rel=1e-4)


def test_a_frozen_tower_is_not_run_in_training_steps(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    phase = ["plan"]
    forward, taken = Phi3VVisionTransformer.forward, trainer.take_step

    def counted(self: Any, *arguments: Any, **named: Any) -> Any:
        calls.append(phase[0])
        return forward(self, *arguments, **named)

    def in_step(*arguments: Any) -> Any:
        phase[0] = "step"
        try:
            return taken(*arguments)
        finally:
            phase[0] = "else"

    monkeypatch.setattr(Phi3VVisionTransformer, "forward", counted)
    monkeypatch.setattr(trainer, "take_step", in_step)
    features = {"features_folder": str(tmp_path / "features")}
    sections = {"parts": {"tower": "freeze"}, "data": features}
    train(settings(place, tmp_path / "first", **sections))
    assert "else" in calls  # seen beforehand, and in validation
    assert "step" not in calls
    kept = list(tmp_path.glob("features/*/*/*.safetensors"))
    assert len(kept) == len(open_dataset(place / "dataset").split("train"))
    before = {path: path.stat().st_mtime_ns for path in kept}
    train(settings(place, tmp_path / "second", **sections))
    assert {path: path.stat().st_mtime_ns for path in kept} == before  # used by the next run as well
    calls.clear()
    train(settings(place, tmp_path / "third", parts={"tower": "freeze"}, data=features | {"kept_features_gib": 0}))
    assert "step" in calls  # what is counted is the tower
    third, first = ((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0] for name in ("third", "first"))
    assert loss_in(third) == pytest.approx(loss_in(first), rel=1e-5)


def loss_in(line: str) -> float:
    return float(json.loads(line)["train/loss"])
