"""A run: model and data made ready, the loop, validation, calibration.

record ids in seeded order -> examples -> micro-batches -> summed loss -> one update per step
every eval_every steps: answers for a fixed validation sample -> score -> best checkpoint
"""

from __future__ import annotations

import contextlib
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from appraiser.config import RunConfig
from appraiser.data.augmentation import Augmentation
from appraiser.data.batches import Batch
from appraiser.data.dataset import ProductDataset, open_dataset, share_of
from appraiser.data.examples import ExampleSource
from appraiser.data.pictures import decode
from appraiser.errors import ConfigError, DataError
from appraiser.predict import Predictor
from appraiser.trained_task import write_task
from appraiser.training.calibration import calibrated
from appraiser.training.checkpoint import TRAINING, rewrite_task, save_checkpoint
from appraiser.training.feed import Feed, Source, StepData
from appraiser.training.gradients import StepGradients, StepLoss, autocast, step_gradients
from appraiser.training.kept_features import KeptFeatures
from appraiser.training.objectives import NextToken, Objective
from appraiser.training.optim import build_optimizers, part_of, schedule_factor, set_learning_rate, trainable
from appraiser.training.optimizer_files import read_optimizers, write_optimizers
from appraiser.training.order import RecordOrder
from appraiser.training.preferences import (
    MISTAKES,
    DirectPreference,
    PairSource,
    Preference,
    kept_mistakes,
    kept_reference,
    mistakes,
    read_preferences,
    reference_numbers,
    write_preferences,
)
from appraiser.training.preflight import PreflightReport, StepCost, check_batch, measure_step, preflight
from appraiser.training.preparation import mixed_prices, prepare_model, trained_task
from appraiser.training.ranks import Ranks, join
from appraiser.training.replica import Replica
from appraiser.training.resuming import Resumed, begin_run, finish_run, resumed_run
from appraiser.training.run_state import RunState, StepStats
from appraiser.training.stop_signals import RunStopped, StopSignals
from appraiser.training.tracking import Tracker
from appraiser.training.validation import Validation


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
    cost: StepCost
    num_ranks: int
    begins_at: int
    """Steps that were done before: the run goes on."""


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
    resume: bool = False,
) -> RunSummary:
    """Fine-tune a model on a data set and leave a run folder.

    Under `torchrun` every process calls this; the first one writes and reports.

    Args:
        progress: called with ("train", numbers) and ("eval", numbers).
        on_plan: called once, after the preflight and before the first step.
        dry_run: stop after the plan; nothing is written.
        resume: go on with the run in `run.out` from its newest intact checkpoint.

    Raises:
        ConfigError: settings that cannot work here, or a model that does not see the picture.
        DataError: no such data set, or a record without a field of the task.
        CheckpointError: the base model cannot be loaded, or a checkpoint not be written.
        RunStopped: a signal came; the run is saved.
    """
    out = Path(config.run.out)
    if config.run.num_threads is not None:
        torch.set_num_threads(config.run.num_threads)
    torch.manual_seed(config.run.seed)
    with join() as ranks, StopSignals() as stop, contextlib.ExitStack() as stack:
        data = open_dataset(config.data.dataset)
        resumed = None
        if not dry_run:
            opened = resumed_run if resume else begin_run
            resumed = stack.enter_context(opened(out, config, data, ranks))
        try:
            with stop.leaving_at_once() if ranks.size == 1 else contextlib.nullcontext():
                session = Session(config, data, ranks, resumed)
                plan = session.plan()
        except RunStopped as error:
            raise RunStopped(error.number, where=f"{out}, before its first step", fix=_go_on(out)) from None
        if on_plan and ranks.is_first:
            on_plan(plan)
        if dry_run:
            mixed = mixed_prices(session.trained, data)
            return RunSummary(out, 0, 0, 0.0, 0.0, 0.0, 0.0, {}, [mixed] if mixed else [])
        with Tracker(out, config, keep_until=session.state.step, is_recording=ranks.is_first) as tracker:
            report = progress if progress and ranks.is_first else lambda what, numbers: None
            summary = session.run(plan, tracker, report, stop)
        if tracker.warning:  # known when its mirror has ended
            summary.warnings.append(tracker.warning)
        return summary


