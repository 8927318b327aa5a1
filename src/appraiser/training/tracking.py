"""Tracker: the run's own JSONL files are the record; W&B is their mirror.

metrics.jsonl has one object per logged step, samples.jsonl the generated validation answers. W&B gets the same from a
queue, in a thread of its own: a slow or broken W&B costs the mirror, never a step. It is offline unless `online` was
asked for: a key in the environment is no consent to upload.
"""

from __future__ import annotations

import json
import os
import queue
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from appraiser.config import RunConfig
from appraiser.durable import write_whole
from appraiser.errors import CheckpointError, MissingDependencyError
from appraiser.training.checkpoint import TRAINING
from appraiser.training.run_state import RunState

# The page this project began from logs under these names; people compare with them.
ORIGIN_KEYS = {
    "train/last_loss": "Batch Loss",
    "train/loss": "Average Training Loss",
    "eval/loss": "Validation Loss",
    "eval/price_mae": "Validation Price Error (Average)",
}
DATA_FOLDER = "WANDB_DATA_DIR"
MOST_WAITING = 10_000
INIT_TIMEOUT_S = 60.0
"""A process does not end while W&B waits for its server to begin a run."""
FINISH_TIMEOUT_S = 60.0


class Tracker:
    """Writes a run's records; use as a context manager.

    Args:
        keep_until: lines of later steps are dropped: a resumed run makes these steps again.
        is_validated: False: the validation of that step comes again as well.
        is_recording: False on all ranks but the first, where nothing is written.
    """

    def __init__(
        self,
        run: Path,
        config: RunConfig,
        *,
        keep_until: int = 0,
        is_validated: bool = True,
        is_recording: bool = True,
    ) -> None:
        self._files: dict[str, IO[str]] = {}
        self._mirror: Mirror | None = None
        if not is_recording:
            return
        for name in ("metrics", "samples"):
            path = run / f"{name}.jsonl"
            with _writing(path.name):
                drop_later_lines(path, keep_until, is_validated=is_validated)
                self._files[name] = path.open("a", encoding="utf-8")
        if config.tracking.wandb != "off":
            self._mirror = Mirror(run, config)

    @property
    def warning(self) -> str | None:
        """Why W&B lacks something of this run."""
        return self._mirror.warning if self._mirror else None

    @property
    def has_mirror(self) -> bool:
        return self._mirror is not None and self._mirror.is_alive

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record numbers under their paths, such as train/loss."""
        self._write("metrics", [{"step": step} | dict(metrics)])
        if self._mirror:
            # A copy: the caller may change its numbers before their turn comes.
            numbers = dict(metrics) | {name: metrics[key] for key, name in ORIGIN_KEYS.items() if key in metrics}
            self._mirror.put(lambda run, _: run.log(numbers, step=step))

    def log_samples(
        self, step: int, samples: Sequence[Mapping[str, Any]], pictures: Sequence[bytes | None] = ()
    ) -> None:
        """Record generated answers beside their truth; W&B gets a table of them with their pictures."""
        self._write("samples", [{"step": step} | dict(sample) for sample in samples])
        if self._mirror and samples:
            self._mirror.put(
                lambda run, wandb: run.log({"Validation Samples": _table(wandb, samples, pictures)}, step=step)
            )

    def finish(self, best: Path, state: RunState) -> None:
        """Hand the best model to W&B as an artifact, and wait a while until W&B has everything."""
        if self._mirror:
            score = state.best_score
            self._mirror.put(lambda run, wandb: _log_model(run, wandb, best.resolve(), state.best_step, score))
            self._mirror.finish(exit_code=0)

    def _write(self, name: str, records: Sequence[Mapping[str, Any]]) -> None:
        file = self._files.get(name)
        if file is None:
            return
        with _writing(f"{name}.jsonl"):
            file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
            file.flush()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mirror:
            self._mirror.finish(exit_code=0 if error is None else 1)
        try:
            with ExitStack() as stack:
                for name, file in self._files.items():
                    stack.enter_context(_writing(f"{name}.jsonl"))
                    stack.callback(_close, file)
        except CheckpointError:
            if error is None:  # otherwise that error is the one to be told
                raise


@contextmanager
def _writing(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"cannot write {name}: {error.strerror or error}",
            fix="make room, then go on with --resume; checkpoints are intact",
        ) from error


def _close(file: IO[str]) -> None:
    try:
        file.flush()
        os.fsync(file.fileno())
    finally:
        file.close()


class Mirror:
    """Repeats to W&B what it is given, in order, in a thread of its own."""

    def __init__(self, run: Path, config: RunConfig) -> None:
        self.warning: str | None = None
        self.is_alive = True
        self._waiting: queue.Queue[Callable[[Any, Any], Any] | None] = queue.Queue(MOST_WAITING)
        self._num_lost = 0
        self._exit_code = 0
        self._is_finished = False
        self._thread: threading.Thread | None = None
        mode = config.tracking.wandb
        try:
            import wandb
        except ImportError:
            if mode == "online":
                raise MissingDependencyError(
                    "W&B is not installed, but tracking.wandb is online", fix="pip install 'appraiser[wandb]'"
                ) from None
            self.warning = "W&B is not installed: this run is recorded in metrics.jsonl only"
            self.is_alive = False
            return
        self._data_folder = os.environ.get(DATA_FOLDER)
        # Pictures of a table wait for their upload in the user's home; here they stay with the run that needs them.
        os.environ[DATA_FOLDER] = self._data_folder or str((run / "wandb").resolve())
        self._thread = threading.Thread(target=self._repeat, args=(wandb, run, config), daemon=True, name="wandb")
        self._thread.start()

    def put(self, record: Callable[[Any, Any], Any]) -> None:
        """Have `record(run, wandb)` called; returns at once."""
        if not self.is_alive:
            return
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            self._num_lost += 1
            self.warning = f"W&B is too slow: {self._num_lost} records are in metrics.jsonl only"

    def finish(self, exit_code: int) -> None:
        """Wait a while for what is left, once."""
        if self._thread is None or self._is_finished:
            return
        self._is_finished = True
        self._exit_code = exit_code
        until = time.monotonic() + FINISH_TIMEOUT_S
        if self.is_alive:
            try:
                self._waiting.put(None, timeout=FINISH_TIMEOUT_S)
            except queue.Full:
                pass
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self.warning = f"W&B did not end within {FINISH_TIMEOUT_S:.0f} s: its copy of this run may be incomplete"
        if self._data_folder is None:
            os.environ.pop(DATA_FOLDER, None)

    def _repeat(self, wandb: Any, folder: Path, config: RunConfig) -> None:
        try:
            (folder / "wandb").mkdir(exist_ok=True)
            run = wandb.init(
                project=config.tracking.project,
                name=folder.resolve().name,
                id=_run_id(folder),
                resume="allow",
                dir=str(folder.resolve()),  # its service may have started in another place
                mode=config.tracking.wandb,
                config=without_secrets(config.model_dump(mode="json")),
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    disable_git=True,
                    save_code=False,
                    init_timeout=INIT_TIMEOUT_S,
                    # What W&B notes of the machine holds the command line as it was typed.
                    x_disable_meta=without_secrets(sys.argv) != sys.argv,
                ),
            )
            while (record := self._waiting.get()) is not None:
                record(run, wandb)
            run.finish(exit_code=self._exit_code)
        except BaseException as error:  # whatever W&B raises, the run goes on without its mirror
            self.warning = (
                f"W&B failed ({type(error).__name__}: {_first_line(error)}): from there on this run is recorded in "
                "metrics.jsonl only"
            )
        self.is_alive = False


def _table(wandb: Any, samples: Sequence[Mapping[str, Any]], pictures: Sequence[bytes | None]) -> Any:
    from appraiser.data.pictures import decode

    table = wandb.Table(columns=["picture", *samples[0]])
    for number, sample in enumerate(samples):
        data = pictures[number] if number < len(pictures) else None
        picture = None
        if data is not None:
            image = decode(data)
            image.thumbnail((224, 224))
            picture = wandb.Image(image, file_type="jpg")
        table.add_data(picture, *sample.values())
    return table


def _log_model(run: Any, wandb: Any, best: Path, step: int, score: float | None) -> None:
    artifact = wandb.Artifact(f"{run.name}-model", type="model", metadata={"step": step, "score": score})
    # Without a second copy: a model may be larger than what is left of the disk.
    for path in sorted(path for path in best.rglob("*") if path.is_file() and path.parent.name != TRAINING):
        artifact.add_file(str(path), str(path.relative_to(best)), skip_cache=True, policy="immutable")
    run.log_artifact(artifact, aliases=["best", f"step-{step}"])


def drop_later_lines(path: Path, step: int, *, is_validated: bool = True) -> None:
    """Keep the lines of a JSONL file up to a step, with or without its validation; a line that was cut goes as well."""
    if not path.is_file():
        return
    kept = []
    # Not splitlines: titles may hold other characters that end lines, such as U+2028.
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            record = json.loads(line)
            is_of_training = any(key.startswith("train/") for key in record)
            if record["step"] < step or (record["step"] == step and (is_validated or is_of_training)):
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    write_whole(path, lambda beside: beside.write_text("".join(kept), encoding="utf-8"))


def _run_id(run: Path) -> str:
    """The same W&B run when a run goes on."""
    path = run / "wandb" / "run_id"
    found = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    if not found:
        found = uuid.uuid4().hex[:12]
        path.write_text(found, encoding="utf-8")
    return found


def without_secrets(settings: Any) -> Any:
    """Settings without user names and passwords in addresses, and without what looks like a token."""
    if isinstance(settings, dict):
        return {key: without_secrets(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [without_secrets(value) for value in settings]
    if isinstance(settings, str):
        settings = re.sub(r"(\w+://)[^/\s]+@", r"\1***@", settings)
        return re.sub(r"((?:token|key|secret|password|sig|signature)=)[^&\s]+", r"\1***", settings, flags=re.IGNORECASE)
    return settings


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:200]
