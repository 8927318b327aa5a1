"""Beginning a run folder, and going on with one: one run at a time in a folder, with the settings it began with."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from appraiser.adapters import read_weights
from appraiser.backbone import Backbone
from appraiser.config import RunConfig, load_config, save_config
from appraiser.data.dataset import ProductDataset
from appraiser.durable import write_whole
from appraiser.errors import AppraiserError, CheckpointError, ConfigError
from appraiser.training.checkpoint import TRAINING, newest_intact, point_again
from appraiser.training.ranks import Ranks
from appraiser.training.run_state import RunState
from appraiser.training.stop_signals import RunStopped

CONFIG, SUMMARY, LOCK = "config.yaml", "summary.json", ".lock"
NEW_CONFIG = f".{CONFIG}.new"
FREE_TO_CHANGE = (
    "data.dataset",  # its content is compared instead
    "data.cache_mib",
    "data.workers",
    "data.kept_features_gib",
    "data.features_folder",
    "run.out",
    "run.num_threads",
    "run.save_every",
    "run.keep_last",
    "run.sharding",
    "tracking.wandb",
    "tracking.project",
)
"""Settings that a resumed run may change: its weights do not depend on them."""


@dataclass(frozen=True)
class Resumed:
    """Where a run goes on; without a checkpoint, at its beginning."""

    state: RunState
    checkpoint: Path | None = None

    def read_weights(self, backbone: Backbone) -> None:
        """Put the checkpoint's weights into the model."""
        if self.checkpoint is not None:
            read_weights(backbone, self.checkpoint)


@contextmanager
def begin_run(out: Path, config: RunConfig, data: ProductDataset, ranks: Ranks) -> Iterator[Resumed]:
    """Make a run folder and hold it while the body runs.

    Raises:
        ConfigError: something lies there, or another process is at work in it.
    """

    existed = out.exists()

    def begin() -> None:
        if out.is_file() or (out.exists() and any(path.name not in (LOCK, NEW_CONFIG) for path in out.iterdir())):
            goes_on = (out / CONFIG).is_file()
            raise ConfigError(
                f"{out} exists and is not empty",
                fix="go on with it: --resume, or name another --out"
                if goes_on
                else "name another --out; a run never overwrites another",
            )

    with _held(out, ranks, begin):
        if ranks.is_first:
            with _writing(out):
                write_whole(out / CONFIG, lambda path: save_config(config, path))
        try:
            yield Resumed(RunState(dataset_hash=data.manifest.content_sha256))
        except RunStopped:
            raise
        except BaseException:
            if ranks.is_first:
                with suppress(OSError):  # what ended the run is what is to be said
                    _forget(out, existed)
            raise


@contextmanager
def resumed_run(out: Path, config: RunConfig, data: ProductDataset, ranks: Ranks) -> Iterator[Resumed]:
    """Find where the run in `out` stands and hold the folder while the body runs; a folder without a run begins one.

    Raises:
        ConfigError: other settings or products than it began with, the run is complete, or is running.
        CheckpointError: checkpoints are there, and every one is damaged.
    """
    if not (out / CONFIG).is_file():
        with begin_run(out, config, data, ranks) as resumed:
            yield resumed
        return

    def check() -> None:
        if (out / SUMMARY).is_file():
            raise ConfigError(f"the run in {out} is complete", fix="name another --out to train again")
        _check_settings(load_config(out / CONFIG), config)

    with _held(out, ranks, check):
        with _writing(out):
            resumed = _newest(out, config, data, ranks)
        ranks.wait()
        yield resumed


