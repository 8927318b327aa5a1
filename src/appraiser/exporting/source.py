"""What is exported: a checkpoint with what is known of its run, its data set and its scores."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from appraiser.adapters import TRAINED_PARTS
from appraiser.backbone import EMBEDDED_MODELS, model_folder
from appraiser.config import RunConfig, load_config
from appraiser.data.dataset import ProductDataset, open_dataset
from appraiser.errors import CheckpointError, DataError
from appraiser.trained_task import TrainedTask, checkpoint_folder, read_task
from appraiser.training.checkpoint import BEST, LAST, MANIFEST, find_damage
from appraiser.training.resuming import CONFIG, SUMMARY

ADAPTER_CONFIG = "adapter_config.json"
PUBLISHED = ("microsoft/phi-3-vision", "microsoft/phi-3.5-vision")
PUBLISHED_LICENCE = "mit"
MAX_RUNS = 20
"""Runs that started from each other, at most: links may make a ring."""
ExportDtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Origin:
    """The model that the first training started from.

    Args:
        name: an embedded model, a Hub id, or the name of a folder.
        folder: None for a Hub id.
        licence: as its card says; None where that is not known.
    """

    name: str
    folder: Path | None
    licence: str | None

    @property
    def hub_id(self) -> str | None:
        return self.name if self.folder is None else None


@dataclass(frozen=True)
class ModelSource:
    """A model to export.

    Args:
        name: as the user named it.
        folder: the checkpoint or model folder itself.
        run, config: the run that it belongs to; None for models that are no run's.
    """

    name: str
    folder: Path
    trained: TrainedTask
    run: Path | None
    config: RunConfig | None

    @property
    def is_adapter(self) -> bool:
        return self.trained.base is not None

    @property
    def title(self) -> str:
        """A name for people, without the folders around it."""
        return self.run.resolve().name if self.run else Path(self.name).name

    @property
    def method(self) -> str:
        """How it was trained, in words."""
        if not self.is_adapter:
            return "all weights trained" if self.run else "weights as they were found"
        kind = "DoRA" if self._adapter_settings().get("use_dora") else "LoRA"
        extra = " beside parts trained in full" if (self.folder / TRAINED_PARTS).is_file() else ""
        return f"{kind} of rank {self._adapter_settings().get('r')}{extra}"

    @property
    def dtype(self) -> ExportDtype:
        """What it was trained in: the run's `model.dtype`, else what the folder says of its weights; else float32."""
        found: str | None = None
        if self.config is not None:
            found = self.config.model.dtype
        elif not self.is_adapter:
            found = json.loads((self.folder / "config.json").read_text(encoding="utf-8")).get("torch_dtype")
        return "bfloat16" if found == "bfloat16" else "float32"

    @cached_property
    def data(self) -> ProductDataset | None:
        """The run's data set; None where it is gone or cannot be read."""
        if self.config is None:
            return None
        try:
            return open_dataset(self.config.data.dataset)
        except DataError:
            return None

    @cached_property
    def origin(self) -> Origin:
        """Where the weights come from, through runs that started from runs."""
        base, run = self.name, self.run
        for _ in range(MAX_RUNS):
            if run is None:
                break
            base = load_config(run / CONFIG).model.base
            run = _run_of(Path(base_folder(base)))
        if base not in EMBEDDED_MODELS and not Path(base).is_dir():
            licence = PUBLISHED_LICENCE if base.lower().startswith(PUBLISHED) else None
            return Origin(base, None, licence)
        folder = Path(model_folder(base)) if base in EMBEDDED_MODELS else Path(base).resolve()
        return Origin(base if base in EMBEDDED_MODELS else folder.name, folder, _licence(folder))

    @cached_property
    def report(self) -> dict[str, Any] | None:
        """The run's `report.json`; None where there is none, or it is about another checkpoint of the run.

        A report says which run it is about, not which step. Its curves end where they stood when it was made, so the
        best validation among them tells.
        """
        path = None if self.run is None else self.run / "report.json"
        if path is None or not path.is_file():
            return None
        try:
            report = dict(json.loads(path.read_text(encoding="utf-8")))
            reported = Path(report["model"]).name
            curve = [(score, -step) for step, score in report["curves"]["eval/score"] if score is not None]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        is_other = reported == LAST or (reported.startswith("step-") and reported != self.folder.name)
        return report if curve and not is_other and self.folder.name == f"step-{-max(curve)[1]}" else None

    def _adapter_settings(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / ADAPTER_CONFIG).read_text(encoding="utf-8")))


