"""What a run starts from: the base model with its parts trained, adapted or frozen, and the task of its data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from appraiser.adapters import attach_adapters, load_any
from appraiser.backbone import Backbone
from appraiser.config import RunConfig
from appraiser.data.dataset import ProductDataset
from appraiser.data.task import Task
from appraiser.errors import ConfigError
from appraiser.evaluation.metrics import is_closed
from appraiser.trained_task import TrainedTask
from appraiser.training.optim import part_of


def prepare_model(config: RunConfig, data: ProductDataset, device: torch.device | str = "cpu") -> Backbone:
    """The base model with the data set's crop budget, each part trained, adapted or frozen as the settings say.

    Weights that training changes are float32 whatever `model.dtype` is: bfloat16 loses small updates to rounding.

    Raises:
        ConfigError: more frozen layers than the tower has.
    """
    backbone = load_any(
        config.model.base,
        dtype=config.model.dtype,
        num_crops=config.model.num_crops or data.manifest.num_crops,
        attention=config.model.attention,
        device=device,
        quantize=config.model.quantize,
    )
    if config.parts_that("adapt"):
        backbone = attach_adapters(backbone, config.adapter, config.parts_that("adapt"))
    still = {id(parameter) for parameter in _frozen(config, backbone)}
    trained = config.parts_that("train")
    for name, parameter in backbone.model.named_parameters():
        is_adapter = "lora_" in name
        if not is_adapter:
            parameter.requires_grad_(part_of(name) in trained and id(parameter) not in still)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if config.model.gradient_checkpointing:
        backbone.network.gradient_checkpointing_enable()
        if config.parts_that("adapt"):
            backbone.network.enable_input_require_grads()
        for blocks in blocks_of(backbone):
            kept = round(len(blocks) * (1 - config.model.checkpointed_share))
            for block in blocks[:kept]:
                block.gradient_checkpointing = False
    if config.model.compile:
        for blocks in blocks_of(backbone):
            for block in blocks:
                block.compile()
    return backbone


def blocks_of(backbone: Backbone) -> tuple[list[Any], list[Any]]:
    """The blocks of the decoder, and those of the tower that are computed."""
    tower = backbone.network.model.vision_embed_tokens.img_processor.vision_model
    return list(backbone.network.model.layers), list(tower.encoder.layers[:-1])


def _frozen(config: RunConfig, backbone: Backbone) -> list[torch.nn.Parameter]:
    """Weights that stay as they are inside a part that is trained."""
    frozen, layers = config.model.frozen_tower_layers, backbone.config.clip_config["num_hidden_layers"]
    if frozen > layers:
        raise ConfigError(
            f"model.frozen_tower_layers is {frozen}, but the tower of {config.model.base} has {layers} layers",
            fix=f"set it to 0 (none of them) to {layers} (all)",
        )
    return [*backbone.unused_parameters(), *(backbone.lower_tower_parameters(frozen) if frozen else [])]


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
        base=config.model.base if config.parts_that("adapt") else None,
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
