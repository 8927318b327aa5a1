"""Training examples: kept while pictures stay the same, drawn anew in every epoch while they are augmented."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from appraiser.data.augmentation import Augmentation
from appraiser.data.examples import ExampleSource
from appraiser.data.pictures import encode
from appraiser.data.records import ProductRecord
from appraiser.data.task import Task
from tests.tiny import formula_picture, tiny_backbone


def source(folder: Path, augmentation: Augmentation, cache_bytes: int = 1 << 20) -> ExampleSource:
    records = [
        ProductRecord(str(n), (encode(formula_picture(40, 30, n), lossless=True),), f"g{n}", title="Red Bag")
        for n in range(3)
    ]
    return ExampleSource(
        records, tiny_backbone(folder), Task(("title",)), cache_bytes=cache_bytes, augmentation=augmentation
    )


def test_unchanged_pictures_are_kept_up_to_the_byte_budget(tmp_path: Path) -> None:
    generous, strict = source(tmp_path / "a", Augmentation()), source(tmp_path / "b", Augmentation(), cache_bytes=100)
    assert generous.draw(0, 1) is generous.draw(5, 1)
    assert strict.draw(0, 1) is not strict.draw(5, 1)
    assert torch.equal(strict.draw(0, 1).pictures[0].pixels, strict.draw(5, 1).pictures[0].pixels)


@pytest.mark.parametrize("augmentation", [Augmentation(mirror=True, seed=1), Augmentation(shift=0.2)])
def test_augmented_pictures_differ_by_epoch_and_nothing_else_does(tmp_path: Path, augmentation: Augmentation) -> None:
    examples = source(tmp_path, augmentation)
    draws = [examples.draw(epoch, 2) for epoch in range(6)]
    assert len({draw.pictures[0].pixels.numpy().tobytes() for draw in draws}) > 1
    assert len({(draw.input_ids, draw.labels, draw.pictures[0].size) for draw in draws}) == 1
    again = source(tmp_path / "again", augmentation).draw(4, 2)
    assert torch.equal(again.pictures[0].pixels, draws[4].pictures[0].pixels)
