"""transformers' Trainer takes the model as it is, and a resumed run ends with the weights of the uninterrupted one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import formula_picture, tiny_backbone
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments

from appraiser.backbone import Backbone
from appraiser.phi3_v import IGNORE_INDEX, Phi3VForConditionalGeneration

PROMPT = "<|user|>\n<|image_1|>\nPrice?<|end|>\n<|assistant|>\n"


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    # Dropout on: a resumed run has to restore the random state too.
    return tiny_backbone(tmp_path / "base", num_crops=2, resid_pdrop=0.1)


class Collator:
    """Rows of (text, picture) to one right-padded batch."""

    def __init__(self, backbone: Backbone) -> None:
        self.processor = backbone.processor

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        texts = [PROMPT + row["answer"] + "<|end|>" for row in rows]
        pictures = [formula_picture(*row["size"], number=row["number"]) for row in rows]
        batch = dict(self.processor(texts, pictures, return_tensors="pt", padding_side="right"))
        # Placeholders too: the model would not score them, but the Trainer counts every label that is not -100.
        left_out = (batch["attention_mask"] == 0) | (batch["input_ids"] < 0)
        return batch | {"labels": batch["input_ids"].masked_fill(left_out, IGNORE_INDEX)}


ROWS = [
    {"answer": "12.99 EUR", "size": (30, 30), "number": 1},
    {"answer": "5 EUR", "size": (60, 30), "number": 2},
    {"answer": "1290.00 EUR", "size": (20, 70), "number": 3},
    {"answer": "7.50 EUR, a Red Bag", "size": (50, 55), "number": 4},
] * 2


class StopAfter(TrainerCallback):
    """Ends the run early, as a kill between two steps would."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step >= self.steps


def trainer(backbone: Backbone, out: Path, stop_after: int | None = None) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=4,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        save_steps=2,
        logging_steps=1,
        report_to=[],
        remove_unused_columns=False,
        use_cpu=True,
        seed=3,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    model = Phi3VForConditionalGeneration.from_pretrained(backbone.name, dtype=torch.float32)
    callbacks = [StopAfter(stop_after)] if stop_after else []
    return Trainer(model, arguments, Collator(backbone), train_dataset=ROWS, callbacks=callbacks)


def test_two_steps_move_every_part_and_the_loss_is_finite(backbone: Backbone, tmp_path: Path) -> None:
    run = trainer(backbone, tmp_path / "run", stop_after=2)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.train()
    losses = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
    assert len(losses) == 2
    assert all(torch.isfinite(torch.tensor(losses)))
    after = run.model.state_dict()
    unmoved = {name for name, value in before.items() if torch.equal(after[name], value)}
    prefix = "model.vision_embed_tokens.img_processor.vision_model."
    assert unmoved == {name for name in before if name.startswith((f"{prefix}encoder.layers.2.", f"{prefix}post_"))}


def test_gradient_accumulation_divides_by_all_scored_tokens(backbone: Backbone, tmp_path: Path) -> None:
    run = trainer(backbone, tmp_path / "run")
    assert run.model_accepts_loss_kwargs, "the Trainer hands num_items_in_batch to the model's loss"


def test_a_resumed_run_ends_with_the_uninterrupted_weights(backbone: Backbone, tmp_path: Path) -> None:
    whole = trainer(backbone, tmp_path / "whole")
    whole.train()
    trainer(backbone, tmp_path / "cut", stop_after=2).train()
    resumed = trainer(backbone, tmp_path / "cut")
    fresh = {name: value.clone() for name, value in resumed.model.state_dict().items()}
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut/checkpoint-2"))
    assert resumed.state.global_step == 4
    expected = whole.model.state_dict()
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert not torch.equal(fresh["lm_head.weight"], expected["lm_head.weight"])
