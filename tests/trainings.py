"""Runs that tests kill, stop and break: each training is a fork of one process that has imported everything.

    python trainings.py      reads lines of JSON {"config": ..., "hook": ..., "err": path}, prints the child's pid, and
                             its exit status when it ends

The child trains with `resume=True` and ends as the command line does. A hook names a function and a signal: the child
sends itself the signal when it enters the function for the `at`-th time.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

HOOKS = {
    "starting": ("appraiser.training.preflight", "_gradient_norms"),
    "step": ("appraiser.training.gradients.StepGradients", "update"),
    "saving": ("appraiser.training.checkpoint", "_publish"),
    "validating": ("appraiser.training.validation.Validation", "_answer"),
    "calibrating": ("appraiser.training.trainer", "calibrated"),
    "seeing": ("appraiser.training.kept_features.KeptFeatures", "fill"),
}


class Trainings:
    """Starts trainings quickly; use as a context manager."""

    def __enter__(self) -> Trainings:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def __exit__(self, *error: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def start(self, config: dict[str, Any], err: Path, hook: dict[str, Any] | None = None) -> int:
        """Begin or resume a run; returns its pid."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"config": config, "hook": hook, "err": str(err)}), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def status(self) -> int:
        """Wait for the run's end: its exit code, negative for a signal."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def run(self, config: dict[str, Any], err: Path, hook: dict[str, Any] | None = None) -> int:
        """A whole run."""
        self.start(config, err, hook)
        return self.status()


def fingerprint(run: Path) -> dict[str, Any]:
    """What two equal runs have in common: every byte of weights and optimizer, the loop's memory, the metrics."""
    last = (run / "last").resolve()
    files = {
        str(path.relative_to(last)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(last.rglob("*.safetensors"))
    }
    state = json.loads((last / "training/state.json").read_text())
    for timed in ("trained_s", "warnings"):
        state.pop(timed)
    for stats in state["window"]:
        stats.pop("seconds"), stats.pop("data_wait_s")
    timed = {"train/seconds", "train/pictures_per_s", "train/tokens_per_s", "train/data_wait_share"}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    metrics = [{key: value for key, value in line.items() if key not in timed} for line in lines]
    links = {name: os.readlink(run / name) for name in ("best", "last")}
    return {"files": files, "state": state, "metrics": metrics, "links": links,
            "samples": (run / "samples.jsonl").read_text(),
            "task": json.loads((run / "best/appraiser.json").read_text())}  # fmt: skip


def _set_hook(hook: dict[str, Any]) -> None:
    import importlib

    path, name = HOOKS[hook["phase"]]
    module, _, kind = path.rpartition(".") if path.rpartition(".")[2][0].isupper() else (path, "", "")
    owner = getattr(importlib.import_module(module), kind) if kind else importlib.import_module(module)
    original = getattr(owner, name)
    entered = 0

    def patched(*arguments: Any, **named: Any) -> Any:
        nonlocal entered
        entered += 1
        if entered == hook.get("at", 1):
            # From a thread of its own, a moment later: in the midst of the function.
            threading.Timer(0.01, os.kill, (os.getpid(), hook["signal"])).start()
        return original(*arguments, **named)

    setattr(owner, name, patched)


def _train(order: dict[str, Any]) -> int:
    from appraiser.config import config_from
    from appraiser.errors import AppraiserError
    from appraiser.training.trainer import train

    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Path(order["err"]).open("w") as err:
        try:
            if order["hook"]:
                _set_hook(order["hook"])
            summary = train(config_from(order["config"], "test"), resume=True)
            err.write("\n".join(summary.warnings))
            return 0
        except AppraiserError as error:
            err.write(f"{type(error).__name__}: {error}")
            return error.exit_code
        except BaseException as error:  # the test reads it from the file
            err.write(repr(error))
            return 99


def _serve() -> None:
    import torch

    import appraiser.training.trainer  # noqa: F401 - imported once, for every child

    torch.set_num_threads(1)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(_train(json.loads(line)))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
