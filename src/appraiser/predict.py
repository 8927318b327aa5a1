"""Predictor: load once, answer one or many. Shared by evaluation and batch prediction.

Prompt and parser are those of training (`data/task.py`); what was trained is written beside the weights
(`appraiser.json`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from appraiser.backbone import Backbone, Views, load
from appraiser.data.batches import collate
from appraiser.data.examples import prompt_example, views_of
from appraiser.data.task import MAX_ANSWER_TOKENS, FieldValue, Language, Task
from appraiser.errors import CheckpointError

TASK_FILE = "appraiser.json"
TASK_FORMAT = 1
# Prompt tokens of one batch: bounds memory, and lets short rows go in large batches.
TOKENS_PER_BATCH = 16_384
MAX_ROWS_PER_BATCH = 128


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
    interval_80_log: float | None = None
    """80 % of the calibration products' |ln(predicted / true price)| lie below it."""

    @property
    def task(self) -> Task:
        return Task(self.fields, self.language, self.question)


@dataclass(frozen=True)
class Prediction:
    """One answer.

    Args:
        fields: what could be read of the answer.
        price_interval: (low, high) that should hold the true price in 80 % of cases; None where not calibrated.
        confidence: geometric mean of the answer tokens' probabilities, 0 to 1.
        text: the raw answer.
        parsed: whether every field was there and readable.
        stopped: whether the answer ended by itself.
    """

    fields: dict[str, FieldValue]
    currency: str | None
    price_interval: tuple[float, float] | None
    confidence: float
    text: str
    parsed: bool
    stopped: bool

    @property
    def title(self) -> str | None:
        value = self.fields.get("title")
        return None if value is None else str(value)

    @property
    def category(self) -> str | None:
        value = self.fields.get("category")
        return None if value is None else str(value)

    @property
    def price(self) -> float | None:
        value = self.fields.get("price")
        return None if value is None else float(value)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and tables."""
        low, high = self.price_interval or (None, None)
        return self.fields | {
            "currency": self.currency if self.price is not None else None,
            "price_low": low,
            "price_high": high,
            "confidence": round(self.confidence, 4),
            "parsed": self.parsed,
            "text": self.text,
        }


class Predictor:
    """A model that answers, with the task it was trained on."""

    def __init__(self, backbone: Backbone, trained: TrainedTask, *, max_new_tokens: int = MAX_ANSWER_TOKENS) -> None:
        self.backbone = backbone
        self.trained = trained
        self.task = trained.task
        self.max_new_tokens = max_new_tokens

    @classmethod
    def load(cls, run_or_folder: str | Path, *, dtype: str = "float32", device: str | None = None) -> Predictor:
        """Load a run (its best checkpoint), a checkpoint, a model folder, an embedded model or a Hub id.

        Raises:
            CheckpointError: nothing there, or damaged.
        """
        folder = checkpoint_folder(run_or_folder)
        trained = read_task(folder)
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        if trained.base is not None:
            from appraiser.adapters import load_adapted

            backbone = load_adapted(Path(folder), trained.base, dtype=dtype, device=device)
        else:
            backbone = load(folder, dtype=dtype, device=device)
        backbone.model.eval()
        return cls(backbone, trained)

    def predict(
        self,
        images: Sequence[Image.Image | Sequence[Image.Image]],
        progress: Callable[[int], None] | None = None,
    ) -> list[Prediction]:
        """Answer for every picture, or every group of pictures of one product, in the order given.

        Pictures are RGB (`data.pictures.decode` makes them so). Rows of like length are answered together.
        """
        rows = [[image] if isinstance(image, Image.Image) else list(image) for image in images]
        return self._predict_views([views_of(row, self.backbone) for row in rows], progress)

    def _predict_views(
        self, rows: Sequence[Sequence[Views]], progress: Callable[[int], None] | None = None
    ) -> list[Prediction]:
        """`predict` for pictures that are already processed."""
        examples = [prompt_example(self.backbone, self.task, str(i), pictures) for i, pictures in enumerate(rows)]
        answers: dict[int, Prediction] = {}
        for positions in _batches([len(example.input_ids) for example in examples]):
            batch = [examples[position] for position in positions]
            for position, answer in zip(positions, self._generate(batch), strict=True):
                answers[position] = answer
            if progress:
                progress(len(answers))
        return [answers[position] for position in range(len(examples))]

    @torch.inference_mode()
    def _generate(self, examples: Sequence[Any]) -> list[Prediction]:
        """Greedy answers of one left-padded batch."""
        batch = collate(examples, self.backbone, padding_side="left").to(self.backbone.device)
        inputs = {key: value for key, value in batch.inputs.items() if key != "position_ids"}
        was_training = self.backbone.model.training
        self.backbone.model.eval()
        output = self.backbone.model.generate(
            **inputs,
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            eos_token_id=self.backbone.stop_token_ids,
            return_dict_in_generate=True,
            output_logits=True,
        )
        self.backbone.model.train(was_training)
        prompt_length = inputs["input_ids"].shape[1]
        ids = output.sequences[:, prompt_length:]
        chosen = [
            step.float().log_softmax(-1).gather(1, ids[:, position : position + 1]).squeeze(1)
            for position, step in enumerate(output.logits)
        ]
        log_probabilities = torch.stack(chosen, dim=1).cpu()
        return [self._read(row.tolist(), logs.tolist()) for row, logs in zip(ids.cpu(), log_probabilities, strict=True)]

    def _read(self, ids: list[int], log_probabilities: list[float]) -> Prediction:
        """Turn one row of generated ids into a prediction."""
        stops = set(self.backbone.stop_token_ids)
        end = next((position for position, token in enumerate(ids) if token in stops), None)
        length = len(ids) if end is None else end + 1
        text = self.backbone.decode(ids)
        parsed = self.task.parse(text)
        price = parsed.fields.get("price")
        interval = None
        if price is not None and self.trained.interval_80_log is not None:
            factor = math.exp(self.trained.interval_80_log)
            interval = (float(price) / factor, float(price) * factor)
        return Prediction(
            fields=parsed.fields,
            currency=self.trained.currency,
            price_interval=interval,
            confidence=math.exp(sum(log_probabilities[:length]) / max(1, length)),
            text=text,
            parsed=parsed.is_complete,
            stopped=end is not None,
        )


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Positions of rows, longest first, in batches of a bounded number of tokens."""
    order = sorted(range(len(lengths)), key=lambda position: -lengths[position])
    while order:
        rows = max(1, min(MAX_ROWS_PER_BATCH, TOKENS_PER_BATCH // lengths[order[0]]))
        yield order[:rows]
        order = order[rows:]


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
