"""A run: model and data made ready, the loop, validation, calibration.

record ids in seeded order -> examples -> micro-batches -> summed loss -> one update per step
every eval_every steps: answers for a fixed validation sample -> score -> best checkpoint
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from appraiser.adapters import attach_lora
from appraiser.backbone import Backbone, load
from appraiser.config import RunConfig, save_config
from appraiser.data.augmentation import Augmentation
from appraiser.data.batches import Batch, Example, collate
from appraiser.data.dataset import ProductDataset, Records, open_dataset, share_of
from appraiser.data.examples import ExampleSource
from appraiser.data.pictures import decode
from appraiser.data.records import ProductRecord
from appraiser.data.task import Task
from appraiser.errors import ConfigError, DataError
from appraiser.evaluation.metrics import is_closed
from appraiser.evaluation.scores import Truth, score_predictions, validation_score
from appraiser.predict import Prediction, Predictor
from appraiser.trained_task import TrainedTask
from appraiser.training.calibration import calibrated
from appraiser.training.checkpoint import rewrite_task, save_checkpoint
from appraiser.training.gradients import StepGradients, autocast, step_gradients
from appraiser.training.optim import build_optimizers, schedule_factor, set_learning_rate, trainable
from appraiser.training.preflight import PreflightReport, preflight
from appraiser.training.tracking import Tracker


@dataclass(frozen=True)
class TrainingPlan:
    """What a run will do, known before its first step."""

    num_records: int
    num_steps: int | None
    """None: until `run.max_minutes` are over."""
    num_trained: int
    num_parameters: int
    num_crops: int
    preflight: PreflightReport


@dataclass(frozen=True)
class RunSummary:
    """What a run did; times in seconds."""

    out: Path
    steps: int
    best_step: int
    best_score: float
    seconds: float
    training_seconds: float
    pictures_per_s: float
    metrics: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


Progress = Callable[[str, dict[str, float]], None]


def train(
    config: RunConfig,
    *,
    progress: Progress | None = None,
    on_plan: Callable[[TrainingPlan], None] | None = None,
    dry_run: bool = False,
) -> RunSummary:
    """Fine-tune a model on a data set and leave a run folder.

    Args:
        progress: called with ("train", numbers) and ("eval", numbers).
        on_plan: called once, after the preflight and before the first step.
        dry_run: stop after the plan; nothing is written.

    Raises:
        ConfigError: settings that cannot work here, or a model that does not see the picture.
        DataError: no such data set, or a record without a field of the task.
        CheckpointError: the base model cannot be loaded, or a checkpoint not be written.
    """
    out = Path(config.run.out)
    if not dry_run and (out.is_file() or (out.exists() and any(out.iterdir()))):
        raise ConfigError(f"{out} exists and is not empty", fix="name another --out; a run never overwrites another")
    if config.run.num_threads is not None:
        torch.set_num_threads(config.run.num_threads)
    torch.manual_seed(config.run.seed)
    data = open_dataset(config.data.dataset)
    session = Session(config, data)
    plan = session.plan()
    if on_plan:
        on_plan(plan)
    if dry_run:
        mixed = mixed_prices(session.trained, data)
        return RunSummary(out, 0, 0, 0.0, 0.0, 0.0, 0.0, {}, [mixed] if mixed else [])
    out.mkdir(parents=True, exist_ok=True)
    save_config(config, out / "config.yaml")
    with Tracker(out, config) as tracker:
        return session.run(plan, out, tracker, progress or (lambda what, numbers: None))


class Session:
    """One run in memory: model, examples, optimizer."""

    def __init__(self, config: RunConfig, data: ProductDataset) -> None:
        self.config = config
        self.data = data
        self.backbone = prepare_model(config, data)
        self.trained = trained_task(config, data)
        self.train_examples = ExampleSource(
            share_of(data.split("train"), config.data.train_share, config.run.seed),
            self.backbone,
            self.trained.task,
            cache_bytes=config.data.cache_mib << 20,
            max_tokens=config.data.max_tokens,
            augmentation=Augmentation(config.augment.mirror, config.augment.shift, config.run.seed),
        )
        self.validation = data.split("val")
        self.validation_rows = _sample(len(self.validation), config.run.eval_records, config.run.seed)
        self.category_median_ape = category_median_ape(data.split("train"), self.validation)
        self._kept_prompts: dict[int, Example] = {}
        self._free_prompt_bytes = config.data.cache_mib << 20
        self.optimizers = build_optimizers(
            self.backbone.model,
            learning_rate=config.optim.learning_rate,
            vision_learning_rate=config.optim.tower_learning_rate,
            muon_learning_rate=config.optim.muon_learning_rate,
            vision_muon_learning_rate=config.optim.tower_muon_learning_rate,
            weight_decay=config.optim.weight_decay,
            betas=(0.9, config.optim.beta2),
            muon_parts=config.run.micro_batches_at_once,
        )

    @property
    def num_steps(self) -> int | None:
        run = self.config.run
        if run.steps is not None or run.epochs is None:
            return run.steps
        return max(1, math.ceil(run.epochs * len(self.train_examples) / run.batch_size))

    def plan(self) -> TrainingPlan:
        """Run the preflight and say what training will do."""
        first, second = 0, min(1, len(self.train_examples) - 1)
        report = preflight(self.backbone, self.train_examples.draw(0, first), self.train_examples.draw(0, second))
        # What fails here would have failed after hours, at the first validation.
        self._score(self.validation_rows[:SMOKE_RECORDS])
        return TrainingPlan(
            num_records=len(self.train_examples),
            num_steps=self.num_steps,
            num_trained=sum(parameter.numel() for _, parameter in trainable(self.backbone.model)),
            num_parameters=sum(parameter.numel() for parameter in self.backbone.network.parameters()),
            num_crops=self.backbone.num_crops,
            preflight=report,
        )

    def run(self, plan: TrainingPlan, out: Path, tracker: Tracker, progress: Progress) -> RunSummary:
        """Train, validate, keep the best, calibrate it."""
        with step_gradients(self.config, self.backbone) as gradients:
            return self._run(plan, out, tracker, progress, gradients)

    def _run(
        self, plan: TrainingPlan, out: Path, tracker: Tracker, progress: Progress, gradients: StepGradients
    ) -> RunSummary:
        run = self.config.run
        started = time.monotonic()
        trained_s, best_score, best_step, step, pictures = 0.0, -math.inf, 0, 0, 0
        without_gain, is_hopeless = 0, False
        best_metrics: dict[str, Any] = {}
        window: list[StepStats] = []
        for step, batches in enumerate(self._micro_batches(plan.num_steps), start=1):
            done = (step - 1) / plan.num_steps if plan.num_steps else 0.0
            if run.max_minutes is not None:  # a slower machine takes fewer steps, but ends its schedule all the same
                done = max(done, trained_s / (60 * run.max_minutes))
            begun = time.monotonic()
            stats = self._step(batches, done, gradients)
            trained_s += time.monotonic() - begun
            window.append(stats)
            pictures += stats.num_pictures
            is_last = step == plan.num_steps or (run.max_minutes is not None and trained_s >= 60 * run.max_minutes)
            if step % run.log_every == 0 or is_last:
                numbers = _summary(window, trained_s, pictures) | {
                    "train/epoch": step * run.batch_size / plan.num_records
                }
                tracker.log(step, numbers)
                numbers |= {"step": step, "done": 1.0 if is_last else done}
                progress("train", numbers | ({"of": plan.num_steps} if plan.num_steps else {}))
                window = []
            if step % run.eval_every == 0 or is_last:
                part, score = self._validate(step, tracker)
                is_best = score > best_score
                without_gain = 0 if is_best else without_gain + 1
                is_hopeless = run.patience is not None and without_gain >= run.patience and not is_last
                if is_best:
                    best_score, best_step, best_metrics = score, step, part
                save_checkpoint(out, step, self.backbone, self.trained, is_best=is_best)
                progress("eval", _headline(part) | {"step": step, "score": score, "best": best_score})
            if is_last or is_hopeless:
                break
        possible = (mixed_prices(self.trained, self.data), tracker.warning, self._calibrate(out))
        warnings = [warning for warning in possible if warning]
        if run.micro_batches_at_once > 1 and self.backbone.device.type != "cpu":
            warnings.append(f"run.micro_batches_at_once is for CPUs: not used on {self.backbone.device}")
        elif run.micro_batches_at_once > run.batch_size // run.micro_batch_size:
            warnings.append(
                f"run.micro_batches_at_once={run.micro_batches_at_once}: a step of run.batch_size={run.batch_size} has "
                f"only {run.batch_size // run.micro_batch_size} micro-batches, so that many run side by side"
            )
        if is_hopeless:
            warnings.append(
                f"run.patience ended the run at step {step}: the best validation score is that of step {best_step}"
            )
        elif plan.num_steps and step < plan.num_steps:
            warnings.append(
                f"run.max_minutes ended the run after {step} of {plan.num_steps} steps, its schedule complete"
            )
        seconds = time.monotonic() - started
        return RunSummary(
            out,
            step,
            best_step,
            best_score,
            seconds,
            trained_s,
            pictures / max(trained_s, 1e-9),
            best_metrics,
            warnings,
        )

    def _micro_batches(self, num_steps: int | None) -> Iterator[list[Batch]]:
        """The micro-batches of each step; pictures of the next step are processed while this one is computed."""
        run = self.config.run
        order = record_order(len(self.train_examples), run.seed)

        def prepare(draws: Sequence[tuple[int, int]]) -> list[Batch]:
            examples = [self.train_examples.draw(epoch, position) for epoch, position in draws]
            chunks = [
                examples[start : start + run.micro_batch_size]
                for start in range(0, len(examples), run.micro_batch_size)
            ]
            return [collate(chunk, self.backbone) for chunk in chunks]

        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(prepare, [next(order) for _ in range(run.batch_size)])
            for step in itertools.count() if num_steps is None else range(num_steps):
                ready = following.result()
                if num_steps is None or step + 1 < num_steps:
                    following = pool.submit(prepare, [next(order) for _ in range(run.batch_size)])
                yield ready

    def _step(self, batches: Sequence[Batch], done: float, gradients: StepGradients) -> StepStats:
        """One optimizer update over all micro-batches; `done` is the share of the run that lies behind."""
        optim = self.config.optim
        self.backbone.model.train()
        factor = schedule_factor(
            round(done * SCHEDULE_TICKS), SCHEDULE_TICKS, round(optim.warmup_share * SCHEDULE_TICKS), optim.final_share
        )
        for optimizer in self.optimizers:
            set_learning_rate(optimizer, factor)
        total = gradients(batches)
        norm = float(nn.utils.clip_grad_norm_(gradients.parameters, optim.max_grad_norm))
        if not math.isfinite(total) or not math.isfinite(norm):
            ids = [record_id for batch in batches for record_id in batch.record_ids]
            raise DataError(
                f"loss or gradient is not a number (loss {total}, norm {norm})",
                where=f"records {', '.join(ids[:8])}{' ...' if len(ids) > 8 else ''}",
                fix="lower optim.learning_rate; the weights before this step are in the last checkpoint",
            )
        gradients.update(self.optimizers)
        pictures = sum(len(batch.inputs.get("image_sizes", ())) for batch in batches)
        tokens = sum(batch.num_tokens for batch in batches)
        return StepStats(total, norm, optim.learning_rate * factor, tokens, pictures)

    def _score(self, rows: Sequence[int]) -> tuple[list[ProductRecord], list[Prediction], dict[str, Any], float]:
        """Validation records, their answers by generation, their scores, and the number that chooses the best."""
        records = [self.validation[row] for row in rows]
        predictor = Predictor(self.backbone, self.trained)
        with autocast(self.config, self.backbone.device):
            predictions = predictor.answer(self._validation_prompts(predictor, rows))
        part = score_predictions(Truth.of(records, self.trained.fields), predictions, self.trained.fields)
        return records, predictions, part, validation_score(part, self.category_median_ape)

    def _validation_prompts(self, predictor: Predictor, rows: Sequence[int]) -> list[Example]:
        """The same rows are asked about at every validation: processed once, seen once if the tower does not learn."""
        missing = [row for row in rows if row not in self._kept_prompts]
        images = ([decode(data) for data in self.validation[row].images] for row in missing)
        prompts = dict(zip(missing, predictor.prompts(images, see=self.backbone.tower_is_frozen), strict=True))
        found = [self._kept_prompts[row] if row in self._kept_prompts else prompts[row] for row in rows]
        for row, prompt in prompts.items():
            size = sum(picture.nbytes for picture in prompt.pictures)
            if size <= self._free_prompt_bytes:
                self._free_prompt_bytes -= size
                self._kept_prompts[row] = prompt
        return found

    def _validate(self, step: int, tracker: Tracker) -> tuple[dict[str, Any], float]:
        """Scores of the fixed validation sample."""
        records, predictions, part, score = self._score(self.validation_rows)
        tracker.log(step, _headline(part) | {"eval/score": score})
        tracker.log_samples(
            step,
            [
                {"id": r.id, "target": self.trained.task.format(r.values(self.trained.task.fields)), "answer": p.text}
                for r, p in list(zip(records, predictions, strict=True))[:10]
            ],
        )
        return part, score

    def _calibrate(self, out: Path) -> str | None:
        """Choose the price to predict, measure how wide its intervals must be, and write both beside the best weights.

        Returns:
            A warning where there will be no intervals, and why.
        """
        if "price" not in self.trained.fields:
            return None
        best = Predictor.load(out, dtype=self.config.model.dtype, device=str(self.backbone.device))
        calibration = self.data.split("calib") if self.data.manifest.splits.get("calib", 0) else None
        trained, warning = calibrated(best, self.validation, calibration)
        rewrite_task((out / "best").resolve(), trained)
        return warning


SCHEDULE_TICKS = 10_000
SMOKE_RECORDS = 2


@dataclass(frozen=True)
class StepStats:
    """Numbers of one step."""

    loss: float
    grad_norm: float
    learning_rate: float
    num_tokens: int
    num_pictures: int


def prepare_model(config: RunConfig, data: ProductDataset) -> Backbone:
    """The base model with the data set's crop budget, adapters attached or all used weights trainable.

    Raises:
        ConfigError: more frozen layers than the tower has.
    """
    crops = config.model.num_crops or data.manifest.num_crops
    device = "cuda" if torch.cuda.is_available() else "cpu"
    backbone = load(
        config.model.base, dtype=config.model.dtype, num_crops=crops, attention=config.model.attention, device=device
    )
    if config.adapter.kind == "lora":
        backbone = attach_lora(backbone, config.adapter)
    else:
        frozen, layers = config.model.frozen_tower_layers, backbone.config.clip_config["num_hidden_layers"]
        if frozen > layers:
            raise ConfigError(
                f"model.frozen_tower_layers is {frozen}, but the tower of {config.model.base} has {layers} layers",
                fix=f"set it to 0 (none of them) to {layers} (all)",
            )
        still = backbone.lower_tower_parameters(frozen) if frozen else []
        for parameter in (*backbone.unused_parameters(), *still):
            parameter.requires_grad_(False)
    if config.model.gradient_checkpointing:
        backbone.network.gradient_checkpointing_enable()
        if config.adapter.kind != "none":
            backbone.network.enable_input_require_grads()
    return backbone


def trained_task(config: RunConfig, data: ProductDataset) -> TrainedTask:
    """What the run will answer, from its settings and the data set's columns."""
    fields = config.data.fields or data.manifest.task_fields
    Task(fields, config.data.language, config.data.question)  # checks the fields
    return TrainedTask(
        fields=fields,
        language=config.data.language,
        question=config.data.question,
        currency=data.manifest.currency,
        choices=_choices(data, fields),
        base=config.model.base if config.adapter.kind != "none" else None,
    )


