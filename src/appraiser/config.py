"""One frozen, typed object describes a run: defaults, then the recipe, then `--set section.key=value`.

Unknown keys are errors that suggest the nearest real one. The resolved config is saved in the run folder and is
enough to repeat the run.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from appraiser.errors import ConfigError

Part = Literal["decoder", "tower", "projector"]
PARTS: tuple[Part, ...] = ("decoder", "tower", "projector")
Method = Literal["train", "adapt", "freeze"]


class Section(BaseModel):
    """Frozen, unknown keys forbidden; attribute docstrings become help text."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class ModelConfig(Section):
    """Which model is fine-tuned."""

    base: str = "phi3v-tiny"
    """An embedded model, a folder in the published layout, or a Hub id."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights in memory and of the arithmetic. With bfloat16, frozen weights take half the memory, and trained
    ones (or adapters) stay float32. float16 is refused."""
    quantize: Literal["none", "nf4"] = "none"
    """nf4: the decoder's frozen matrices in 4 bits (QLoRA); needs the extra `qlora`."""
    attention: Literal["auto", "sdpa", "blocks", "eager", "flash_attention_2", "flex_attention"] = "auto"
    """auto: `blocks` on a CPU (exact, and faster there), `sdpa` elsewhere."""
    num_crops: PositiveInt | None = None
    """Crop budget; unset: the data set's own."""
    frozen_tower_layers: NonNegativeInt = 0
    """So many first layers of the tower, and its embeddings, keep their weights in full training: what they see is
    general, and their part of the backward pass falls away."""
    gradient_checkpointing: bool = False
    """Compute activations again instead of keeping them: about a third more time, far less memory."""
    checkpointed_share: PositiveFloat = Field(default=1.0, le=1.0)
    """Of the blocks, the share whose activations are computed again with gradient_checkpointing: less saves time where
    there is memory left."""
    compile: bool = False
    """Compile the blocks of tower and decoder (torch.compile): the first steps take minutes. For GPUs and long runs."""


class AdapterConfig(Section):
    """Low-rank adapters, or training of all weights."""

    kind: Literal["none", "lora", "dora"] = "lora"
    """none: all weights are trained, and the rest of this section has no effect. dora: LoRA with a trained length of
    every output row."""
    rank: PositiveInt = 32
    """Width of the low-rank update; memory and capacity grow linearly with it. 32: the published recipe for DocVQA."""
    alpha: PositiveFloat = 16.0
    """The update is scaled by alpha / rank. 16: as published."""
    dropout: NonNegativeFloat = 0.05
    """Share of an adapter's inputs that are set to zero in training."""


class PartsConfig(Section):
    """What happens to each part of the model: `train` all its weights, `adapt` it, or `freeze` it.

    Unset: adapted, or trained with adapter.kind=none. Freezing the tower cost 4.5 ANLS and 7 accuracy points in the
    published table, so all parts learn."""

    decoder: Method | None = None
    """The language model, its embeddings and its head."""
    tower: Method | None = None
    """The CLIP vision tower. Frozen, its features of every picture are computed once."""
    projector: Method | None = None
    """What lies between tower and decoder, and the two separators."""


class OptimConfig(Section):
    """Optimizer and schedule."""

    learning_rate: NonNegativeFloat = 2e-4
    """Peak rate; 2e-4 is the published recipe's for LoRA, 5e-6 to 5e-5 for full training of the real model."""
    tower_learning_rate: NonNegativeFloat | None = None
    """AdamW's rate of the tower; unset: the same. Matrices that Muon has are not touched by it."""
    projector_learning_rate: NonNegativeFloat | None = None
    """AdamW's rate of the projector; unset: the same."""
    muon_learning_rate: PositiveFloat | None = None
    """Rate of Muon for the matrices inside blocks; unset: AdamW for everything. Not for adapters."""
    tower_muon_learning_rate: PositiveFloat | None = None
    """Muon's rate of the tower; unset: the same. Its steps have a fixed size: smaller matrices need a lower one."""
    weight_decay: NonNegativeFloat = 0.0
    """Pull of weights towards zero; biases and norms are left out."""
    beta2: PositiveFloat = 0.999
    """Memory of AdamW's squared gradients: lower forgets faster, for short runs."""
    warmup_share: NonNegativeFloat = 0.03
    """Share of the steps in which the rate rises."""
    final_share: NonNegativeFloat = 0.0
    """Rate at the last step as a share of the peak."""
    max_grad_norm: PositiveFloat = 1.0
    """Longer gradients are scaled down to this norm."""


