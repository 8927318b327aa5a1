"""A run through Ray Train is the run of one process, also when a worker is killed in its midst."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from tiny import tiny_backbone

from appraiser import build_dataset, make_catalogue, train
from appraiser.config import config_from

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install ray"),
    pytest.mark.usefixtures("ray_alone"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ray")
    tiny_backbone(root / "model")
    make_catalogue(root / "catalogue", 60, seed=3, size=64)
    build_dataset(root / "catalogue", root / "dataset", shares={"train": 0.7, "val": 0.1, "calib": 0.1, "test": 0.1})
    return root


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """Ray needs a folder with a short name, and a token."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    found = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": random.SystemRandom().randbytes(32).hex(),
        "RAY_TMPDIR": folder,
        "OMP_NUM_THREADS": "1",
    }
    found.pop("RAY_ADDRESS", None)
    yield found
    shutil.rmtree(folder, ignore_errors=True)


def settings(place: Path, out: Path) -> dict[str, Any]:
    return {
        "model": {"base": str(place / "model")},
        "adapter": {"kind": "none"},
        "optim": {"learning_rate": 1e-3},
        "data": {"dataset": str(place / "dataset")},
        "run": {"out": str(out), "steps": 30, "epochs": None, "batch_size": 8, "micro_batch_size": 4, "eval_every": 30,
                "eval_records": 2, "log_every": 1, "save_every": 2},
        "tracking": {"wandb": "off"},
    }  # fmt: skip


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The workers that train, among all the processes of a Ray that this command started."""
    family = psutil.Process(process.pid).children(recursive=True)
    return [one for one in family if "RayTrainWorker" in " ".join(one.cmdline()[:1])]


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_the_run_ends_as_one_process_would(place, environment, tmp_path):
    train(config_from(settings(place, tmp_path / "alone"), "test"))
    out = tmp_path / "run"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings(place, out)))
    command = [
        sys.executable, "-m", "appraiser", "train", str(place / "dataset"), "--recipe", str(tmp_path / "config.yaml"),
        "--out", str(out), "--on", "ray", "--workers", "2",
    ]  # fmt: skip
    with (tmp_path / "out.txt").open("w") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said, text=True)
        killed = None
        while process.poll() is None:
            if killed is None and (out / "last").exists() and (found := workers(process)):
                killed = found[-1]
                killed.send_signal(signal.SIGKILL)
            time.sleep(0.02)
    assert process.returncode == 0, (tmp_path / "out.txt").read_text()[-3000:]
    assert killed is not None
    assert losses(out) == pytest.approx(losses(tmp_path / "alone"), rel=1e-5)
