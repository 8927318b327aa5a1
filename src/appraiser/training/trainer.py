"""A run: begun or gone on with, trained step by step, validated, calibrated.

record ids in seeded order -> examples -> micro-batches -> summed loss -> one update per step
every eval_every steps: answers for a fixed validation sample -> score -> best checkpoint
"""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from appraiser.config import RunConfig
from appraiser.data.dataset import open_dataset
from appraiser.errors import AppraiserError, CheckpointError
from appraiser.training.gradients import step_gradients
from appraiser.training.preparation import mixed_prices
from appraiser.training.ranks import Ranks, join
from appraiser.training.resuming import begin_run, finish_run, resumed_run
from appraiser.training.run_state import StepStats
from appraiser.training.session import Session, TrainingPlan
from appraiser.training.step import take_step
from appraiser.training.stop_signals import RunStopped, StopSignals
from appraiser.training.tracking import Tracker
from appraiser.training.utilisation import matmul_rate, memory_gib


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
    with _said(out), join() as ranks, StopSignals() as stop, contextlib.ExitStack() as stack:
        data = open_dataset(config.data.dataset)
        resumed = None
        if not dry_run:
            opened = resumed_run if resume else begin_run
            resumed = stack.enter_context(opened(out, config, data, ranks))
        try:
            with _leaving_at_once(stop, ranks):
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
            return Loop(session, tracker, report, stop).run()


