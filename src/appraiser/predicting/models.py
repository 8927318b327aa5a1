"""The model that answers, and what tells it from another: its files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from appraiser.backbone import SMALL_MODEL, model_folder
from appraiser.predict import Predictor
from appraiser.predicting.answering import Answer
from appraiser.trained_task import checkpoint_folder, read_task

ROWS_AT_ONCE, ROWS_AT_ONCE_LARGE = 256, 64
"""Rows that are answered, and written down, together. A small model answers several batches of them side by side; a
large one takes long, and a kill costs at most what was not written down."""


@dataclass(frozen=True)
class Settings:
    """What changes answers, besides the model; see `Predictor`."""

    closed: tuple[str, ...] = ()
    answer_share: float | None = None


@dataclass(frozen=True)
class ModelFiles:
    """A model as its files tell it, without loading it.

    Args:
        places: folders, or ids of the Hub: its own, and that of the model under its adapter.
        rows_at_once: how many rows it is handed at a time.
    """

    places: tuple[str, ...]
    rows_at_once: int

    @cached_property
    def fingerprint(self) -> str:
        """Changes with any of the files, all of which are read; of a Hub id, with its commit."""
        digest = hashlib.sha256()
        for place in self.places:
            if not Path(place).is_dir():
                digest.update(f"{place} {_commit(place)}\n".encode())
                continue
            for path in sorted(path for path in Path(place).iterdir() if path.is_file()):
                with path.open("rb") as file:
                    digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return digest.hexdigest()


def model_answer(model: str | Path, settings: Settings) -> Answer:
    """Load a model as something that answers.

    Raises:
        CheckpointError: nothing there, or damaged.
        ConfigError: the settings ask for what it does not know.
    """
    predictor = Predictor.load(model, closed=settings.closed, answer_share=settings.answer_share)
    return lambda pictures: [prediction.as_dict() for prediction in predictor.predict(pictures)]


def model_files(model: str | Path) -> ModelFiles:
    """Find the files of a model, and of the one under its adapter.

    Raises:
        CheckpointError: nothing there.
    """
    folder = checkpoint_folder(model)
    base = read_task(folder).base
    places = (model_folder(folder),) if base is None else (folder, model_folder(base))
    # By the size of the weights, which any machine knows without loading them: float32 has 4 bytes.
    sizes = [path.stat().st_size for place in places for path in Path(place).glob("*.safetensors")]
    is_small = 0 < sum(sizes) < 4 * SMALL_MODEL and all(Path(place).is_dir() for place in places)
    return ModelFiles(places, ROWS_AT_ONCE if is_small else ROWS_AT_ONCE_LARGE)


def _commit(name: str) -> str:
    """The commit of a model of the Hub that is loaded under this name."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, "config.json")).parent.name
    except Exception:  # the Hub client raises some fifteen kinds; loading the model says what is wrong
        return "unknown"
