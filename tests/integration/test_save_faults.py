"""Whatever system call of a save fails, or is the last before a kill: an intact checkpoint is left to go on from."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from saves import Call, Saves
from tiny import tiny_backbone
from trainings import Trainings, fingerprint

from appraiser import build_dataset, make_catalogue
from appraiser.config import config_from, save_config
from appraiser.training.checkpoint import MANIFEST, find_damage, newest_intact, save_checkpoint
from appraiser.training.ranks import Ranks
from appraiser.training.resuming import CONFIG, resumed_run

FAULTS = {"kill": "signal=SIGKILL", "EIO": "error=EIO", "ENOSPC": "error=ENOSPC"}
FULL = ("openat", "write", "ftruncate", "fsync", "mkdir", "rename", "symlink")
"""Calls that a full disk refuses."""
IN_MEMORY = ("mmap", "munmap", "mprotect", "madvise", "brk", "futex", "clone3", "rt_sigprocmask", "getrandom")
"""Calls that touch no file: without memory, nothing is promised."""

UNVALIDATED = {"step": 1, "is_validated": False, "best_step": 0}
FIRST = {"step": 1, "is_validated": True, "best_step": 1, "best_score": 0.5}
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the next": (FIRST, {"step": 2, "is_validated": True, "best_step": 1, "best_score": 0.5}),
    "a better": (FIRST, {"step": 2, "is_validated": True, "best_step": 2, "best_score": 0.7}),
    "the same step again": (UNVALIDATED, FIRST),
}
"""The state saved before, and the state whose save is disturbed."""


@pytest.fixture(scope="module")
def saves(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saves]:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    works = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True)
    if works.returncode:
        pytest.skip(f"this system does not let strace trace: {works.stderr.strip()}")
    with Saves(tmp_path_factory.mktemp("saves")) as started:
        yield started


@pytest.fixture(scope="module")
def begun(saves: Saves, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For every way, a run with its first checkpoint."""
    runs = {}
    for way, (before, _) in WAYS.items():
        runs[way] = tmp_path_factory.mktemp("begun")
        settings = {"data": {"dataset": "unused"}, "run": {"out": "run"}}
        save_config(config_from(settings, "test"), runs[way] / CONFIG)
        assert saves.run(runs[way], [before], runs[way] / "err") == 0
    return runs


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("num_faults", [8, pytest.param(None, marks=pytest.mark.soak)])
def test_every_system_call_of_a_save_may_be_the_last_or_fail(saves, begun, tmp_path, way, num_faults):
    calls = saves.calls(copied(begun[way], tmp_path / "whole"), WAYS[way][1], tmp_path)
    names = listed(tmp_path / "whole/last")
    faults = [
        (call, fault)
        for call in calls
        for fault in FAULTS
        if call.name not in IN_MEMORY and (fault != "ENOSPC" or call.name in FULL)
    ]
    assert {"openat", "write", "fsync", "rename", "symlink", "mkdir"} <= {call.name for call, _ in faults}
    outcomes: Counter[str] = Counter()
    for call, fault in faults if num_faults is None else sample(faults, num_faults, way):
        run = copied(begun[way], tmp_path / "run")
        outcomes[disturbed(saves, run, way, call, fault, names)] += 1
        shutil.rmtree(run)
    assert outcomes["killed"] > 0
    assert outcomes["refused"] > 0
    print(f"\n{way}: {len(calls)} calls, {outcomes.total()} faults, {dict(outcomes)}")