class Loop:
    """Takes a session from the step it stands at to its end."""

    def __init__(self, session: Session, tracker: Tracker, progress: Progress, stop: StopSignals) -> None:
        self.session, self.tracker, self.progress, self.stop = session, tracker, progress, stop
        self.config, self.state, self.ranks = session.config, session.state, session.ranks
        self.num_steps = session.num_steps
        dtype = torch.bfloat16 if self.config.computes_in_bfloat16 else torch.float32
        self.matmul_rate = matmul_rate(self.ranks.device, dtype)

    def run(self) -> RunSummary:
        """Train, validate, keep the best, calibrate it."""
        started, session = time.monotonic(), self.session
        session.keep_reference()
        session.see_pictures(lambda done, of: self.progress("see", {"done": done, "of": of}))
        self._train()
        try:
            with _leaving_at_once(self.stop, self.ranks):
                warning = session.calibrate()
        except RunStopped as error:
            where = f"{session.out}, trained and saved, not yet calibrated"
            raise RunStopped(error.number, where=where, fix=_go_on(session.out)) from None
        summary = self._summary(time.monotonic() - started, [mixed_prices(session.trained, session.data), warning])
        if self.ranks.is_first:
            self.tracker.finish(session.out / "best", self.state)
        if self.tracker.warning:
            summary.warnings.append(self.tracker.warning)
        if self.ranks.is_first:
            finish_run(session.out, {name: value for name, value in asdict(summary).items() if name != "out"})
        return summary

    def _train(self) -> None:
        run, state, session = self.config.run, self.state, self.session
        if not state.is_validated:
            self._validate()
        with step_gradients(self.config, session.replica, session.objective) as gradients, session.feed:
            while not state.is_over:
                done = self._share_done()
                stats = take_step(session, gradients, done)
                signal_number = self._remember(stats)
                if state.step % run.log_every == 0 or state.is_over:
                    self._log(done)
                is_due = state.step % run.eval_every == 0 or state.is_over
                state.is_validated = not is_due
                if signal_number:
                    raise self._stopped(signal_number)
                if is_due:
                    self._validate()
                elif run.save_every is not None and state.step % run.save_every == 0:
                    session.save()

    def _remember(self, stats: StepStats) -> int:
        """Count a step; returns the number of a signal that came to any rank, or 0."""
        run, state = self.config.run, self.state
        state.step += 1
        state.num_pictures += stats.num_pictures
        state.num_tokens += stats.num_tokens
        state.window.append(stats)
        # The clock and the signals of one rank count for all: they have to agree on what comes next.
        seconds = state.trained_s + stats.seconds
        state.trained_s, number = self.ranks.largest([seconds, float(self.stop.number or 0)])
        is_time = run.max_minutes is not None and state.trained_s >= 60 * run.max_minutes
        state.is_over = state.step == self.num_steps or is_time
        return int(number)

    def _share_done(self) -> float:
        """The share of the run that lies behind; a slower machine takes fewer steps, but ends its schedule."""
        run, state = self.config.run, self.state
        done = state.step / self.num_steps if self.num_steps else 0.0
        return done if run.max_minutes is None else max(done, state.trained_s / (60 * run.max_minutes))

    def _log(self, done: float) -> None:
        run, state = self.config.run, self.state
        numbers = _averages(state.window, state.trained_s) | {
            "train/epoch": state.step * run.batch_size / len(self.session.source),
            "train/pictures_per_s": state.num_pictures / max(state.trained_s, 1e-9),
            "train/tokens_per_s": state.num_tokens / max(state.trained_s, 1e-9),
        }
        device = self.ranks.device
        numbers["train/memory_gib"] = memory_gib(device)
        # Of this rank's own machine: ranks do equal work.
        work = statistics.fmean(stats.work for stats in state.window) / self.ranks.size
        seconds = statistics.fmean(stats.seconds for stats in state.window)
        numbers["train/matmul_share"] = work / seconds / self.matmul_rate
        self.tracker.log(state.step, numbers)
        numbers |= {"step": state.step, "done": 1.0 if state.is_over else done}
        self.progress("train", numbers | ({"of": self.num_steps} if self.num_steps else {}))
        state.window = []

    def _validate(self) -> None:
        """Score the fixed validation sample and save; a signal leaves it, to be done again."""
        state = self.state
        try:
            with _leaving_at_once(self.stop, self.ranks):
                validated = self.session.validation()
        except RunStopped as error:
            raise self._stopped(error.number) from None
        is_best = state.score(validated.scores, validated.score)
        patience = self.config.run.patience
        if patience is not None and state.without_gain >= patience and not state.is_over:
            state.is_over = state.is_hopeless = True
        self.tracker.log(state.step, validated.headline)
        self.tracker.log_samples(state.step, self.session.validation.samples(validated), validated.pictures)
        self.session.save(is_best=is_best)
        best = state.best_score if state.best_score is not None else -math.inf
        self.progress("eval", validated.headline | {"step": state.step, "score": validated.score, "best": best})

    def _stopped(self, number: int) -> RunStopped:
        """Save, and make the error that ends the run."""
        self.session.save()
        return RunStopped(
            number,
            where=f"{self.session.out}, saved after step {self.state.step}",
            fix=_go_on(self.session.out),
        )

    def _summary(self, seconds: float, possible: Sequence[str | None]) -> RunSummary:
        state, run = self.state, self.config.run
        warnings = [*(warning for warning in possible if warning), *state.warnings, *self._ignored_settings()]
        if state.is_hopeless:
            warnings.append(
                f"run.patience ended the run at step {state.step}: the best validation score is that of step "
                f"{state.best_step}"
            )
        elif self.num_steps and state.step < self.num_steps:
            warnings.append(
                f"run.max_minutes ended the run after {state.step} of {self.num_steps} steps, its schedule complete"
            )
        features = self.session.features
        if features is not None and features.num_unkept:
            warnings.append(
                f"data.kept_features_gib={self.config.data.kept_features_gib:g} was full: {features.num_unkept} times "
                "a picture was seen without being kept"
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
        if self.config.data.workers and not self.session.uses_workers:
            ignored.append("data.workers: preference pairs and kept features are not made by workers: not used")
        if run.sharding == "full" and self.ranks.size == 1:
            ignored.append("run.sharding=full is for several processes: not used with one")
        if (
            self.config.method("tower") == "freeze"
            and self.session.features is None
            and self.config.data.kept_features_gib
        ):
            ignored.append("the frozen tower's features are not kept: augmentation changes the pictures in every epoch")
        return ignored


@contextlib.contextmanager
def _said(out: Path) -> Iterator[None]:
    """What the system refuses, a full disk above all, in our words."""
    try:
        yield
    except OSError as error:
        if isinstance(error, AppraiserError):
            raise
        raise CheckpointError(
            f"the run cannot go on: {error.strerror or error}",
            where=str(error.filename or out),
            fix="make room or mend the disk, then go on with --resume; checkpoints are intact",
        ) from error


def _leaving_at_once(stop: StopSignals, ranks: Ranks) -> AbstractContextManager[None]:
    """Ranks that wait for each other have to reach the end together."""
    return stop.leaving_at_once() if ranks.size == 1 else contextlib.nullcontext()


def _go_on(out: Path) -> str:
    return f"go on with: appraiser train --resume --out {out}"


def _averages(window: Sequence[StepStats], seconds: float) -> dict[str, float]:
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
