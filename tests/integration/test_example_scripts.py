"""The scripts of examples/: each runs from its first line to its last."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from appraiser import make_catalogue

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"
PROGRAMS = {"APPRAISER": str(Path(sys.executable).with_name("appraiser")), "PYTHON": sys.executable}


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(part) for part in command],
        env=os.environ | PROGRAMS | environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


@pytest.mark.slow
def test_the_quickstart_goes_from_addresses_to_a_served_answer(tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("curl is not on this machine")
    done = run(EXAMPLES / "quickstart.sh", tmp_path / "q", ROWS="160", MINUTES="0.05")
    answer = json.loads((tmp_path / "q/answer.json").read_text())
    assert answer["title"]
    assert answer["text"].startswith("Product: ")
    assert "bit for bit" in done.stdout
    manifest = json.loads((tmp_path / "q/dataset/manifest.json").read_text())
    assert manifest["ok"] == 160
    assert re.search(r"http://127\.0\.0\.1:\d+/images/", (tmp_path / "q/products.csv").read_text())
    # What it started has ended: nobody listens where the service was.
    address = re.search(r"127\.0\.0\.1:(\d+)", (tmp_path / "q/service.log").read_text())
    import socket

    with socket.socket() as gone:
        assert gone.connect_ex(("127.0.0.1", int(address[1]))) != 0


@pytest.fixture
def two_nodes(ray_alone: None) -> Iterator[str]:
    """A Ray of two nodes on this machine; gives its address."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed: pip install ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_the_road_on_a_cluster_of_two_nodes(two_nodes, tmp_path):
    make_catalogue(tmp_path / "shop", 120, seed=3, size=64)
    table, out = tmp_path / "shop/products.csv", tmp_path / "out"
    options = {
        "RAY_ADDRESS": two_nodes,
        "TRAIN_OPTIONS": "--workers 2 --set run.steps=4 --set run.max_minutes=null --set run.eval_every=4 "
        "--set run.eval_records=4 --set run.micro_batches_at_once=1 --set run.micro_batch_size=8 "
        "--set run.batch_size=16",
        "PREDICT_OPTIONS": "--workers 2",
    }
    run(EXAMPLES / "cluster/road.sh", table, out, "demo", **options)
    rows = pq.read_table(out / "predictions.parquet").to_pylist()
    assert len({row["picture"] for row in rows}) == len(rows) == 120
    assert all(row.get("error") is None for row in rows)
    assert len((out / "run/metrics.jsonl").read_text().splitlines()) > 0


def test_the_cluster_file_is_what_ray_reads():
    config = yaml.safe_load((EXAMPLES / "cluster/cluster.yaml").read_text())
    assert {"cluster_name", "provider", "auth", "head_start_ray_commands", "worker_start_ray_commands"} <= set(config)
    starts = [
        line for key in config if key.endswith("start_ray_commands") for line in config[key] if "ray start" in line
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in starts)
    assert "include-dashboard=false" in starts[0]


def test_the_container_is_closed_without_keys():
    text = (EXAMPLES / "Dockerfile").read_text()
    [command] = re.findall(r'^CMD (\["serve".*)$', text, re.M)
    arguments = json.loads(command)
    assert arguments[arguments.index("--key-file") + 1] == "/keys"
    assert re.search(r"^USER \d+$", text, re.M)
    for copied in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "src"):
        assert (REPOSITORY / copied).exists()
        assert copied in text
