"""One run in memory: model, examples, optimizer; made ready, checked, saved."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from appraiser.adapters import write_trained_parts
from appraiser.config import RunConfig
from appraiser.data.augmentation import Augmentation
from appraiser.data.batches import Batch
from appraiser.data.dataset import ProductDataset, share_of
from appraiser.data.examples import ExampleSource
from appraiser.data.pictures import decode
from appraiser.errors import CheckpointError, ConfigError
from appraiser.predict import Predictor
from appraiser.trained_task import write_task
from appraiser.training.calibration import calibrated
from appraiser.training.checkpoint import TRAINING, rewrite_task, save_checkpoint
from appraiser.training.feed import Feed, Source
from appraiser.training.gradients import autocast, step_gradients
from appraiser.training.kept_features import KeptFeatures
from appraiser.training.objectives import NextToken, Objective
from appraiser.training.optim import build_optimizers
from appraiser.training.optimizer_files import read_optimizers, write_optimizers
from appraiser.training.picture_workers import items_from
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
from appraiser.training.preparation import prepare_model, trained_task
from appraiser.training.ranks import Ranks
from appraiser.training.replica import Replica
from appraiser.training.resuming import Resumed
from appraiser.training.run_state import RunState
from appraiser.training.utilisation import StepWork
from appraiser.training.validation import Validation

PREFERENCES = "preferences.jsonl"


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
            features_anew=self.features.anew if self.features else None,
        )
        self.source, self.objective = self._ordinary() if config.dpo.pairs is None else self._preferences()
        self._check_batch_size()
        self.feed = Feed(
            self.source,
            config,
            self.ranks,
            last_step=self.num_steps,
            micro_batch_size=self.state.micro_batch_size,
            items_from=self._items_from if self.uses_workers else None,
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
        self.work = StepWork(self.backbone)
        self.validation = Validation(
            config, self.backbone, self.trained, data.split("train"), data.split("val"), self.ranks
        )

    @property
    def uses_workers(self) -> bool:
        """Pairs and kept features are made here: there is next to nothing to do ahead."""
        return self.config.data.workers > 0 and self.source is self.examples and self.features is None

    def _items_from(self, step: int) -> Iterator[list[Any]]:
        return items_from(step, self.num_steps, self.config, self.backbone, self.trained.task, self.ranks)

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
        cost = self._measured(batch)
        return TrainingPlan(
            num_records=len(self.source),
            num_steps=self.num_steps,
            num_trained=sum(parameter.numel() for parameter in self.replica.trained.values()),
            num_parameters=sum(parameter.numel() for parameter in self.backbone.network.parameters()),
            num_crops=self.backbone.num_crops,
            preflight=report,
            num_ranks=self.ranks.size,
            begins_at=self.state.step,
            cost=cost,
        )

    def _measured(self, batch: Batch) -> StepCost:
        """What a step takes; where memory does not suffice for its first micro-batch, in smaller ones."""
        with step_gradients(self.config, self.replica, self.objective) as gradients:
            while True:
                num_batches = -(-self.config.run.batch_size // (self.ranks.size * self.feed.micro_batch_size))
                try:
                    return measure_step(gradients, batch, num_batches, _optimizer_bytes(self.optimizers))
                except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                    if not self.can_make_room(error):
                        raise
                gradients.forget()
                self.make_room("before the first step")
                batch = self._checked_batch()

    def can_make_room(self, error: BaseException) -> bool:
        """Whether smaller micro-batches may help; ranks that wait for each other's gradients cannot begin again."""
        return _is_out_of_memory(error) and self.feed.micro_batch_size > 1 and self.ranks.size == 1

    def make_room(self, when: str) -> None:
        """Halve the micro-batches, and say so."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        before = self.feed.micro_batch_size
        self.feed.micro_batch_size = self.state.micro_batch_size = before // 2
        self.state.warnings.append(
            f"out of memory {when}: from here on micro-batches of {before // 2} instead of {before}; the batch of "
            f"{self.config.run.batch_size} and the loss are the same"
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

    def save(self, *, is_best: bool = False) -> None:
        """Publish a checkpoint of the present step."""
        weights = self.replica.weights()

        def write(folder: Path) -> None:
            if self.ranks.is_first:
                self.backbone.save(folder, weights)
                if self.config.parts_that("adapt"):
                    write_trained_parts(self.backbone, folder, weights)
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

    def calibrate(self) -> str | None:
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
        elif self.state.step:
            raise CheckpointError(
                f"{kept} is missing: the model has learned since its reference was taken",
                fix="put the file back, or train again under another --out",
            )
        else:
            with autocast(config, self.backbone.device):
                source.reference = reference_numbers(self.backbone, source, config.run.micro_batch_size)
        return source, DirectPreference(config.dpo.beta, config.dpo.sft_weight)

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
            found = mistakes(mine, [answer.text for answer in answers], task, self.config.dpo.near_price)
            return [pair for part in self.ranks.gather(found) for pair in part]
        return read_preferences(Path(pairs))

    def _kept_features(self) -> KeptFeatures | None:
        config = self.config
        is_possible = config.method("tower") == "freeze" and not (config.augment.mirror or config.augment.shift)
        if not is_possible or config.data.kept_features_gib == 0:
            return None
        folder = Path(config.data.features_folder or Path(config.data.dataset) / ".features")
        return KeptFeatures(folder, self.backbone, config, int(config.data.kept_features_gib * 2**30))

    def keep_reference(self) -> None:
        """Write pairs and reference beside the run, for when it goes on."""
        if isinstance(self.source, PairSource) and self.ranks.is_first:
            write_preferences(self.out / PREFERENCES, self.source)

    def see_pictures(self, progress: Callable[[int, int], None]) -> None:
        """Show a frozen tower the training pictures before the first step; ranks share the work."""
        if self.features is None:
            return
        total = len(self.source)
        wanted = total if self.num_steps is None else min(total, self.num_steps * self.config.run.batch_size)
        mine = range(self.ranks.rank, wanted, self.ranks.size)
        records = [self.source.records[self.feed.order.at(place)[1]] for place in mine]
        self.features.fill(records, lambda number: progress(number, len(records)))
        self.ranks.wait()

    def _check_batch_size(self) -> None:
        if self.config.run.batch_size % self.ranks.size:
            raise ConfigError(
                f"run.batch_size {self.config.run.batch_size} cannot be shared by {self.ranks.size} processes",
                fix="choose a multiple of their number",
            )


def _is_out_of_memory(error: BaseException) -> bool:
    """torch's CPU allocator raises a plain RuntimeError."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def _optimizer_bytes(optimizers: Sequence[torch.optim.Optimizer]) -> int:
    """What AdamW (two numbers per weight) and Muon (one) will take once they have state."""
    return sum(
        parameter.numel() * parameter.element_size() * (2 if isinstance(optimizer, torch.optim.AdamW) else 1)
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    )
