"""Planted mistakes are refused before step 1."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_backbone

from appraiser.backbone import IGNORE_INDEX, Backbone
from appraiser.data.batches import Example
from appraiser.data.examples import training_example
from appraiser.data.pictures import encode
from appraiser.data.records import ProductRecord
from appraiser.data.task import Task
from appraiser.errors import ConfigError, DataError
from appraiser.training.preflight import preflight


def record(number: int) -> ProductRecord:
    pixels = np.random.default_rng(number).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    data = encode(Image.fromarray(pixels), lossless=True)
    return ProductRecord(str(number), (data,), "g", title="Red Bag", category="BAGS", price=120.0)


def example(backbone: Backbone, number: int) -> Example:
    from appraiser.data.pictures import decode

    one = record(number)
    return training_example(backbone, Task(), one, [backbone.views(decode(one.images[0]))], 4096)


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    return tiny_backbone(tmp_path / "model")


def test_a_healthy_model_passes_and_is_described(backbone: Backbone) -> None:
    for parameter in backbone.unused_parameters():
        parameter.requires_grad_(False)
    report = preflight(backbone, example(backbone, 1), example(backbone, 2))
    assert report.logit_change > 0
    assert set(report.gradient_norms) == {"decoder", "projector", "tower"}
    assert report.supervised_text.startswith("Product: Red Bag, Category: BAGS, Full Price: 120<|end|>")


def test_a_blind_model_is_refused(backbone: Backbone) -> None:
    network = backbone.network.model
    with torch.no_grad():  # whatever the tower says, the projector answers zero
        network.vision_embed_tokens.img_projection[2].weight.zero_()
        network.vision_embed_tokens.img_projection[2].bias.zero_()
    with pytest.raises(ConfigError, match="does not see the picture"):
        preflight(backbone, example(backbone, 1), example(backbone, 2))


def test_a_tower_without_gradient_is_refused(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = backbone.network.model.vision_embed_tokens.img_processor.vision_model
    forward = tower.forward
    monkeypatch.setattr(tower, "forward", lambda crops: forward(crops).detach())
    with pytest.raises(ConfigError, match="no gradient arrives in: tower"):
        preflight(backbone, example(backbone, 1), example(backbone, 2))


def test_labels_all_masked_are_refused(backbone: Backbone) -> None:
    one = example(backbone, 1)
    masked = replace(one, labels=(IGNORE_INDEX,) * len(one.labels))
    with pytest.raises(ConfigError, match="no token of the answer is supervised"):
        preflight(backbone, masked, example(backbone, 2))


def test_pictures_of_equal_pixels_are_told_apart_by_inverting_them(backbone: Backbone) -> None:
    one = example(backbone, 1)
    assert preflight(backbone, one, one).logit_change > 0


def test_a_row_that_is_too_long_is_refused_not_cut(backbone: Backbone) -> None:
    one = record(1)
    from appraiser.data.pictures import decode

    with pytest.raises(DataError, match=r"needs \d+ tokens, the limit is 20"):
        training_example(backbone, Task(), one, [backbone.views(decode(one.images[0]))], 20)