def find_source(name: str | Path) -> ModelSource:
    """Find the model behind a run (its best checkpoint), a checkpoint, a model folder or an embedded model.

    Raises:
        CheckpointError: none there, a run that has not ended, or files that are not as they were written.
    """
    given = Path(name)
    if str(name) in EMBEDDED_MODELS:
        folder = Path(model_folder(name))
    elif given.is_dir():
        _check_ended(given)
        folder = Path(checkpoint_folder(given)).resolve()
    else:
        raise CheckpointError(
            f"no model at {name}", fix=f"name a run, a checkpoint, a model folder, or {', '.join(EMBEDDED_MODELS)}"
        )
    damage = find_damage(folder) if (folder / MANIFEST).is_file() else None
    if damage:
        raise CheckpointError(
            f"the weights are not as they were written: {damage}",
            where=str(folder),
            fix="copy them again from where they are whole, or train again",
        )
    trained = read_task(str(folder))
    if trained.base is None:
        model_folder(folder)  # says what is missing
    elif not (folder / ADAPTER_CONFIG).is_file():
        raise CheckpointError(f"no adapter in {folder}: {ADAPTER_CONFIG} is missing", fix="copy it again, or train")
    run = _run_of(folder)
    config = load_config(run / CONFIG) if run else None
    if trained.base is not None and config is not None:
        _check_trained_parts(folder, config)
    return ModelSource(str(name), folder, trained, run, config)


def _check_ended(given: Path) -> None:
    """A run that goes on may find a better checkpoint, and is calibrated at its end."""
    if (given / CONFIG).is_file() and not (given / SUMMARY).is_file():
        best = given / BEST
        raise CheckpointError(
            f"run {given} has not ended: it is still training, or was stopped",
            fix=f"go on with it: appraiser train --resume --out {given}"
            + (f"; or export what is best so far, not calibrated: {best}" if best.is_dir() else ""),
        )


def _check_trained_parts(folder: Path, config: RunConfig) -> None:
    """Beside an adapter, parts may have been trained in full; without their weights the base's would be exported."""
    parts = config.parts_that("train")
    if parts and not (folder / TRAINED_PARTS).is_file():
        raise CheckpointError(
            f"the checkpoint lacks weights that were trained beside the adapter ({', '.join(parts)}): "
            f"{TRAINED_PARTS} is missing",
            where=str(folder),
            fix="train again; these weights were not saved",
        )


def _run_of(folder: Path) -> Path | None:
    """The run that a checkpoint lies in."""
    if folder.parent.name == "checkpoints":
        run = folder.parents[1]
    elif folder.name in (BEST, LAST):  # a copy in which the links became folders
        run = folder.parent
    else:
        return None
    return run if (run / CONFIG).is_file() else None


def base_folder(base: str) -> str:
    """Where the model under an adapter lies: an embedded one or a Hub id by its name, else an absolute folder."""
    if base in EMBEDDED_MODELS:
        return base
    folder = checkpoint_folder(base)
    return str(Path(folder).resolve()) if Path(folder).is_dir() else folder


def _licence(folder: Path) -> str | None:
    """The licence that a model's card names."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    found = re.match(r"---\n(?:.*\n)*?license: *([\w.-]+) *\n(?:.*\n)*?---\n", text)
    return found[1] if found else None
