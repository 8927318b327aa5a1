"""Micro-batches side by side give what they give one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from appraiser.config import RunConfig
from appraiser.data.batches import Batch, collate
from appraiser.data.examples import training_example, views_of
from appraiser.data.records import ProductRecord
from appraiser.data.task import Task
from appraiser.training.gradients import step_gradients
from tests.tiny import formula_picture, tiny_backbone


def config(**run: object) -> RunConfig:
    return RunConfig.model_validate(
        {"data": {"dataset": "unused"}, "run": {"out": "unused"} | run, "adapter": {"kind": "none"}}
    )


def gradients_of(folder: Path, at_once: int) -> tuple[float, dict[str, torch.Tensor]]:
    backbone = tiny_backbone(folder)
    for parameter in backbone.unused_parameters():
        parameter.requires_grad_(False)
    task = Task(("title", "price"))
    batches: list[Batch] = []
    for size in (1, 3, 2):
        examples = []
        for number in range(size):
            record = ProductRecord(
                str(number), (), group=str(number), title=f"Bag {number}" * (number + 1), price=100.0 + number
            )
            pictures = views_of([formula_picture(40, 40 + 9 * number, number)], backbone)
            examples.append(training_example(backbone, task, record, pictures, 512))
        batches.append(collate(examples, backbone))
    with step_gradients(config(micro_batches_at_once=at_once), backbone) as gradients:
        loss = gradients(batches).loss
    named = {name: p.grad for name, p in backbone.model.named_parameters() if p.grad is not None}
    return loss, named


def test_side_by_side_equals_one_after_the_other(tmp_path: Path) -> None:
    loss, expected = gradients_of(tmp_path / "a", 1)
    for at_once in (2, 3):
        same_loss, found = gradients_of(tmp_path / f"b{at_once}", at_once)
        assert same_loss == pytest.approx(loss, rel=1e-6)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-7, msg=name)


def test_side_by_side_repeats_itself_to_the_bit(tmp_path: Path) -> None:
    runs = [gradients_of(tmp_path / str(number), 3) for number in range(3)]
    for loss, gradients in runs[1:]:
        assert loss == runs[0][0]
        assert all(torch.equal(gradient, runs[0][1][name]) for name, gradient in gradients.items())


def test_random_numbers_cannot_be_drawn_side_by_side() -> None:
    with pytest.raises(ValueError, match=r"adapter\.dropout=0"):
        RunConfig.model_validate(
            {
                "data": {"dataset": "unused"},
                "run": {"out": "unused", "micro_batches_at_once": 2},
                "adapter": {"kind": "lora", "dropout": 0.05},
            }
        )
