"""Predictions by workers of a Ray cluster are those of one machine, to the byte, whoever is killed on the way."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from shop_server import ShopServer
from stub_answers import make_table
from tiny import tiny_backbone
from two_worker_ray import two_worker_ray

import appraiser
from appraiser.errors import AppraiserError, ConfigError
from appraiser.predicting import models
from appraiser.predicting.run import Options, predict_source, predict_to_file

pytestmark = [
    pytest.mark.usefixtures("ray_alone"),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Path]:
    """A model, and a table of 150 rows, a few of them bad; blocks have 16 rows."""
    root = tmp_path_factory.mktemp("ray")
    tiny_backbone(root / "model")
    tiny_backbone(root / "other", seed="other:")
    make_table(root / "shop", 150)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "ROWS_AT_ONCE", 16)
        source = Path(appraiser.__file__).parents[1]
        tests = Path(__file__).parents[1]
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (source, tests))))
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", random.SystemRandom().randbytes(32).hex())
        patch.setenv("RAY_TMPDIR", tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # names of sockets have 107 bytes
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.delenv("RAY_ADDRESS", raising=False)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as workers have: sums of floats depend on it
        yield root
        torch.set_num_threads(threads)
        shutil.rmtree(os.environ["RAY_TMPDIR"], ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(place) -> Iterator[str]:
    with two_worker_ray() as address:
        yield address


@pytest.fixture(scope="module")
def here(place) -> bytes:
    """What one machine writes."""
    predict_to_file(place / "model", place / "shop/products.csv", place / "here.jsonl")
    return (place / "here.jsonl").read_bytes()


def workers() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            found += [process] if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::Worker") else []
        except psutil.Error:
            continue
    return found


def test_two_workers_write_what_one_machine_writes(place, here, cluster, tmp_path):
    out = tmp_path / "out.jsonl"
    written = predict_to_file(
        place / "model", place / "shop/products.csv", out, options=Options(on="ray", num_workers=2)
    )
    assert (written.rows, written.failed) == (150, 5)
    assert out.read_bytes() == here
    assert {entry.name for entry in tmp_path.iterdir()} == {"out.jsonl"}
    psutil.wait_procs(workers(), timeout=20)
    assert not workers()


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_and_costs_no_row(place, here, cluster, tmp_path):
    killed: list[int] = []

    def kill_one(done: int, total: int) -> None:
        if done and not killed:
            killed.append(workers()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    out = tmp_path / "out.jsonl"
    predict_to_file(
        place / "model", place / "shop/products.csv", out, kill_one, options=Options(on="ray", num_workers=1)
    )
    assert killed
    assert out.read_bytes() == here


@pytest.mark.slow
def test_a_driver_that_is_killed_goes_on_there_or_here(place, here, cluster, tmp_path):
    out = tmp_path / "out.jsonl"
    code = (
        "import os, sys; from pathlib import Path; from appraiser.predicting.run import Options, predict_to_file\n"
        "from appraiser.predicting import models; models.ROWS_AT_ONCE = 16\n"
        "predict_to_file(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]),\n"
        "    lambda done, total: os._exit(9) if done >= 48 else None, options=Options(on='ray', num_workers=2))"
    )
    command = [sys.executable, "-c", code, str(place / "model"), str(place / "shop/products.csv"), str(out)]
    done = subprocess.run(command, env=os.environ | {"RAY_ADDRESS": cluster}, capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    assert not out.exists()
    written = predict_to_file(place / "model", place / "shop/products.csv", out)
    assert written.resumed == 48
    assert out.read_bytes() == here


@pytest.mark.slow
def test_the_driver_fetches_for_all_workers(place, cluster, tmp_path):
    table = tmp_path / "shop.csv"
    with ShopServer() as server:
        server.latency_s = 0.01
        table.write_text("image\n" + "".join(f"{server.url(f'/picture/{n}')}\n" for n in range(40)))
        policy = server.policy(num_parallel_per_host=1)
        rows = predict_source(place / "model", table, options=Options(policy, "ray", 2))
        assert server.max_open == 1
        assert rows == predict_source(place / "model", table, options=Options(policy))
    assert not any("error" in row for row in rows)


def test_more_workers_than_the_cluster_has_room_for_are_refused(place, cluster, tmp_path):
    with pytest.raises(ConfigError, match=r"the cluster has 2 CPU\(s\), too few for 3 workers"):
        predict_source(place / "model", place / "shop/products.csv", options=Options(on="ray", num_workers=3))


@pytest.mark.slow
def test_a_worker_that_finds_another_model_is_refused(place, cluster, tmp_path, monkeypatch):
    files = models.model_files(place / "other")
    monkeypatch.setattr(models, "model_files", lambda model: files)
    with pytest.raises(AppraiserError, match="a worker finds another model at"):
        predict_to_file(
            place / "model", place / "shop/products.csv", tmp_path / "out.csv", options=Options(on="ray", num_workers=1)
        )
    assert list(tmp_path.iterdir()) == []
