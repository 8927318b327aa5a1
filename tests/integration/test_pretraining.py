"""The recipe of phi3v-tiny, cut to two steps of each stage, on two processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from appraiser.backbone import load
from appraiser.errors import ConfigError
from appraiser.predict import Predictor
from appraiser.pretraining.pretrain import PretrainingConfig, pretrain
from appraiser.pretraining.team import Team, team_of

SHORT = PretrainingConfig(
    looking_steps=2,
    weighing_steps=2,
    telling_steps=2,
    looking_batch_size=4,
    weighing_batch_size=4,
    telling_batch_size=4,
    replay_size=200,
    whitening_pictures=20,
    warmup_steps=1,
    log_every=1,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, float]]]:
    seen: list[tuple[str, float]] = []
    out = pretrain(tmp_path_factory.mktemp("tiny"), SHORT, lambda stage, numbers: seen.append((stage, numbers["loss"])))
    return out, seen


def test_all_stages_run_and_say_so(made: tuple[Path, list[tuple[str, float]]]) -> None:
    _, seen = made
    assert [stage for stage, _ in seen] == ["looking", "looking", "weighing", "weighing", "telling", "telling"]
    assert all(np.isfinite(loss) for _, loss in seen)


def test_what_it_leaves_is_a_model_that_answers(made: tuple[Path, list[tuple[str, float]]]) -> None:
    out, _ = made
    size = (out / "model.safetensors").stat().st_size
    assert size < 12e6
    facts = json.loads((out / "pretraining.json").read_text())
    assert facts["recipe"]["looking_steps"] == 2
    [answer] = Predictor(load(out), Predictor.load(out).trained, max_new_tokens=3).predict([Image.new("RGB", (80, 60))])
    assert 0 < answer.confidence <= 1


def test_one_process_follows_the_same_recipe(made: tuple[Path, list[tuple[str, float]]]) -> None:
    out, seen = made
    # One process drawing all pictures itself is another run, but of the same recipe: its first loss is close.
    alone: list[float] = []
    single = PretrainingConfig(**{**SHORT.__dict__, "num_processes": 1, "telling_steps": 1})
    pretrain(out.with_name("alone"), single, lambda stage, numbers: alone.append(numbers["loss"]))
    assert alone[0] == pytest.approx(seen[0][1], rel=0.2)


def test_a_batch_that_processes_cannot_share_evenly_is_refused() -> None:
    with pytest.raises(ConfigError, match="telling_batch_size is 5, which 2 processes"):
        PretrainingConfig(telling_batch_size=5)


def _average(team: Team, folder: Path) -> None:
    """Gradients that differ by process; one parameter has none anywhere."""
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (4,), (5,))]
    for number, parameter in enumerate(parameters[:2]):
        parameter.grad = torch.full_like(parameter, 10.0 * team.rank + number)
    team.average_gradients(parameters)
    gradients = [None if parameter.grad is None else parameter.grad.tolist() for parameter in parameters]
    (folder / f"{team.rank}.json").write_text(json.dumps(gradients))


def test_every_process_gets_the_mean_of_all_gradients(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    with team_of(2, _average, tmp_path) as team:
        _average(team, tmp_path)
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == [[[5.0] * 3] * 2, [6.0] * 4, None]
    assert torch.get_num_threads() == threads
