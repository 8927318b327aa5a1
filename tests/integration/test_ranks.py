"""Several processes train the very run that one would: same products, same loss, same weights."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny import tiny_backbone
from trainings import Trainings

from appraiser import build_dataset, make_catalogue


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a catalogue of 60 products at 64 px, and its data set."""
    root = tmp_path_factory.mktemp("ranks")
    tiny_backbone(root / "model")
    make_catalogue(root / "catalogue", 60, seed=3, size=64)
    build_dataset(root / "catalogue", root / "dataset", shares={"train": 0.7, "val": 0.1, "calib": 0.1, "test": 0.1})
    return root


@pytest.fixture(scope="module")
def trainings() -> Iterator[Trainings]:
    with Trainings() as started:
        yield started


def settings(place: Path, out: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    """Rows of several lengths in uneven micro-batches; 50 products in steps of 8 begin a second epoch in mid-step."""
    config: dict[str, dict[str, Any]] = {
        "model": {"base": str(place / "model")},
        "adapter": {"kind": "none"},
        "optim": {"learning_rate": 1e-3},
        "data": {"dataset": str(place / "dataset")},
        "run": {"out": str(out), "steps": 12, "epochs": None, "batch_size": 8, "micro_batch_size": 4, "eval_every": 12,
                "eval_records": 3, "log_every": 1, "micro_batch_tokens": 150},
        "tracking": {"wandb": "off"},
    }  # fmt: skip
    for name, values in sections.items():
        config[name] = config.get(name, {}) | values
    return config


def losses(run: Path) -> list[tuple[float, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["train/loss"], line["train/grad_norm"]) for line in lines if "train/loss" in line]


def assert_same_run(found: Path, expected: Path) -> None:
    for (loss, norm), (same_loss, same_norm) in zip(losses(found), losses(expected), strict=True):
        assert loss == pytest.approx(same_loss, rel=1e-5)
        assert norm == pytest.approx(same_norm, rel=1e-4)
    for name in ("model.safetensors", "adapter_model.safetensors"):
        if not (expected / "last" / name).exists():
            continue
        weights, same = load_file(found / "last" / name), load_file(expected / "last" / name)
        assert weights.keys() == same.keys()
        for key, weight in weights.items():
            # AdamW divides by tiny numbers: where a gradient is all rounding, its step is too.
            torch.testing.assert_close(weight, same[key], rtol=1e-3, atol=3e-4, msg=key)


@pytest.fixture(scope="module")
def alone(place: Path, trainings: Trainings) -> Path:
    """The run of one process, and the ids of its steps beside it."""
    code = trainings.run(settings(place, place / "alone"), place / "err", ids=place / "alone.ids")
    assert code == 0, (place / "err").read_text()
    return place / "alone"


def ids_of(path: Path, num_ranks: int) -> list[Counter[str]]:
    """The products of every step, over all ranks."""
    steps: dict[int, Counter[str]] = {}
    files = [path] if num_ranks == 1 else [path.with_name(f"{path.name}{rank}") for rank in range(num_ranks)]
    for file in files:
        for line in file.read_text().splitlines():
            step, record_id = line.split(" ", 1)
            steps.setdefault(int(step), Counter())[record_id] += 1
    return [steps[step] for step in sorted(steps)]


@pytest.mark.parametrize(
    ("sections", "num_ranks"),
    [
        ({}, 2),
        ({"run": {"sharding": "full"}}, 2),
        pytest.param({"run": {"sharding": "full"}}, 4, marks=pytest.mark.slow),
        pytest.param({}, 4, marks=pytest.mark.slow),
    ],
    ids=["ddp-2", "fsdp-2", "fsdp-4", "ddp-4"],
)
def test_ranks_train_as_one_process_does(place, alone, trainings, tmp_path, sections, num_ranks):
    config = settings(place, tmp_path / "run", **sections)
    code = trainings.run(config, tmp_path / "err", ranks=num_ranks, ids=tmp_path / "ids")
    assert code == 0, (tmp_path / "err").read_text()
    assert_same_run(tmp_path / "run", alone)
    assert ids_of(tmp_path / "ids", num_ranks) == ids_of(alone.with_name("alone.ids"), 1)


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_adapters_train_on_ranks_as_in_one_process(place, trainings, tmp_path, sharding):
    lora = {"adapter": {"kind": "lora", "rank": 4, "dropout": 0.0}}
    assert trainings.run(settings(place, tmp_path / "one", **lora), tmp_path / "err") == 0
    config = settings(place, tmp_path / "two", **lora, run={"sharding": sharding})
    assert trainings.run(config, tmp_path / "err", ranks=2) == 0, (tmp_path / "err").read_text()
    assert_same_run(tmp_path / "two", tmp_path / "one")


def test_a_run_goes_from_one_rank_to_two_to_four_and_back(place, alone, trainings, tmp_path):
    """Stopped three times and resumed by another number of ranks each time, once with shared weights."""
    ways = [(1, "none"), (2, "full"), (4, "none"), (1, "none")]
    steps: list[Counter[str]] = []
    for turn, (num_ranks, sharding) in enumerate(ways):
        hook = {"phase": "step", "signal": int(signal.SIGTERM), "at": 1} if turn < 3 else None
        ids = tmp_path / f"ids{turn}"
        config = settings(place, tmp_path / "run", run={"sharding": sharding})
        code = trainings.run(config, tmp_path / "err", hook, ranks=num_ranks, ids=ids)
        assert code == (143 if hook else 0), (tmp_path / "err").read_text()
        steps += ids_of(ids, num_ranks)
    assert steps == ids_of(alone.with_name("alone.ids"), 1)
    assert_same_run(tmp_path / "run", alone)


FAILING = """
import sys
import torch.distributed
from appraiser import cli
from appraiser.errors import DataError
from appraiser.training import trainer

step = trainer.take_step

def failing(session, *arguments):
    if session.ranks.rank == 1 and session.state.step == 2:
        raise DataError("the disk of rank 1 is gone")
    return step(session, *arguments)

trainer.take_step = failing
sys.argv = ["appraiser", "train", *sys.argv[1:]]
cli.main()
"""


@pytest.mark.slow
def test_one_failing_rank_ends_all_and_says_why(place, tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings(place, tmp_path / "run")))
    (tmp_path / "failing.py").write_text(FAILING)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [str(place / "dataset"), "--recipe", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run")]
    begun = time.monotonic()
    done = subprocess.run(
        [*launcher, str(tmp_path / "failing.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=150,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
    )
    assert done.returncode != 0
    assert "DataError: the disk of rank 1 is gone" in done.stderr
    first = re.search(r"Root Cause.*?rank\s*: (\d)", done.stderr, re.DOTALL)
    assert first, done.stderr[-2000:]
    assert time.monotonic() - begun < 120  # start-up of two processes included; a hang would last 30 minutes
