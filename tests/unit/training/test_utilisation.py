"""The work of a step, counted by hand."""

from __future__ import annotations

from pathlib import Path

import torch
from test_preferences import TASK, record
from tiny import tiny_backbone
from torch import nn

from appraiser.data.augmentation import Augmentation
from appraiser.data.examples import ExampleSource
from appraiser.training.preparation import blocks_of
from appraiser.training.utilisation import StepWork, matmul_rate, memory_gib


def linear_weights(modules: list[nn.Module]) -> int:
    return sum(m.weight.numel() for module in modules for m in module.modules() if isinstance(m, nn.Linear))


def test_full_training_is_six_operations_per_weight_and_row(tmp_path: Path) -> None:
    backbone = tiny_backbone(tmp_path / "model")
    source = ExampleSource([record(0), record(1)], backbone, TASK, cache_bytes=0, augmentation=Augmentation())
    batch = source.join([source.draw(0, 0), source.draw(0, 1)])
    decoder, tower = blocks_of(backbone)
    vision = backbone.network.model.vision_embed_tokens
    patches = backbone.config.clip_config["image_size"] // backbone.config.clip_config["patch_size"]
    num_views = 2  # each picture fills one crop, which is its own global view
    expected = 6 * (
        batch.num_tokens * linear_weights(decoder)
        + batch.num_supervised * linear_weights([backbone.network.lm_head])
        + int((batch.inputs["input_ids"] < 0).sum()) * linear_weights([vision.img_projection])
        + num_views * (patches**2 + 1) * linear_weights(tower)
    )
    assert StepWork(backbone).of(batch) == expected


def test_frozen_parts_cost_less(tmp_path: Path) -> None:
    backbone = tiny_backbone(tmp_path / "model")
    source = ExampleSource([record(0)], backbone, TASK, cache_bytes=0, augmentation=Augmentation())
    batch = source.join([source.draw(0, 0)])
    whole = StepWork(backbone).of(batch)
    for parameter in backbone.network.model.vision_embed_tokens.img_processor.parameters():
        parameter.requires_grad_(False)
    without_tower = StepWork(backbone).of(batch)
    for parameter in backbone.network.parameters():
        parameter.requires_grad_(False)
    assert StepWork(backbone).of(batch) * 3 == whole
    assert StepWork(backbone).of(batch) < without_tower < whole


def test_the_machine_is_measured() -> None:
    assert matmul_rate(torch.device("cpu"), torch.float32) > 1e8
    assert 0.01 < memory_gib(torch.device("cpu")) < 1000
