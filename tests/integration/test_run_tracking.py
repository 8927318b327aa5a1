"""W&B is the mirror of a run: what it holds, that it stays here unless asked, and that a run does not need it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from tiny import tiny_backbone
from trainings import Trainings, fingerprint
from wandb_files import OfflineRun, offline_runs, staged_tables

from appraiser import build_dataset, make_catalogue
from appraiser.data.dataset import open_dataset
from appraiser.data.pictures import decode
from appraiser.training.tracking import ORIGIN_KEYS

pytest.importorskip("wandb")

NUM_SAMPLES = 10
QUICK = "from appraiser.training import tracking\ntracking.INIT_TIMEOUT_S = tracking.FINISH_TIMEOUT_S = 1.0\n"
SECRETS = "https://me:sesa@me@shop.example/x?token=sesame&size=3"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a catalogue of 60 products at 64 px, and its data set with 12 for validation."""
    root = tmp_path_factory.mktemp("tracking")
    tiny_backbone(root / "model")
    make_catalogue(root / "catalogue", 60, seed=3, size=64)
    build_dataset(root / "catalogue", root / "dataset", shares={"train": 0.6, "val": 0.2, "calib": 0.1, "test": 0.1})
    return root


@pytest.fixture(scope="module")
def trainings() -> Iterator[Trainings]:
    with Trainings() as started:
        yield started


