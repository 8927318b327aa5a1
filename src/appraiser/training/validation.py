"""Answers for a fixed sample of validation products, generated at every validation, and their score."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from appraiser.backbone import Backbone, side_by_side
from appraiser.config import RunConfig
from appraiser.data.batches import Batch, Example, collate
from appraiser.data.dataset import Records
from appraiser.data.examples import training_example
from appraiser.data.pictures import decode
from appraiser.data.records import ProductRecord
from appraiser.evaluation.scores import Truth, score_predictions, validation_score
from appraiser.predict import Prediction, Predictor
from appraiser.trained_task import TrainedTask
from appraiser.training.gradients import autocast
from appraiser.training.objectives import NextToken
from appraiser.training.order import micro_batches
from appraiser.training.ranks import Ranks

SMOKE_RECORDS = 2


@dataclass(frozen=True)
class Validated:
    """One validation."""

    records: list[ProductRecord]
    predictions: list[Prediction]
    scores: dict[str, Any]
    score: float
    """What chooses the best checkpoint."""
    loss: float
    """Mean cross-entropy of the true answers' tokens."""

    @property
    def headline(self) -> dict[str, float]:
        """The numbers under their tracking keys."""
        keys = {
            ("price", "median_ape"): "eval/price_median_ape",
            ("price", "mae"): "eval/price_mae",
            ("title", "chrf"): "eval/title_chrf",
            ("title", "visible_words"): "eval/title_visible_words",
            ("category", "accuracy"): "eval/category_accuracy",
        }
        scores = self.scores
        found = {
            name: scores[field][metric]["value"]
            for (field, metric), name in keys.items()
            if metric in scores.get(field, {})
        }
        return found | {
            "eval/parse_rate": scores["parse_rate"]["value"],
            "eval/score": self.score,
            "eval/loss": self.loss,
        }

    @property
    def pictures(self) -> list[bytes | None]:
        """The first picture of every product."""
        return [record.images[0] if record.images else None for record in self.records]


class Validation:
    """Asks the model about the same products every time."""

    def __init__(
        self,
        config: RunConfig,
        backbone: Backbone,
        trained: TrainedTask,
        train: Records,
        records: Records,
        ranks: Ranks,
    ) -> None:
        self.config, self.backbone, self.trained, self.ranks = config, backbone, trained, ranks
        self.records = records
        self.rows = _sample(len(records), config.run.eval_records, config.run.seed)
        self.category_median_ape = category_median_ape(train, records)
        self._kept_prompts: dict[int, Example] = {}
        self._free_prompt_bytes = config.data.cache_mib << 20

    def smoke(self) -> None:
        """Generate and score two products: what fails here would have failed after hours."""
        self._score(self.rows[:SMOKE_RECORDS])

    def __call__(self) -> Validated:
        """Answer and score the whole sample."""
        return self._score(self.rows)

    def _score(self, rows: Sequence[int]) -> Validated:
        records = [self.records[row] for row in rows]
        predictions = self._answer(rows)
        scores = score_predictions(Truth.of(records, self.trained.fields), predictions, self.trained.fields)
        score = validation_score(scores, self.category_median_ape)
        return Validated(records, predictions, scores, score, self._loss(rows))

    def _answer(self, rows: Sequence[int]) -> list[Prediction]:
        """Ranks share the rows, unless they also share the weights: then all of them compute every row together."""
        predictor = Predictor(self.backbone, self.trained)
        size = 1 if self.config.run.sharding == "full" else self.ranks.size
        mine = rows[self.ranks.rank % size :: size]
        with autocast(self.config, self.backbone.device):
            answers = predictor.answer(self._prompts(predictor, mine)) if mine else []
        if size == 1:
            return answers
        parts = self.ranks.gather(answers)
        return [parts[place % size][place // size] for place in range(len(rows))]

    @torch.no_grad()
    def _loss(self, rows: Sequence[int]) -> float:
        """Teacher-forced loss of the same rows, in micro-batches of the run's size."""
        task, reader, objective = self.trained.task, self.backbone, NextToken()
        prompts = self._prompts(Predictor(self.backbone, self.trained), rows)
        examples = [
            training_example(reader, task, self.records[row], prompt.pictures, self.config.data.max_tokens)
            for row, prompt in zip(rows, prompts, strict=True)
        ]
        size = self.config.run.micro_batch_size
        groups = micro_batches(examples, lambda example: len(example.input_ids), size)
        batches = [collate(group, reader) for group in groups]
        total = sum(batch.num_supervised for batch in batches)

        @torch.no_grad()  # a thread's own affair: inside what threads run
        def loss(batch: Batch) -> float:
            return objective.loss(self.backbone.model, batch.to(self.backbone.device), total)[0].item()

        with side_by_side(self.backbone) as each, autocast(self.config, self.backbone.device):
            return sum(each(loss, batches))

    def _prompts(self, predictor: Predictor, rows: Sequence[int]) -> list[Example]:
        """Processed once; seen once if the tower does not learn."""
        missing = [row for row in rows if row not in self._kept_prompts]
        images = ([decode(data) for data in self.records[row].images] for row in missing)
        see = self.backbone.tower_is_frozen and self.config.run.sharding == "none"
        prompts = dict(zip(missing, predictor.prompts(images, see=see), strict=True))
        found = [self._kept_prompts[row] if row in self._kept_prompts else prompts[row] for row in rows]
        for row, prompt in prompts.items():
            size = sum(picture.nbytes for picture in prompt.pictures)
            if size <= self._free_prompt_bytes:
                self._free_prompt_bytes -= size
                self._kept_prompts[row] = prompt
        return found

    def samples(self, validated: Validated, number: int = 10) -> list[dict[str, Any]]:
        """Answers beside their truth, for samples.jsonl."""
        task = self.trained.task
        pairs = zip(validated.records, validated.predictions, strict=True)
        return [
            {"id": record.id, "target": task.format(record.values(task.fields)), "answer": prediction.text}
            for record, prediction in itertools.islice(pairs, number)
        ]


def category_median_ape(train: Records, validation: Records) -> float | None:
    """Median APE on validation of the training median of the true category; None without prices or categories."""
    if not {"price", "category"} <= set(train.column_names):
        return None
    by_category: dict[str, list[float]] = {}
    prices = train.column("price")
    for category, price in zip(train.column("category"), prices, strict=True):
        by_category.setdefault(category, []).append(price)
    overall = statistics.median(prices)
    errors = [
        abs(statistics.median(by_category.get(category, [overall])) - price) / price
        for category, price in zip(validation.column("category"), validation.column("price"), strict=True)
    ]
    return statistics.median(errors) or None


def _sample(total: int, wanted: int, seed: int) -> list[int]:
    return sorted(np.random.default_rng(seed).permutation(total)[:wanted].tolist())