class DataConfig(Section):
    """What the model reads and answers."""

    dataset: str
    """Data set folder, as `appraiser build` makes it."""
    fields: tuple[str, ...] | None = None
    """Fields of the answer; unset: title, category and price, as far as the data set has them. `currency` before
    `price` where a data set has several."""
    language: Literal["en", "fr", "ru", "ro", "no", "ja"] = "en"
    """Of the question and of the names of the fields; decides what `1,290` means in an answer."""
    question: str | None = None
    """What is asked about the picture; unset: the language's own question."""
    max_tokens: PositiveInt = 8192
    """Longest row, picture tokens included; longer rows are refused, never cut."""
    train_share: PositiveFloat = Field(default=1.0, le=1.0)
    """Train on so much of the training products only, whole product groups: how much do more pictures bring?"""
    cache_mib: NonNegativeInt = 1024
    """Memory for processed training pictures (none are kept while they are augmented), and as much again for validation
    pictures."""
    workers: NonNegativeInt = 0
    """Processes that decode and process pictures ahead of the step; 0: a thread of this one. They keep no pictures."""
    kept_features_gib: NonNegativeFloat = 20.0
    """Disk for features of a frozen tower, computed once and used by later runs as well; 0: none are kept. Not with
    augmentation."""
    features_folder: str | None = None
    """Where they lie; unset: `.features` in the data set folder."""

    @field_validator("language", mode="before")
    @classmethod
    def _no_is_a_language(cls, value: object) -> object:
        return "no" if value is False else value  # YAML reads a bare `no` as false


class DpoConfig(Section):
    """Preference optimisation instead of ordinary fine-tuning; starts best from a run (`model.base=RUN`)."""

    pairs: str | None = None
    """A table of `image`, `chosen`, `rejected` (and `prompt`), or `mistakes`: the truth against the model's own wrong
    answers about training products. Unset: no DPO."""
    beta: PositiveFloat = 0.1
    """How far the model may leave its start: higher keeps it closer. 0.1: the method's paper."""
    sft_weight: NonNegativeFloat = 0.0
    """Weight of the chosen answer's own loss (nats per token) beside the preference, which alone lets the truth become
    less likely as long as the mistake does so faster. Source: arXiv:2404.19733."""
    most_mistakes: PositiveInt = 2000
    """Training products that the model is asked about for its mistakes, at most."""
    near_price: NonNegativeFloat = 0.0
    """Of `mistakes`: a price off by at most this share is no mistake. Prices hold noise that no picture shows."""


class AugmentConfig(Section):
    """Training pictures are a little different in every epoch; evaluation and prediction see them as they are."""

    mirror: bool = False
    """Mirror every other picture left to right. Not where writing or left and right matter."""
    shift: NonNegativeFloat = Field(default=0.0, le=0.5)
    """Move pictures by up to this share of their sides, the border repeated."""


class RunSettings(Section):
    """Length of the run, batch, evaluation."""

    out: str
    """Run folder; must not exist or be empty."""
    epochs: PositiveFloat | None = 2.0
    """Passes over the training records; unset: as many as max_minutes allows."""
    steps: PositiveInt | None = None
    """Number of optimizer steps; unset: from epochs."""
    max_minutes: PositiveFloat | None = None
    """Stop training after so many minutes of it; the schedule then follows the clock."""
    batch_size: PositiveInt = 16
    """Examples per optimizer step."""
    micro_batch_size: PositiveInt = 16
    """Examples per forward pass; the loss does not depend on it."""
    micro_batch_tokens: PositiveInt | None = None
    """Most tokens of a forward pass, padding included; unset: micro_batch_size alone decides."""
    packing: bool = False
    """Put the examples of a micro-batch behind each other in one row instead of padding them to one length; none sees
    another. Saves work where lengths differ."""
    micro_batches_at_once: PositiveInt = 1
    """Micro-batches computed side by side, each on a CPU core of its own: for models so small that one operation cannot
    fill several cores."""
    autocast: bool = False
    """Compute in bfloat16 on float32 weights."""
    eval_every: PositiveInt = 100
    """Steps between validations by generation; the best checkpoint is chosen by their score."""
    eval_records: PositiveInt = 128
    """Validation records that are generated, the same ones every time."""
    save_every: PositiveInt | None = None
    """Steps between checkpoints, beside those at every validation; unset: only there."""
    keep_last: PositiveInt = 2
    """Checkpoints kept beside the best one."""
    patience: PositiveInt | None = None
    """End the run after so many validations in a row without a better score; unset: never."""
    log_every: PositiveInt = 10
    """Steps between lines of metrics.jsonl."""
    seed: NonNegativeInt = 0
    """Of the order of records and of adapters' first weights."""
    num_threads: PositiveInt | None = None
    """Threads of torch; unset: torch's own choice."""
    sharding: Literal["none", "full"] = "none"
    """On several devices (torchrun). none: each holds the whole model (DDP); full: each holds a share of weights and
    optimizer (FSDP2)."""