def settings(place: Path, out: Path, wandb: str, **data: Any) -> dict[str, Any]:
    return {
        "model": {"base": str(place / "model")},
        "adapter": {"kind": "lora", "rank": 4},
        "optim": {"learning_rate": 1e-3},
        "data": {"dataset": str(place / "dataset")} | data,
        "run": {"out": str(out), "steps": 6, "epochs": None, "batch_size": 4, "micro_batch_size": 2,
                "eval_every": 3, "eval_records": 12, "log_every": 1},
        "tracking": {"wandb": wandb},
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole(place: Path, trainings: Trainings) -> dict[str, Any]:
    """A run that is not mirrored."""
    code = trainings.run(settings(place, place / "whole", "off"), place / "whole.err")
    assert code == 0, (place / "whole.err").read_text()
    return fingerprint(place / "whole")


@contextmanager
def deaf_server() -> Iterator[tuple[str, socket.socket]]:
    """An address that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        server.settimeout(0)
        yield f"http://127.0.0.1:{server.getsockname()[1]}", server


def environ(address: str, home: Path) -> dict[str, str]:
    """Everything that would make W&B upload, had it been asked to."""
    home.mkdir()
    return {"WANDB_MODE": "online", "WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": address, "HOME": str(home)}


@pytest.fixture(scope="module")
def tracked(place: Path, trainings: Trainings) -> Path:
    """An offline run in an environment that says otherwise, with secrets in it, stopped once and resumed."""
    config = settings(place, place / "tracked", "offline", features_folder=SECRETS)
    typed = f"import sys\nsys.argv = ['appraiser', 'train', '--set', {'data.features_folder=' + SECRETS!r}]\n"
    with deaf_server() as (address, server):
        environment = environ(address, place / "home")
        for hook, expected in (({"phase": "step", "signal": int(signal.SIGTERM), "at": 4}, 143), (None, 0)):
            code = trainings.run(config, place / "err", hook, environ=environment, patches=typed)
            assert code == expected, (place / "err").read_text()
            assert "W&B" not in (place / "err").read_text()
        with pytest.raises(BlockingIOError):  # nobody has come
            server.accept()
    return place / "tracked"


@pytest.fixture(scope="module")
def mirrored(tracked: Path) -> list[OfflineRun]:
    return offline_runs(tracked)


def lines(run: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]


def test_the_mirror_holds_every_number_and_no_other(tracked, mirrored, whole):
    assert fingerprint(tracked) == whole
    seen: dict[int, dict[str, float]] = {}
    for run in mirrored:
        for line in run.history:
            seen.setdefault(line["_step"], {}).update(line)
    recorded: dict[int, dict[str, float]] = {}
    for line in lines(tracked, "metrics"):
        recorded.setdefault(line.pop("step"), {}).update(line)
    assert sorted(seen) == sorted(recorded) == [1, 2, 3, 4, 5, 6]
    for step, numbers in recorded.items():
        named = {name: numbers[key] for key, name in ORIGIN_KEYS.items() if key in numbers}
        mine = {key: value for key, value in seen[step].items() if key[0] != "_" and "Samples" not in key}
        assert mine == pytest.approx(numbers | named)
    assert {key for run in mirrored for key in run.keys} >= {
        "Batch Loss", "Average Training Loss", "Validation Loss", "Validation Price Error (Average)"
    }  # fmt: skip


def test_a_resumed_run_goes_on_under_the_same_id(tracked, mirrored):
    assert len(mirrored) == 2
    assert {run.run_id for run in mirrored} == {(tracked / "wandb/run_id").read_text()}
    assert [run.exit_code for run in mirrored] == [1, 0]


def test_the_mirror_shows_validation_products_with_their_pictures(tracked, place):
    recorded = {record.id: record for record in open_dataset(place / "dataset").split("val")}
    samples = lines(tracked, "samples")
    tables = staged_tables(tracked)
    # W&B stages the table of a step twice: as of the run, and as the newest of its name.
    shown = {json.dumps([row[1:] for row in table["data"]]) for table in tables}
    expected = [[[s["id"], s["target"], s["answer"]] for s in samples if s["step"] == step] for step in (3, 6)]
    assert shown == {json.dumps(rows) for rows in expected}
    for table in tables:
        assert table["columns"] == ["picture", "id", "target", "answer"]
        assert len(table["data"]) == NUM_SAMPLES
        for picture, record_id, *_ in table["data"]:
            with Image.open(picture["file"]) as image, decode(recorded[record_id].images[0]) as original:
                assert image.size == original.size  # 64 px: smaller than a thumbnail
                assert near(image, original)
    assert not [path for path in (place / "home").rglob("*") if "staging" in path.parts]


def near(picture: Image.Image, original: Image.Image) -> bool:
    """Whether it is the same picture, but for its compression."""
    pairs = zip(
        picture.convert("L").resize((8, 8)).tobytes(), original.convert("L").resize((8, 8)).tobytes(), strict=True
    )
    return all(abs(mine - theirs) < 8 for mine, theirs in pairs)


def test_the_best_model_is_an_artifact(tracked, mirrored):
    [artifact] = [artifact for run in mirrored for artifact in run.artifacts if artifact.type == "model"]
    best = (tracked / "best").resolve()
    assert artifact.name == "tracked-model"
    assert {"best", best.name} <= set(artifact.aliases)
    files = {entry.path: entry for entry in artifact.manifest.contents}
    assert files.keys() == {path.name for path in best.iterdir() if path.is_file()}
    assert {"adapter_model.safetensors", "adapter_config.json", "appraiser.json", "tokenizer.json"} <= files.keys()
    # Not a second copy of the weights.
    assert Path(files["adapter_model.safetensors"].local_path) == best / "adapter_model.safetensors"
    assert json.loads(artifact.metadata)["step"] == int(best.name.removeprefix("step-"))


def test_no_secret_reaches_the_mirror(tracked, mirrored):
    for run in mirrored:
        assert run.config["data"]["features_folder"] == "https://***@shop.example/x?token=***&size=3"
        assert run.config["optim"]["learning_rate"] == 1e-3
    told = [path for path in (tracked / "wandb").rglob("*") if path.is_file() and b"sesa" in path.read_bytes()]
    assert told == []


KILLED = """
import psutil
from appraiser.training.gradients import StepGradients
update, steps = StepGradients.update, 0

def killing(self, optimizers):
    global steps
    steps += 1
    if steps == 3:
        until = time.monotonic() + 60
        while not (found := [child for child in psutil.Process().children() if child.name() == "wandb-core"]):
            assert time.monotonic() < until, "W&B did not start"
            time.sleep(0.1)
        found[0].kill()
    update(self, optimizers)

StepGradients.update = killing
"""
BREAK = "import time, wandb\nfrom wandb.sdk.wandb_run import Run\nlog, calls = Run.log, []\n"
FAILING_LOG = """
def failing(self, *arguments, **named):
    calls.append(None)
    if len(calls) > 2:
        raise OSError(28, "No space left on device")
    log(self, *arguments, **named)
Run.log = failing
"""


@pytest.mark.parametrize(
    ("patches", "warning"),
    [
        (KILLED, "W&B failed (ConnectionResetError: Connection lost): from there on"),
        (FAILING_LOG, "W&B failed (OSError: [Errno 28] No space left on device): from there on"),
    ],
    ids=["killed", "log fails"],
)
def test_a_run_does_not_need_its_mirror(place, trainings, whole, tmp_path, patches, warning):
    code = trainings.run(settings(place, tmp_path / "run", "offline"), tmp_path / "err", patches=BREAK + patches)
    said = (tmp_path / "err").read_text()
    assert code == 0, said
    assert warning in said
    assert fingerprint(tmp_path / "run") == whole


@pytest.mark.parametrize("answers", [pytest.param("refuses", marks=pytest.mark.soak), "is silent"])
def test_an_online_run_ends_well_where_nobody_answers(place, trainings, whole, tmp_path, answers):
    with deaf_server() as (address, server):
        if answers == "refuses":
            server.close()
        code = trainings.run(
            settings(place, tmp_path / "run", "online"),
            tmp_path / "err",
            environ=environ(address, tmp_path / "home"),
            patches=QUICK,
        )
        said = (tmp_path / "err").read_text()
        assert code == 0, said
        assert "W&B did not end within 1 s: its copy of this run may be incomplete" in said or "W&B failed (" in said
        if answers == "is silent":
            server.accept()[0].close()  # somebody had come
    assert fingerprint(tmp_path / "run") == whole


@pytest.mark.soak
def test_the_process_of_such_a_run_comes_to_its_end(place, tmp_path):
    """What W&B does when a process ends does not hold it up."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings(place, tmp_path / "run", "online")))
    script = f"{QUICK}\nfrom appraiser import cli\ncli.main()\n"
    arguments = ["train", str(place / "dataset"), "--recipe", str(tmp_path / "config.yaml")]
    with deaf_server() as (address, _):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments, "--out", str(tmp_path / "run")],
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environ(address, tmp_path / "home"),
            capture_output=True,
            text=True,
            timeout=75,  # W&B by itself would wait for 90 s
        )
    assert done.returncode == 0, done.stderr
    assert "W&B did not end within 1 s" in done.stderr or "W&B failed (" in done.stderr
    assert "Traceback" not in done.stderr