def _newest(out: Path, config: RunConfig, data: ProductDataset, ranks: Ranks) -> Resumed:
    """Where the newest intact checkpoint stands, with `last` and `best` pointing to what they should."""
    checkpoint, damage = newest_intact(out)
    if checkpoint is None:
        if damage:
            raise CheckpointError(
                "no checkpoint of the run is intact", where="; ".join(damage), fix="train again under another --out"
            )
        return Resumed(RunState(dataset_hash=data.manifest.content_sha256))
    state = _state_of(checkpoint)
    if state.dataset_hash != data.manifest.content_sha256:
        raise ConfigError(
            f"{config.data.dataset} holds other products than those the run began with",
            fix="give the data set of the run, or begin another run",
        )
    state.warnings += damage
    # The first rank points for all, and speaks for all: what follows has to be the same everywhere.
    has_best = ranks.gather(point_again(out, checkpoint, state.best_step) if ranks.is_first else None)[0]
    if state.best_score is not None and not has_best:
        state.warnings.append(
            f"the best checkpoint (step {state.best_step}) is missing or damaged: the best from here on is chosen anew"
        )
        state.best_score = None
        state.is_validated = not state.is_over  # a run that is over has no later validation to find its best
    return Resumed(state, checkpoint)


def _state_of(checkpoint: Path) -> RunState:
    path = checkpoint / TRAINING / "state.json"
    try:
        return RunState.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"cannot go on from {checkpoint.name}: {type(error).__name__}: {error}",
            where=str(path),
            fix="resume with the version of appraiser that began the run",
        ) from error


def finish_run(out: Path, numbers: dict[str, Any]) -> None:
    """Mark a run as complete.

    Raises:
        CheckpointError: the disk is full, or cannot be written any more.
    """
    text = json.dumps(numbers, indent=1) + "\n"
    with _writing(out):
        write_whole(out / SUMMARY, lambda path: path.write_text(text, encoding="utf-8"))


def _forget(out: Path, existed: bool) -> None:
    """Remove what a run left that was refused before its first step: there is nothing to go on with."""
    if {path.name for path in out.iterdir()} <= {CONFIG, NEW_CONFIG, LOCK}:
        for name in (CONFIG, NEW_CONFIG, LOCK):
            (out / name).unlink(missing_ok=True)
        if not existed:
            out.rmdir()


def _check_settings(begun: RunConfig, now: RunConfig) -> None:
    before, after = _flat(begun), _flat(now)
    changed = [
        f"{name}: {before.get(name)!r} -> {after.get(name)!r}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and name not in FREE_TO_CHANGE
    ]
    if changed:
        raise ConfigError(
            "settings differ from those the run began with: " + "; ".join(changed),
            fix="resume with the same recipe and settings (--resume alone takes them from the run folder)",
        )


def _flat(config: RunConfig) -> dict[str, Any]:
    return {
        f"{section}.{key}": value
        for section, values in config.model_dump(mode="json").items()
        for key, value in values.items()
    }


@contextmanager
def _held(out: Path, ranks: Ranks, check: Callable[[], None]) -> Iterator[None]:
    """Keep other processes out of the folder; the first rank speaks for all."""
    problem: AppraiserError | None = None
    lock = None
    if ranks.is_first:
        try:
            with _writing(out):
                check()
                lock = _locked(out)
                check()  # another process may have been at work until a moment ago
        except AppraiserError as error:
            problem = error
    try:
        problem = ranks.gather(problem)[0]
        if problem is not None:
            raise problem
        yield
    finally:
        if lock is not None:
            with suppress(OSError):
                (out / LOCK).unlink(missing_ok=True)
            lock.close()


def _locked(out: Path) -> IO[str]:
    while True:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / LOCK).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who leaves removes the file: a lock on a removed one keeps nobody out.
            if os.path.samestat(os.fstat(lock.fileno()), (out / LOCK).stat()):
                return lock
        except FileNotFoundError:
            pass
        except BlockingIOError:
            lock.close()
            raise ConfigError(f"another process trains in {out}", fix="wait for it, or name another --out") from None
        except BaseException:
            lock.close()
            raise
        lock.close()


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Say what the system refused, instead of failing with its own error."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"cannot write the run folder: {error.strerror or error}",
            where=str(error.filename or out),
            fix="make room or mend the disk and go on with --resume, or name another --out",
        ) from error