def _choices(data: ProductDataset, fields: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The values of every field with few different ones in training."""
    train = data.split("train")
    columns = {name: train.column(name) for name in fields if name != "price" and name in train.column_names}
    return {name: tuple(sorted(map(str, set(column)))) for name, column in columns.items() if is_closed(column)}


def mixed_prices(trained: TrainedTask, data: ProductDataset) -> str | None:
    """A warning where answers would state prices in several currencies without saying which."""
    if not data.manifest.has_currencies or "price" not in trained.fields or "currency" in trained.fields:
        return None
    fields = list(trained.fields)
    fields.insert(fields.index("price"), "currency")
    return (
        "prices are in several currencies, and the answer does not say which: state it with "
        f"--set data.fields=[{','.join(fields)}], or build one data set per currency"
    )


def record_order(num_records: int, seed: int) -> Iterator[tuple[int, int]]:
    """(epoch, position) for ever: every epoch a new permutation that depends on (seed, epoch) alone."""
    for epoch in itertools.count():
        for position in np.random.default_rng([seed, epoch]).permutation(num_records).tolist():
            yield epoch, position


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


def _summary(window: Sequence[StepStats], seconds: float, pictures: int) -> dict[str, float]:
    return {
        "train/loss": statistics.fmean(stats.loss for stats in window),
        "train/grad_norm": statistics.fmean(stats.grad_norm for stats in window),
        "train/learning_rate": window[-1].learning_rate,
        "train/pictures_per_s": pictures / max(seconds, 1e-9),
        "train/tokens_per_step": statistics.fmean(stats.num_tokens for stats in window),
        "train/seconds": seconds,
    }


def _headline(part: dict[str, Any]) -> dict[str, float]:
    """The numbers of a validation under their tracking keys."""
    keys = {
        ("price", "median_ape"): "eval/price_median_ape",
        ("title", "chrf"): "eval/title_chrf",
        ("title", "visible_words"): "eval/title_visible_words",
        ("category", "accuracy"): "eval/category_accuracy",
    }
    found = {
        name: part[field][metric]["value"] for (field, metric), name in keys.items() if metric in part.get(field, {})
    }
    return found | {"eval/parse_rate": part["parse_rate"]["value"]}
