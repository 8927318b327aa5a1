"""Checkpoint saves that tests break at a chosen system call: each save is a fork of one process that has made some.

    python saves.py FOLDER    puts a model into FOLDER, reads lines of JSON {"run": ..., "states": [...], "err": path},
                              prints the child's pid, and its exit status when it ends

The child waits for SIGUSR1 before it saves, so that strace can be put on it, and ends as the command line does. What
belongs to the save lies between two calls of getppid.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple


class Call(NamedTuple):
    """The `number`-th call of a kind after strace was put on."""

    name: str
    number: int


class Saves:
    """Starts saves quickly; use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Saves:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(self.folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        return self

    def __exit__(self, *error: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def run(self, run: Path, states: list[dict[str, Any]], err: Path, *strace: str) -> int:
        """Make saves, under strace where it gets options; the exit code, negative for a signal."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"run": str(run), "states": states, "err": str(err)}), file=self.process.stdin, flush=True)
        pid = int(self.process.stdout.readline())
        tracer = None
        if strace:
            tracer = subprocess.Popen(["strace", "-f", "-p", str(pid), *strace], stderr=subprocess.PIPE, text=True)
            assert tracer.stderr is not None
            said = tracer.stderr.readline()
            assert "attached" in said, said
        os.kill(pid, signal.SIGUSR1)
        code = int(self.process.stdout.readline())
        if tracer:
            tracer.communicate()
        return code

    def calls(self, run: Path, state: dict[str, Any], work: Path) -> list[Call]:
        """The system calls of a save that nothing disturbs."""
        trace = work / "trace"
        code = self.run(run, [state], work / "err", "-o", str(trace))
        assert code == 0, (work / "err").read_text()
        names = [found[1] for line in trace.read_text().splitlines() if (found := re.match(r"\d+ +(\w+)\(", line))]
        begin, end = (place for place, name in enumerate(names) if name == "getppid")
        seen: Counter[str] = Counter(names[:begin])
        calls = []
        for name in names[begin + 1 : end]:
            seen[name] += 1
            calls.append(Call(name, seen[name]))
        return calls


def _save(backbone: Any, run: Path, state: dict[str, Any]) -> None:
    """What the trainer saves: weights, task, state, optimizer."""
    import torch

    from appraiser.trained_task import TrainedTask, write_task
    from appraiser.training.checkpoint import TRAINING, save_checkpoint
    from appraiser.training.optimizer_files import write_optimizers
    from appraiser.training.ranks import Ranks
    from appraiser.training.run_state import RunState

    names = {id(parameter): name for name, parameter in backbone.model.named_parameters()}
    optimizer = torch.optim.AdamW(backbone.model.parameters())
    for parameter in backbone.model.parameters():
        optimizer.state[parameter] = {"step": torch.tensor(float(state["step"])), "exp_avg": parameter.detach()}

    def write(folder: Path) -> None:
        backbone.save(folder)
        write_task(folder, TrainedTask())
        (folder / TRAINING).mkdir(exist_ok=True)
        (folder / TRAINING / "state.json").write_text(json.dumps(RunState(**state).to_json()), encoding="utf-8")
        write_optimizers(folder / TRAINING, [optimizer], names, Ranks(), is_sharded=False)

    is_best = state["is_validated"] and state["best_step"] == state["step"]
    save_checkpoint(run, state["step"], write, is_best=is_best)


def _child(backbone: Any, order: dict[str, Any]) -> int:
    from appraiser.errors import AppraiserError

    try:
        signal.sigwait([signal.SIGUSR1])
        os.getppid()
        for state in order["states"]:
            _save(backbone, Path(order["run"]), state)
        os.getppid()
        return 0
    except AppraiserError as error:
        Path(order["err"]).write_text(f"{type(error).__name__}: {error}")
        return error.exit_code
    except BaseException:  # the test reads it from the file
        Path(order["err"]).write_text(traceback.format_exc())
        return 99


def _serve(folder: Path) -> None:
    import torch
    from tiny import tiny_backbone

    torch.set_num_threads(1)
    backbone = tiny_backbone(folder / "model")
    _save(backbone, folder / "first", {"step": 1, "is_validated": False, "best_step": 0})  # imports what saving needs
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(_child(backbone, json.loads(line)))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
    os._exit(0)  # torch takes its time to end
