"""Tracker: the run's own JSONL files are the record; W&B gets the numbers of the first too.

metrics.jsonl has one object per logged step, samples.jsonl the generated validation answers. W&B is offline unless
`online` was asked for: a key in the environment is no consent to upload.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from appraiser.config import RunConfig
from appraiser.errors import MissingDependencyError


class Tracker:
    """Writes a run's records; use as a context manager."""

    def __init__(self, run: Path, config: RunConfig) -> None:
        self._metrics = (run / "metrics.jsonl").open("a", encoding="utf-8")
        self._samples = (run / "samples.jsonl").open("a", encoding="utf-8")
        self.warning: str | None = None
        self._wandb = self._start_wandb(run, config)

    def _start_wandb(self, run: Path, config: RunConfig) -> Any:
        mode = config.tracking.wandb
        if mode == "off":
            return None
        try:
            import wandb
        except ImportError:
            if mode == "online":
                raise MissingDependencyError(
                    "W&B is not installed, but tracking.wandb is online", fix="pip install 'appraiser[wandb]'"
                ) from None
            self.warning = "W&B is not installed: this run is recorded in metrics.jsonl only"
            return None
        (run / "wandb").mkdir(exist_ok=True)
        settings = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False)
        return wandb.init(
            project=config.tracking.project,
            name=run.name,
            dir=str(run),
            mode=mode,
            config=config.model_dump(mode="json"),
            settings=settings,
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record numbers under their paths, such as train/loss."""
        self._write(self._metrics, {"step": step} | dict(metrics))
        if self._wandb is not None:
            self._wandb.log(dict(metrics), step=step)

    def log_samples(self, step: int, samples: list[dict[str, Any]]) -> None:
        """Record generated answers beside their truth."""
        for sample in samples:
            self._write(self._samples, {"step": step} | sample)

    def _write(self, file: Any, record: Mapping[str, Any]) -> None:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
        file.flush()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self._metrics, self._samples):
            file.flush()
            os.fsync(file.fileno())
            file.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=0 if error is None else 1)