def sample(faults: list[tuple[Call, str]], number: int, way: str) -> list[tuple[Call, str]]:
    """Some of them, kinds of calls and of faults in turn."""
    rng = random.Random(way)
    rng.shuffle(faults)
    turns: Counter[str] = Counter()
    placed = []
    for call, fault in faults:
        placed.append((max(turns[call.name], turns[fault] // 3), len(placed), (call, fault)))
        turns[call.name] += 1
        turns[fault] += 1
    return [fault for *_, fault in sorted(placed)[:number]]


def disturbed(saves: Saves, run: Path, way: str, call: Call, fault: str, names: set[str]) -> str:
    """One save with a fault, and what the next run finds."""
    before, state = WAYS[way]
    err = run / "err"
    injection = f"inject={call.name}:{FAULTS[fault]}:when={call.number}"
    code = saves.run(run, [state], err, "-o", "/dev/null", "-e", f"trace={call.name}", "-e", injection)
    said = err.read_text() if err.exists() else ""
    here = f"{way}, {call.name} {call.number}, {fault}: {code} {said}"
    if code == 3:
        assert re.match(rf"CheckpointError: cannot save the checkpoint of step {state['step']}: \S", said), here
        assert "Traceback" not in said, here
        assert "--resume" in said, here
    else:
        assert code in (0, -9), here
    err.unlink(missing_ok=True)
    found, _ = newest_intact(run)
    assert found is not None, here
    assert found.name.removesuffix(".replaced") in {f"step-{before['step']}", f"step-{state['step']}"}, here
    if code == 0:
        assert json.loads((found / "training/state.json").read_text())["step"] == state["step"], here
        assert json.loads((found / "training/state.json").read_text())["is_validated"], here
    assert listed(found) == names, here
    goes_on(run, here)
    return {0: "unnoticed", 3: "refused"}.get(code, "killed")


def goes_on(run: Path, here: str) -> None:
    """Resume, look at the links, save once more, and look for what was left behind."""
    config = config_from({"data": {"dataset": "unused"}, "run": {"out": "run"}}, "test")
    data: Any = SimpleNamespace(manifest=SimpleNamespace(content_sha256=""))
    with resumed_run(run, config, data, Ranks()) as resumed:
        assert resumed.checkpoint == newest_intact(run)[0], here
        assert find_damage(run / "last") is None, here
        assert resumed.state.warnings == [], here
        if resumed.state.best_score is not None:
            assert find_damage(run / "best") is None, here
        step = resumed.state.step + 1
        save_checkpoint(run, step, lambda folder: Path(folder / "weights").write_text("x") and None, is_best=False)
    best = {(run / "best").resolve().name} if (run / "best").exists() else set()
    assert {path.name for path in (run / "checkpoints").iterdir()} == {f"step-{step}", *best}, here
    assert {path.name for path in run.iterdir()} - {"best"} == {CONFIG, "checkpoints", "last"}, here
    assert all(find_damage(path) is None for path in (run / "checkpoints").iterdir()), here


def copied(run: Path, to: Path) -> Path:
    shutil.copytree(run, to, symlinks=True)
    return to


def listed(checkpoint: Path) -> set[str]:
    return set(json.loads((checkpoint / MANIFEST).read_text())["files"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a catalogue of 40 products at 64 px, and its data set."""
    root = tmp_path_factory.mktemp("full")
    tiny_backbone(root / "model")
    make_catalogue(root / "catalogue", 40, seed=3, size=64)
    build_dataset(root / "catalogue", root / "dataset", shares={"train": 0.7, "val": 0.1, "calib": 0.1, "test": 0.1})
    return root


@pytest.fixture(scope="module")
def on_small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Trainings, Path, Path]]:
    """Trainings that alone see a disk of 12 MB, its place for them, and its place for this process."""
    small = tmp_path_factory.mktemp("small")
    mount = 'mount -t tmpfs -o size=12m tmpfs "$0" && exec "$@"'
    prefix = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(small))
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    works = subprocess.run([*prefix, "true"], capture_output=True, text=True)
    if works.returncode:
        pytest.skip(f"this system lets nobody mount a small disk: {works.stderr.strip()}")
    with Trainings(*prefix) as trainings:
        seen = Path(f"/proc/{trainings.process.pid}/root{small}")
        wait_until(lambda: seen.stat().st_dev != small.stat().st_dev)
        yield trainings, small, seen


def settings(place: Path, out: Path, **run: Any) -> dict[str, Any]:
    return {
        "model": {"base": str(place / "model")},
        "adapter": {"kind": "lora", "rank": 4},
        "optim": {"learning_rate": 1e-3},
        "data": {"dataset": str(place / "dataset")},
        "run": {"out": str(out), "steps": 24, "epochs": None, "batch_size": 2, "micro_batch_size": 2,
                "eval_every": 24, "eval_records": 2, "log_every": 1, "save_every": 4} | run,
        "tracking": {"wandb": "off"},
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole(place: Path, on_small_disk: tuple[Trainings, Path, Path]) -> dict[str, Any]:
    """The run that has room."""
    assert on_small_disk[0].run(settings(place, place / "whole"), place / "err") == 0, (place / "err").read_text()
    return fingerprint(place / "whole")


@pytest.mark.parametrize(
    ("free_bytes", "save_every", "message"),
    [
        (0, 4, "cannot save the checkpoint of step|cannot write (metrics.jsonl|the run folder)"),
        (4096, 1000, "cannot write metrics.jsonl"),
    ],
    ids=["checkpoints", "metrics"],
)
def test_a_run_that_fills_the_disk_goes_on_when_there_is_room(
    place, on_small_disk, whole, tmp_path, free_bytes, save_every, message
):
    trainings, small, seen = on_small_disk
    config = settings(place, small / "run", save_every=save_every)
    hook = {"phase": "step", "signal": int(signal.SIGTERM), "at": 8}
    assert trainings.run(config, tmp_path / "err", hook) == 143, (tmp_path / "err").read_text()
    if free_bytes:
        fill(seen / "filler", free_bytes)
        code = trainings.run(config, tmp_path / "err")
    else:  # in the midst of training
        trainings.start(config, tmp_path / "err")
        wait_until(lambda: (seen / "run/checkpoints/step-12").exists())
        fill(seen / "filler", free_bytes)
        code = trainings.status()
    said = (tmp_path / "err").read_text()
    assert code == 3, said
    assert re.match(rf"CheckpointError: ({message})[^:]*: No space left on device\n", said), said
    assert "go on with --resume" in said
    kept = copied(seen / "run", tmp_path / "kept")
    assert newest_intact(kept)[0] is not None
    assert find_damage(kept / "last") is None
    fill(seen / "filler2", 0)
    assert trainings.run(config, tmp_path / "err") == 3, (tmp_path / "err").read_text()
    assert "No space left on device" in (tmp_path / "err").read_text()
    assert newest_intact(copied(seen / "run", tmp_path / "still"))[0] is not None
    for name in ("filler", "filler2"):
        (seen / name).unlink()
    assert trainings.run(config, tmp_path / "err") == 0, (tmp_path / "err").read_text()
    assert fingerprint(copied(seen / "run", tmp_path / "complete")) == whole
    shutil.rmtree(seen / "run")


def fill(path: Path, free_bytes: int) -> None:
    """Leave so much room on the disk."""
    block = bytes(4096)
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(block) == len(block):
                pass
        except OSError:
            file.truncate(max(0, file.tell() - free_bytes))


def wait_until(condition: Any) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until, "waited for two minutes"
        time.sleep(0.003)
