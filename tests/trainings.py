"""Runs that tests kill, stop and break: each training is a fork of one process that has imported everything.

    python trainings.py      reads lines of JSON {"config": ..., "hook": ..., "err": path}, prints the child's pid, and
                             its exit status when it ends

The child trains with `resume=True` and ends as the command line does, under the given "environ"; before, it runs the
statements of "patches", which break or hasten something. A hook names a function and a signal: the child sends itself
the signal when it enters the function for the `at`-th time. With "ranks": n, there are n children, which find each
other as they would under torchrun; the hook is the first one's.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

HOOKS = {
    "starting": ("appraiser.training.preflight", "_gradient_norms"),
    "step": ("appraiser.training.gradients.StepGradients", "update"),
    "saving": ("appraiser.training.checkpoint", "_publish"),
    "validating": ("appraiser.training.validation.Validation", "_answer"),
    "calibrating": ("appraiser.training.session", "calibrated"),
    "seeing": ("appraiser.training.kept_features.KeptFeatures", "fill"),
}


class Trainings:
    """Starts trainings quickly; use as a context manager.

    Args:
        prefix: a command that starts another one.
    """

    def __init__(self, *prefix: str) -> None:
        self.prefix = prefix

    def __enter__(self) -> Trainings:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        # A W&B service that an earlier test left in this process: the runs start their own.
        environment.pop("WANDB_SERVICE", None)
        command = [*self.prefix, sys.executable, __file__]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def __exit__(self, *error: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def start(
        self,
        config: dict[str, Any],
        err: Path,
        hook: dict[str, Any] | None = None,
        ranks: int = 1,
        ids: Path | None = None,
        environ: dict[str, str] | None = None,
        patches: str = "",
    ) -> int:
        """Begin or resume a run; returns the (first) child's pid."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        order = {"config": config, "hook": hook, "err": str(err), "ranks": ranks, "ids": str(ids) if ids else None,
                 "environ": environ or {}, "patches": patches}  # fmt: skip
        print(json.dumps(order), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def status(self) -> int:
        """Wait for the run's end: its exit code, negative for a signal; of several ranks the first that is not 0."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def run(self, config: dict[str, Any], err: Path, hook: dict[str, Any] | None = None, **more: Any) -> int:
        """A whole run."""
        self.start(config, err, hook, **more)
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
    timed = {"seconds", "pictures_per_s", "tokens_per_s", "data_wait_share", "memory_gib", "matmul_share"}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    metrics = [{key: value for key, value in line.items() if key.removeprefix("train/") not in timed} for line in lines]
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
            os.environ |= order["environ"]
            exec(order["patches"], {})
            if order["ids"]:
                _note_ids(order["ids"])
            if order["hook"]:
                _set_hook(order["hook"])
            summary = train(config_from(order["config"], "test"), resume=True)
            err.write("\n".join(summary.warnings))
            return 0
        except AppraiserError as error:
            err.write(f"{type(error).__name__}: {error}")
            return error.exit_code
        except BaseException as error:  # the test reads it from the file
            err.write("".join(traceback.format_exception(error)))
            return 99


def _serve() -> None:
    import torch

    import appraiser.training.trainer  # noqa: F401 - imported once, for every child

    torch.set_num_threads(1)
    for line in sys.stdin:
        order = json.loads(line)
        port = _free_port()
        children = []
        for rank in range(order["ranks"]):
            pid = os.fork()
            if pid == 0:
                if order["ranks"] > 1:
                    _join_ranks(order, rank, port)
                os._exit(_train(order))
            children.append(pid)
        print(children[0], flush=True)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        print(next((code for code in codes if code), 0), flush=True)


def _join_ranks(order: dict[str, Any], rank: int, port: int) -> None:
    """What torchrun would put into the environment."""
    size = str(order["ranks"])
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if rank:
        order["hook"] = None
        order["err"] += str(rank)
    if order["ids"]:
        order["ids"] += str(rank)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _note_ids(path: str) -> None:
    """Write down which records every step takes."""
    from appraiser.training.feed import Feed, StepData

    take = Feed.take

    def noting(self: Feed, step: int) -> StepData:
        data = take(self, step)
        with Path(path).open("a") as file:
            file.writelines(f"{step} {row.record_id}\n" for row in self.source.rows(data.items))
        return data

    Feed.take = noting


if __name__ == "__main__":
    _serve()