class TrackingConfig(Section):
    """W&B gets the settings and numbers of a run, ten validation pictures with their answers, and the best model.
    wandb adds host name, command line, paths, installed packages and machine load. Only `online` sends anything."""

    wandb: Literal["offline", "online", "off"] = "offline"
    project: str = "appraiser"
    """Name of the W&B project."""

    @field_validator("wandb", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: object) -> object:
        return "off" if value is False else value  # YAML reads a bare `off` as false


class RunConfig(Section):
    """Everything about a run; only `data.dataset` and `run.out` have no default."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    adapter: AdapterConfig = Field(default_factory=AdapterConfig)
    parts: PartsConfig = Field(default_factory=PartsConfig)
    optim: OptimConfig = Field(default_factory=OptimConfig)
    data: DataConfig
    dpo: DpoConfig = Field(default_factory=DpoConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    run: RunSettings
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)

    def method(self, part: Part) -> Method:
        """What happens to a part of the model."""
        return getattr(self.parts, part) or ("train" if self.adapter.kind == "none" else "adapt")

    def parts_that(self, method: Method) -> tuple[Part, ...]:
        """The parts with this method."""
        return tuple(part for part in PARTS if self.method(part) == method)

    @property
    def computes_in_bfloat16(self) -> bool:
        """Whether the arithmetic is bfloat16 (norms, softmax and loss stay float32)."""
        return self.run.autocast or self.model.dtype == "bfloat16"

    @model_validator(mode="after")
    def _fits_together(self) -> RunConfig:
        problems = list(self._problems())
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        run, optim = self.run, self.optim
        if run.epochs is None and run.steps is None and run.max_minutes is None:
            yield "run.epochs, run.steps and run.max_minutes are all unset: the run would never end"
        if run.batch_size % run.micro_batch_size:
            yield f"run.batch_size {run.batch_size} is not a multiple of run.micro_batch_size {run.micro_batch_size}"
        if run.micro_batches_at_once > 1 and self.parts_that("adapt") and self.adapter.dropout:
            yield (
                "run.micro_batches_at_once needs adapter.dropout=0: side by side, the random numbers would fall "
                "differently in every run"
            )
        if optim.learning_rate == 0:
            yield "optim.learning_rate is 0: nothing would be learned"
        if len(self.parts_that("freeze")) == len(PARTS):
            yield "parts: all three are frozen: nothing would be trained"
        if self.adapter.kind == "none" and self.parts_that("adapt"):
            yield (
                f"parts.{self.parts_that('adapt')[0]}=adapt, but adapter.kind is none: set adapter.kind=lora or dora"
            )
        if optim.muon_learning_rate is not None and not self.parts_that("train"):
            yield "optim.muon_learning_rate has no effect on adapters: unset it, or set adapter.kind=none"
        if optim.muon_learning_rate is not None and run.sharding == "full":
            yield "optim.muon_learning_rate needs whole matrices: unset it, or set run.sharding=none"
        if self.model.frozen_tower_layers and self.method("tower") != "train":
            yield (
                "model.frozen_tower_layers has no effect on a tower that is adapted or frozen: set it to 0, or set "
                "parts.tower=train"
            )
        if optim.muon_learning_rate is None and optim.tower_muon_learning_rate is not None:
            yield "optim.tower_muon_learning_rate has no effect without optim.muon_learning_rate"
        rates: dict[Part, float | None] = {
            "tower": optim.tower_learning_rate,
            "projector": optim.projector_learning_rate,
        }
        for part, rate in rates.items():
            if rate is not None and self.method(part) == "freeze":
                yield f"optim.{part}_learning_rate has no effect: parts.{part} is freeze"
        if self.model.dtype == "float16":
            yield (
                "model.dtype=float16 is refused: its gradients vanish below 6e-8 unless the loss is scaled, which is "
                "not done here. Set bfloat16, or float32 where the GPU has no bfloat16"
            )
        if self.model.quantize == "nf4" and self.method("decoder") == "train":
            yield "model.quantize=nf4 freezes the decoder's matrices: set parts.decoder=adapt or freeze"
        if self.model.quantize == "nf4" and run.sharding == "full":
            yield "model.quantize=nf4 cannot be sharded here: set run.sharding=none"


def load_config(recipe: str | Path | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """Defaults, then a recipe by name (`lora-24gb`) or path, then `section.key=value` overrides.

    `data.dataset` and `run.out` have no default: give them in the recipe or as overrides.

    Raises:
        ConfigError: no such recipe, unreadable file, unknown key or bad value; all problems at once.
    """
    settings: dict[str, Any] = _read_recipe(recipe) if recipe is not None else {}
    for override in overrides:
        _apply(settings, override)
    return config_from(settings, str(recipe) if recipe else "settings")


def config_from(settings: Mapping[str, Any], where: str) -> RunConfig:
    """Validate a nested dict of settings."""
    try:
        return RunConfig.model_validate(settings)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]
        raise ConfigError("\n".join(problems), where=where, fix="see docs/config.md for every setting") from None


def _explain(problem: Mapping[str, Any]) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(path, known_settings(), n=1, cutoff=0.3)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        return f"unknown setting {path}{hint}"
    if problem["type"] == "missing":
        return f"{path} is required and not set"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{path}: {message}, got {problem['input']!r}" if path else message


def known_settings() -> list[str]:
    """Every `section.key`."""
    return [
        f"{section}.{key}"
        for section, field in RunConfig.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        for key in field.annotation.model_fields
    ]


def recipe_names() -> list[str]:
    """Recipes that come with the package, as the command line names them."""
    folder = files("appraiser") / "recipes"
    return sorted(
        entry.name.removesuffix(".yaml").replace("_", "-") for entry in folder.iterdir() if entry.name.endswith(".yaml")
    )


def _read_recipe(recipe: str | Path) -> dict[str, Any]:
    name = str(recipe)
    if name in recipe_names():
        text = (files("appraiser") / "recipes" / f"{name.replace('-', '_')}.yaml").read_text(encoding="utf-8")
        suffix = ".yaml"
    else:
        path = Path(recipe)
        if not path.is_file():
            raise ConfigError(
                f"no recipe {name!r}",
                fix=f"use one of {', '.join(recipe_names())}, or the path of a YAML or TOML file",
            )
        try:
            text, suffix = path.read_text(encoding="utf-8"), path.suffix.lower()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"recipe {name} cannot be read: {error}", fix="write it as UTF-8 text") from None
    try:
        loaded = tomllib.loads(text) if suffix == ".toml" else yaml.safe_load(text)
    except (yaml.YAMLError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"recipe {name} cannot be read: {error}", fix="mend its syntax") from None
    if not isinstance(loaded, dict):
        raise ConfigError(f"recipe {name} holds no settings", fix="write sections such as `run:` with keys below")
    return loaded


def _apply(settings: dict[str, Any], override: str) -> None:
    """Put one `section.key=value` into nested settings; the value is read as YAML."""
    path, equals, text = override.partition("=")
    section, dot, key = path.strip().partition(".")
    if not (equals and section and dot and key):
        raise ConfigError(f"cannot read --set {override!r}", fix="write --set section.key=value, e.g. run.epochs=3")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"cannot read the value of --set {override!r}: {error}", fix="quote it") from None
    current = settings.get(section) or {}  # a section without a key is None in YAML
    if not isinstance(current, dict):
        raise ConfigError(f"{section!r} is no section", fix="write --set section.key=value")
    settings[section] = current | {key: value}


def save_config(config: RunConfig, path: Path) -> None:
    """Write the resolved config as YAML; `load_config(path)` gives it back."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")
