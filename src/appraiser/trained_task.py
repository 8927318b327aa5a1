"""What a checkpoint was trained to answer: `appraiser.json` beside its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from appraiser.data.task import Language, Task
from appraiser.errors import CheckpointError
from appraiser.price_intervals import PriceIntervals

TASK_FILE = "appraiser.json"
TASK_FORMAT = 2

PricePoint = Literal["answer", "median", "mean"]


class TrainedTask(BaseModel):
    """What a checkpoint was trained to answer; lies beside its weights as `appraiser.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = TASK_FORMAT
    fields: tuple[str, ...] = ("title", "category", "price")
    language: Language = "en"
    question: str | None = None
    currency: str | None = None
    base: str | None = None
    """Model under the adapter; None for full weights."""
    price_point: PricePoint = "median"
    """Which price of the distribution is predicted; chosen on the validation split."""
    price_intervals: PriceIntervals | None = None
    """How far prices may be off; None where they were not calibrated."""
    choices: dict[str, tuple[str, ...]] = {}
    """Values that a field had in training, for fields with few of them: what `closed` answers are chosen from."""

    @property
    def task(self) -> Task:
        return Task(self.fields, self.language, self.question)


def read_task(folder: str) -> TrainedTask:
    """The task beside the weights; the default task for models that were not trained here."""
    path = Path(folder) / TASK_FILE
    if not path.is_file():
        return TrainedTask()
    try:
        return TrainedTask.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, ValidationError) as error:
        raise CheckpointError(
            f"{path} is damaged or newer than this appraiser: {error}",
            fix="train it again, or copy it again from where it works",
        ) from None


def write_task(folder: Path, trained: TrainedTask) -> None:
    """Write `appraiser.json`."""
    (folder / TASK_FILE).write_text(trained.model_dump_json(indent=2) + "\n", encoding="utf-8")


def checkpoint_folder(run_or_folder: str | Path) -> str:
    """RUN means its `best` checkpoint; everything else is left as it is."""
    path = Path(run_or_folder)
    if (path / "best").is_dir():
        return str((path / "best").resolve())
    if (path / "config.yaml").is_file() and (path / "metrics.jsonl").is_file():
        raise CheckpointError(
            f"run {path} has no best checkpoint: it ended before its first validation",
            fix="train again with a smaller run.eval_every",
        )
    return str(run_or_folder)