class Session:
    """One run in memory: model, examples, optimizer."""

    def __init__(
        self, config: RunConfig, data: ProductDataset, ranks: Ranks | None = None, resumed: Resumed | None = None
    ) -> None:
        self.config, self.data, self.ranks = config, data, ranks or Ranks()
        self.out = Path(config.run.out)
        self.state = resumed.state if resumed else RunState()
        self.backbone = prepare_model(config, data, self.ranks.device)
        if resumed and resumed.checkpoint:
            resumed.read_weights(self.backbone)
        self.trained = trained_task(config, data)
        self.features = self._kept_features()
        self.examples = ExampleSource(
            share_of(data.split("train"), config.data.train_share, config.run.seed),
            self.backbone,
            self.trained.task,
            cache_bytes=config.data.cache_mib << 20,
            max_tokens=config.data.max_tokens,
            augmentation=Augmentation(config.augment.mirror, config.augment.shift, config.run.seed),
            features=self.features.of if self.features else None,
        )
        self.source, self.objective = self._ordinary() if config.dpo.pairs is None else self._preferences()
        self._check_batch_size()
        self.feed = Feed(
            self.source,
            config,
            self.ranks,
            last_step=self.num_steps,
            micro_batch_size=self.state.micro_batch_size,
        )
        self.replica = Replica(self.backbone, self.ranks, is_sharded=config.run.sharding == "full")
        self.optimizers = build_optimizers(
            self.backbone.model,
            learning_rate=config.optim.learning_rate,
            part_rates={"tower": config.optim.tower_learning_rate, "projector": config.optim.projector_learning_rate},
            muon_learning_rate=config.optim.muon_learning_rate,
            tower_muon_learning_rate=config.optim.tower_muon_learning_rate,
            weight_decay=config.optim.weight_decay,
            betas=(0.9, config.optim.beta2),
            muon_parts=config.run.micro_batches_at_once,
        )
        self.names = {id(parameter): name for name, parameter in self.replica.trained.items()}
        if resumed and resumed.checkpoint:
            read_optimizers(resumed.checkpoint / TRAINING, self.optimizers, self.names)
        self.validation = Validation(
            config, self.backbone, self.trained, data.split("train"), data.split("val"), self.ranks
        )

    @property
    def num_steps(self) -> int | None:
        run = self.config.run
        if run.steps is not None or run.epochs is None:
            return run.steps
        return max(1, math.ceil(run.epochs * len(self.source) / run.batch_size))

    def plan(self) -> TrainingPlan:
        """Run the preflight and say what training will do."""
        first, second = (
            self.source.rows([self.source.draw(0, position)])[0] for position in (0, min(1, len(self.source) - 1))
        )
        report = preflight(self.backbone, first, second)
        batch = self._checked_batch()
        # What fails here would have failed after hours, at the first validation.
        self.validation.smoke()
        with step_gradients(self.config, self.replica, self.objective) as gradients:
            num_batches = -(-self.config.run.batch_size // (self.ranks.size * self.feed.micro_batch_size))
            cost = measure_step(gradients, batch, num_batches, _optimizer_bytes(self.optimizers))
        return TrainingPlan(
            num_records=len(self.source),
            num_steps=self.num_steps,
            num_trained=sum(parameter.numel() for _, parameter in trainable(self.backbone.model)),
            num_parameters=sum(parameter.numel() for parameter in self.backbone.network.parameters()),
            num_crops=self.backbone.num_crops,
            preflight=report,
            num_ranks=self.ranks.size,
            begins_at=self.state.step,
            cost=cost,
        )

    def _checked_batch(self) -> Batch:
        """The first micro-batch, compared with its records, which are read and processed once more."""
        draws = self.feed.first_group(self.state.step)
        items = [self.source.draw(*draw) for draw in draws]
        batch = self.source.join(items, packed=self.config.run.packing)
        truth = [row for draw in draws for row in self.source.truth(*draw)]
        targets, pictures = [target for target, _ in truth], [pictures for _, pictures in truth]
        check_batch(batch, self.source.rows(items), targets, pictures, self.backbone)
        return batch

    def run(self, plan: TrainingPlan, tracker: Tracker, progress: Progress, stop: StopSignals) -> RunSummary:
        """Train, validate, keep the best, calibrate it."""
        started = time.monotonic()
        if isinstance(self.source, PairSource) and self.ranks.is_first:
            write_preferences(self.out / PREFERENCES, self.source)
        self._see_pictures(plan.num_steps, progress)
        with step_gradients(self.config, self.replica, self.objective) as gradients, self.feed:
            self._train(plan, gradients, tracker, progress, stop)
        try:
            with stop.leaving_at_once() if self.ranks.size == 1 else contextlib.nullcontext():
                warning = self._calibrate()
        except RunStopped as error:
            where = f"{self.out}, trained and saved, not yet calibrated"
            raise RunStopped(error.number, where=where, fix=_go_on(self.out)) from None
        summary = self._summary(plan, time.monotonic() - started, [mixed_prices(self.trained, self.data), warning])
        if self.ranks.is_first:
            tracker.finish(self.out / "best", self.state)
            finish_run(self.out, summary.metrics | {"steps": summary.steps, "best_step": summary.best_step})
        return summary

    def _train(
        self,
        plan: TrainingPlan,
        gradients: StepGradients,
        tracker: Tracker,
        progress: Progress,
        stop: StopSignals,
    ) -> None:
        run, state = self.config.run, self.state
        if not state.is_validated:
            self._validate(tracker, progress, stop)
        while not state.is_over:
            done = self._share_done(plan.num_steps)
            stats = self._step(done, gradients)
            state.step += 1
            state.trained_s += stats.seconds
            state.num_pictures += stats.num_pictures
            state.num_tokens += stats.num_tokens
            state.window.append(stats)
            # The clock and the signals of one rank count for all: they have to agree on what comes next.
            state.trained_s, signal_number = self.ranks.largest([state.trained_s, float(stop.number or 0)])
            state.is_over = state.step == plan.num_steps or (
                run.max_minutes is not None and state.trained_s >= 60 * run.max_minutes
            )
            if state.step % run.log_every == 0 or state.is_over:
                self._log(plan, done, tracker, progress)
            is_due = state.step % run.eval_every == 0 or state.is_over
            state.is_validated = not is_due
            if signal_number:
                raise self._stopped(int(signal_number))
            if is_due:
                self._validate(tracker, progress, stop)
            elif run.save_every is not None and state.step % run.save_every == 0:
                self._save()

    def _share_done(self, num_steps: int | None) -> float:
        """The share of the run that lies behind; a slower machine takes fewer steps, but ends its schedule."""
        run, state = self.config.run, self.state
        done = state.step / num_steps if num_steps else 0.0
        return done if run.max_minutes is None else max(done, state.trained_s / (60 * run.max_minutes))

    def _step(self, done: float, gradients: StepGradients) -> StepStats:
        """One optimizer update over all micro-batches; `done` is the share of the run that lies behind."""
        optim = self.config.optim
        begun = time.monotonic()
        data = self.feed.take(self.state.step)
        self.backbone.model.train()
        factor = schedule_factor(
            round(done * SCHEDULE_TICKS), SCHEDULE_TICKS, round(optim.warmup_share * SCHEDULE_TICKS), optim.final_share
        )
        for optimizer in self.optimizers:
            set_learning_rate(optimizer, factor)
        found = self._gradients(data, gradients)
        norms = self._part_norms()
        norm = math.hypot(*norms.values())
        loss, *sums = self.ranks.sum([found.loss, *found.sums.values()])
        if not math.isfinite(loss) or not math.isfinite(norm):
            ids = [
                record_id
                for ids in self.ranks.gather([row.record_id for row in self.source.rows(data.items)])
                for record_id in ids
            ]
            raise DataError(
                f"loss or gradient is not a number (loss {loss}, norm {norm}) at step {self.state.step + 1}",
                where=f"records {', '.join(ids[:8])}{' ...' if len(ids) > 8 else ''}",
                fix="lower optim.learning_rate; the weights before this step are in the last checkpoint",
            )
        if norm > optim.max_grad_norm:
            for parameter in gradients.parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(optim.max_grad_norm / (norm + 1e-6))
        gradients.update(self.optimizers)
        num_tokens, num_pictures = self.ranks.sum(
            [
                sum(batch.num_tokens for batch in data.batches),
                sum(len(batch.inputs.get("image_sizes", ())) for batch in data.batches),
            ]
        )
        return StepStats(
            loss=loss,
            grad_norm=norm,
            part_norms=norms,
            learning_rate=optim.learning_rate * factor,
            num_tokens=int(num_tokens),
            num_pictures=int(num_pictures),
            seconds=time.monotonic() - begun,
            data_wait_s=data.wait_s,
            extra=dict(zip(found.sums, sums, strict=True)),
        )

    def _gradients(self, data: StepData, gradients: StepGradients) -> StepLoss:
        """The step's gradients; where memory does not suffice, with smaller micro-batches of the same examples."""
        batches = data.batches
        while True:
            num_items = self.ranks.sum([sum(gradients.objective.num_items(batch) for batch in batches)])
            try:
                return gradients(batches, int(num_items[0]), self.state.step)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                # Ranks that wait for each other's gradients cannot begin the step again.
                if not _is_out_of_memory(error) or self.feed.micro_batch_size == 1 or self.ranks.size > 1:
                    raise
            gradients.forget()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            before = self.feed.micro_batch_size
            self.feed.micro_batch_size = self.state.micro_batch_size = max(1, before // 2)
            self.state.warnings.append(
                f"out of memory at step {self.state.step + 1}: from here on micro-batches of "
                f"{self.feed.micro_batch_size} instead of {before}; the batch of "
                f"{self.config.run.batch_size} and the loss are the same"
            )
            batches = self.feed.regroup(data.items)

    def _part_norms(self) -> dict[str, float]:
        """Gradient norm of every trained part, over all ranks' shares."""
        parts: dict[str, list[torch.Tensor]] = {}
        for name, parameter in self.replica.trained.items():
            if parameter.grad is not None:
                parts.setdefault(part_of(name), []).append(parameter.grad)
        norms = {}
        for part, gradients in sorted(parts.items()):
            norm: Any = nn.utils.get_total_norm(gradients)
            norms[part] = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        return norms

    def _log(self, plan: TrainingPlan, done: float, tracker: Tracker, progress: Progress) -> None:
        run, state = self.config.run, self.state
        numbers = _summary(state.window, state.trained_s) | {
            "train/epoch": state.step * run.batch_size / plan.num_records,
            "train/pictures_per_s": state.num_pictures / max(state.trained_s, 1e-9),
            "train/tokens_per_s": state.num_tokens / max(state.trained_s, 1e-9),
        }
        if torch.cuda.is_available():
            numbers["train/memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        tracker.log(state.step, numbers)
        numbers |= {"step": state.step, "done": 1.0 if state.is_over else done}
        progress("train", numbers | ({"of": plan.num_steps} if plan.num_steps else {}))
        state.window = []

    def _validate(self, tracker: Tracker, progress: Progress, stop: StopSignals) -> None:
        """Score the fixed validation sample and save; a signal leaves it, to be done again."""
        state = self.state
        try:
            with stop.leaving_at_once() if self.ranks.size == 1 else contextlib.nullcontext():
                validated = self.validation()
        except RunStopped as error:
            raise self._stopped(error.number) from None
        is_best = state.score(validated.scores, validated.score)
        patience = self.config.run.patience
        if patience is not None and state.without_gain >= patience and not state.is_over:
            state.is_over = state.is_hopeless = True
        tracker.log(state.step, validated.headline)
        tracker.log_samples(state.step, self.validation.samples(validated), validated.pictures)
        self._save(is_best=is_best)
        best = state.best_score if state.best_score is not None else -math.inf
        progress("eval", validated.headline | {"step": state.step, "score": validated.score, "best": best})

    def _stopped(self, number: int) -> RunStopped:
        """Save, and make the error that ends the run."""
        self._save()
        return RunStopped(
            number,
            where=f"{self.out}, saved after step {self.state.step}",
            fix=_go_on(self.out),
        )

    def _save(self, *, is_best: bool = False) -> None:
        weights = self.replica.weights()

        def write(folder: Path) -> None:
            if self.ranks.is_first:
                self.backbone.save(folder, weights)
                write_task(folder, self.trained)
                (folder / TRAINING).mkdir(exist_ok=True)
                (folder / TRAINING / "state.json").write_text(json.dumps(self.state.to_json()), encoding="utf-8")
            write_optimizers(
                folder / TRAINING, self.optimizers, self.names, self.ranks, is_sharded=self.replica.is_sharded
            )

        save_checkpoint(
            self.out,
            self.state.step,
            write,
            is_best=is_best,
            keep_last=self.config.run.keep_last,
            ranks=self.ranks,
        )

    def _calibrate(self) -> str | None:
        """Choose the price to predict, measure how wide its intervals must be, and write both beside the best weights.

        Returns:
            A warning where there will be no intervals, and why.
        """
        if "price" not in self.trained.fields or not self.ranks.is_first:
            return None
        best = Predictor.load(self.out, dtype=self.config.model.dtype, device=str(self.backbone.device))
        calibration = self.data.split("calib") if self.data.manifest.splits.get("calib", 0) else None
        trained, warning = calibrated(best, self.data.split("val"), calibration)
        rewrite_task((self.out / "best").resolve(), trained)
        return warning

    def _ordinary(self) -> tuple[Source, Objective]:
        return self.examples, NextToken()

    def _preferences(self) -> tuple[Source, Objective]:
        """Pairs with the reference's numbers: those of the run folder where it has them, else made now and kept."""
        config, kept = self.config, self.out / PREFERENCES
        preferences = self._pairs()
        source = PairSource(preferences, self.backbone, self.trained.task, self.examples)
        if kept.is_file():
            source.reference = kept_reference(kept)
        else:
            with autocast(config, self.backbone.device):
                source.reference = reference_numbers(self.backbone, source, config.run.micro_batch_size)
        return source, DirectPreference(self.backbone, config.dpo.beta)

    def _pairs(self) -> list[Preference]:
        pairs = self.config.dpo.pairs
        if pairs is None or pairs == MISTAKES:
            kept = self.out / PREFERENCES
            train, task = self.examples.records, self.trained.task
            if kept.is_file():
                return kept_mistakes(kept, train)
            rows = range(min(self.config.dpo.most_mistakes, len(train)))
            mine = [train[row] for row in rows[self.ranks.rank :: self.ranks.size]]
            predictor = Predictor(self.backbone, self.trained)
            with autocast(self.config, self.backbone.device):
                answers = predictor.predict([decode(data) for data in record.images] for record in mine)
            found = mistakes(mine, [answer.text for answer in answers], task)
            return [pair for part in self.ranks.gather(found) for pair in part]
        return read_preferences(Path(pairs))

    def _kept_features(self) -> KeptFeatures | None:
        config = self.config
        is_possible = config.method("tower") == "freeze" and not (config.augment.mirror or config.augment.shift)
        if not is_possible or config.data.kept_features_gib == 0:
            return None
        folder = Path(config.data.features_folder or Path(config.data.dataset) / ".features")
        return KeptFeatures(folder, self.backbone, config, int(config.data.kept_features_gib * 2**30))

    def _see_pictures(self, num_steps: int | None, progress: Progress) -> None:
        """Show a frozen tower the training pictures before the first step; ranks share the work."""
        if self.features is None:
            return
        total = len(self.source)
        wanted = total if num_steps is None else min(total, num_steps * self.config.run.batch_size)
        mine = range(self.ranks.rank, wanted, self.ranks.size)
        order = RecordOrder(total, self.config.run.batch_size, self.config.run.seed)
        records = [self.examples.records[order.at(place)[1]] for place in mine]
        self.features.fill(records, lambda number: progress("see", {"done": number, "of": len(records)}))
        self.ranks.wait()

    def _check_batch_size(self) -> None:
        if self.config.run.batch_size % self.ranks.size:
            raise ConfigError(
                f"run.batch_size {self.config.run.batch_size} cannot be shared by {self.ranks.size} processes",
                fix="choose a multiple of their number",
            )

    def _summary(self, plan: TrainingPlan, seconds: float, possible: Sequence[str | None]) -> RunSummary:
        state, run = self.state, self.config.run
        warnings = [*(warning for warning in possible if warning), *state.warnings, *self._ignored_settings()]
        if state.is_hopeless:
            warnings.append(
                f"run.patience ended the run at step {state.step}: the best validation score is that of step "
                f"{state.best_step}"
            )
        elif plan.num_steps and state.step < plan.num_steps:
            warnings.append(
                f"run.max_minutes ended the run after {state.step} of {plan.num_steps} steps, its schedule complete"
            )
        if self.features is not None and self.features.num_unkept:
            warnings.append(
                f"data.kept_features_gib={self.config.data.kept_features_gib:g} was full: {self.features.num_unkept} "
                "times a picture was seen without being kept"
            )
        return RunSummary(
            out=Path(run.out),
            steps=state.step,
            best_step=state.best_step,
            best_score=state.best_score if state.best_score is not None else -math.inf,
            seconds=seconds,
            training_seconds=state.trained_s,
            pictures_per_s=state.num_pictures / max(state.trained_s, 1e-9),
            metrics=state.best_metrics,
            warnings=warnings,
        )

    def _ignored_settings(self) -> list[str]:
        run, device = self.config.run, self.ranks.device
        at_once = run.micro_batches_at_once
        ignored = []
        if at_once > 1 and device.type != "cpu":
            ignored.append(f"run.micro_batches_at_once is for CPUs: not used on {device}")
        elif at_once > 1 and self.ranks.size > 1:
            ignored.append(f"run.micro_batches_at_once is for one process: not used with {self.ranks.size}")
        elif at_once > run.batch_size // run.micro_batch_size:
            ignored.append(
                f"run.micro_batches_at_once={at_once}: a step of run.batch_size={run.batch_size} has "
                f"only {run.batch_size // run.micro_batch_size} micro-batches, so that many run side by side"
            )
        if run.sharding == "full" and self.ranks.size == 1:
            ignored.append("run.sharding=full is for several processes: not used with one")
        if self.config.method("tower") == "freeze" and self.features is None and self.config.data.kept_features_gib:
            ignored.append("the frozen tower's features are not kept: augmentation changes the pictures in every epoch")
        return ignored


SCHEDULE_TICKS = 10_000
PREFERENCES = "preferences.jsonl"


def _optimizer_bytes(optimizers: Sequence[torch.optim.Optimizer]) -> int:
    """What AdamW (two numbers per weight) and Muon (one) will take once they have state."""
    return sum(
        parameter.numel() * parameter.element_size() * (2 if isinstance(optimizer, torch.optim.AdamW) else 1)
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    )


def _go_on(out: Path) -> str:
    return f"go on with: appraiser train --resume --out {out}"


def _is_out_of_memory(error: BaseException) -> bool:
    """torch's CPU allocator raises a plain RuntimeError."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def _summary(window: Sequence[StepStats], seconds: float) -> dict[str, float]:
    parts = sorted({part for stats in window for part in stats.part_norms})
    extra = sorted({key for stats in window for key in stats.extra})
    return (
        {
            "train/loss": statistics.fmean(stats.loss for stats in window),
            "train/last_loss": window[-1].loss,
            "train/grad_norm": statistics.fmean(stats.grad_norm for stats in window),
            "train/learning_rate": window[-1].learning_rate,
            "train/tokens_per_step": statistics.fmean(stats.num_tokens for stats in window),
            "train/data_wait_share": sum(stats.data_wait_s for stats in window)
            / max(sum(stats.seconds for stats in window), 1e-9),
            "train/seconds": seconds,
        }
        | {f"train/grad_norm_{part}": statistics.fmean(s.part_norms.get(part, 0.0) for s in window) for part in parts}
        | {key: statistics.fmean(stats.extra.get(key, 0.0) for stats in window) for key in extra}
    )
