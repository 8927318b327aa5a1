"""TRL's SFTTrainer and DPOTrainer take model, processor, messages and pictures as they are.

`max_length=None` everywhere: TRL's default of 1024 would cut image tokens, which the processor refuses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from tiny import formula_picture, tiny_backbone
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from appraiser.adapters import attach_adapters
from appraiser.backbone import IGNORE_INDEX, Backbone
from appraiser.config import AdapterConfig
from appraiser.data.augmentation import Augmentation
from appraiser.data.examples import ExampleSource
from appraiser.data.pictures import encode
from appraiser.data.records import ProductRecord
from appraiser.data.task import Task
from appraiser.phi3_v import Phi3VForConditionalGeneration, Phi3VProcessor
from appraiser.training.preferences import DirectPreference, PairSource, mistakes, reference_numbers

# PEFT 0.21 and TRL 1.16 use names that transformers 5.23 calls old.
pytestmark = pytest.mark.filterwarnings("ignore:`.*gradient_checkpointing.*` is deprecated:FutureWarning")

COMMON = {
    "max_length": None,
    "per_device_train_batch_size": 2,
    "logging_steps": 1,
    "report_to": [],
    "use_cpu": True,
    "bf16": False,
    "seed": 0,
    "disable_tqdm": True,
    "save_strategy": "no",
    "dataloader_pin_memory": False,
    "activation_checkpointing": False,
}
PROMPT = "<|user|>\n<|image_1|>Price?<|end|>\n<|assistant|>\n"
TOWER = "model.vision_embed_tokens.img_processor.vision_model.encoder.layers.0.mlp.fc1.weight"


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    return tiny_backbone(tmp_path / "base", num_crops=2)


def asked(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]


def answered(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]


PICTURES = [
    formula_picture(30, 40, 1),
    formula_picture(70, 20, 2),
    formula_picture(28, 28, 3),
    formula_picture(20, 60, 4),
]
ANSWERS = ["Red Bag, 12 EUR", "Bag, 5 EUR", "item", "The Price is 1290.00 EUR"]


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


class TowerGradient:
    """Largest gradient entry that a parameter of the tower has ever had."""

    def __init__(self, model: torch.nn.Module, ending: str) -> None:
        self.largest = 0.0
        [parameter] = [value for name, value in model.named_parameters() if name.endswith(ending)]
        parameter.register_hook(self.see)

    def see(self, gradient: torch.Tensor) -> None:
        self.largest = max(self.largest, gradient.abs().max().item())


def sft_trainer(backbone: Backbone, out: Path, rows: list[dict[str, Any]], **changes: Any) -> SFTTrainer:
    arguments = SFTConfig(output_dir=str(out), max_steps=2, learning_rate=1e-2, **(COMMON | changes))
    return SFTTrainer(
        model=backbone.model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=backbone.processor,
    )


def assert_learns(trainer: SFTTrainer) -> None:
    seen = TowerGradient(trainer.model, TOWER)
    trainer.train()
    first, second = losses(trainer)
    assert second < first
    assert seen.largest > 0, "the picture takes part in the loss"


CONVERSATIONS = [
    {"messages": asked("Price?") + answered(answer), "images": [picture]}
    for answer, picture in zip(ANSWERS, PICTURES, strict=True)
]
PAIRS = [
    {"prompt": asked("Price?"), "completion": answered(answer), "images": [picture]}
    for answer, picture in zip(ANSWERS, PICTURES, strict=True)
]


def test_sft_trainer_learns_from_messages_with_pictures(backbone: Backbone, tmp_path: Path) -> None:
    # One batch of all rows, so that both steps see the same.
    assert_learns(sft_trainer(backbone, tmp_path, CONVERSATIONS, per_device_train_batch_size=4))


def test_sft_trainer_learns_from_prompts_and_completions(backbone: Backbone, tmp_path: Path) -> None:
    assert_learns(sft_trainer(backbone, tmp_path, PAIRS, per_device_train_batch_size=4))


def test_both_stop_tokens_survive_the_trainer(backbone: Backbone, tmp_path: Path) -> None:
    # The Trainer adds the tokenizer's eos to the model's; an answer must still end on <|end|> after reloading.
    trainer = sft_trainer(backbone, tmp_path / "run", PAIRS)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    saved = Phi3VForConditionalGeneration.from_pretrained(tmp_path / "saved")
    assert set(saved.generation_config.eos_token_id) >= set(backbone.stop_token_ids)
    assert saved.config.answer_stop_ids == backbone.stop_token_ids
    reloaded = Phi3VProcessor.from_pretrained(tmp_path / "saved")
    batch = [processor(PROMPT, PICTURES[1], return_tensors="pt") for processor in (reloaded, backbone.processor)]
    assert torch.equal(batch[0]["input_ids"], batch[1]["input_ids"])
    assert torch.equal(batch[0]["pixel_values"], batch[1]["pixel_values"])


def test_sft_trainer_scores_the_completion_only(backbone: Backbone, tmp_path: Path) -> None:
    trainer = sft_trainer(backbone, tmp_path, PAIRS)
    batch = trainer.data_collator([dict(row) for row in trainer.train_dataset.select(range(2))])
    scored = [row[row != -100].tolist() for row in batch["labels"]]
    assert scored == [backbone.completion_ids(answer, ends_text=False) for answer in ANSWERS[:2]]
    assert (batch["input_ids"] < 0).any()


def test_sft_trainer_learns_from_the_assistants_turns_only(backbone: Backbone, tmp_path: Path) -> None:
    trainer = sft_trainer(backbone, tmp_path, CONVERSATIONS, per_device_train_batch_size=4, assistant_only_loss=True)
    batch = trainer.data_collator([dict(row) for row in trainer.train_dataset])
    scored = [row[row != -100].tolist() for row in batch["labels"]]
    assert scored == [backbone.completion_ids(answer, ends_text=False) for answer in ANSWERS]
    assert_learns(trainer)


def test_dpo_trainer_learns_from_preferences_with_pictures(backbone: Backbone, tmp_path: Path) -> None:
    rows = [
        {"prompt": asked("Price?"), "chosen": answered(answer), "rejected": answered("a"), "images": [picture]}
        for answer, picture in zip(ANSWERS, PICTURES, strict=True)
    ]
    arguments = DPOConfig(output_dir=str(tmp_path / "run"), max_steps=2, learning_rate=1e-2, beta=0.1, **COMMON)
    targets = r".*layers\.\d+\.(self_attn\.qkv_proj|mlp\.fc1)|.*img_projection\.0"
    trainer = DPOTrainer(
        model=backbone.model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=backbone.processor,
        peft_config=LoraConfig(r=4, target_modules=targets),
    )
    seen = TowerGradient(trainer.model, "encoder.layers.0.mlp.fc1.lora_B.default.weight")
    trainer.train()
    found = losses(trainer)
    assert found[0] == pytest.approx(0.6931, abs=1e-3), "policy and reference are the same at the start"
    assert torch.isfinite(torch.tensor(found)).all()
    assert seen.largest > 0


def test_our_preference_loss_equals_dpo_trainers_on_the_same_batch(tmp_path: Path) -> None:
    """Same rows, same pictures, adapters that say something; both references are the model before they did."""
    folder = tmp_path / "base"
    adapted = attach_adapters(
        tiny_backbone(folder, num_crops=2), AdapterConfig(rank=4, dropout=0.0), ("decoder", "tower", "projector")
    )
    records = [
        ProductRecord(
            str(number), (encode(picture, lossless=True),), group=str(number), title=answer, price=10.0 + number
        )
        for number, (answer, picture) in enumerate(zip(ANSWERS, PICTURES, strict=True))
    ]
    task = Task(("title", "price"))
    wrong = ["Product: x, Full Price: 1", "", "Product: Red Bag, Full Price: 12", "no"]
    examples = ExampleSource(records, adapted, task, cache_bytes=0, augmentation=Augmentation())
    source = PairSource(mistakes(records, wrong, task), adapted, task, examples)
    adapted.model.eval()
    source.reference = reference_numbers(adapted, source, 4)
    arguments = DPOConfig(output_dir=str(tmp_path / "run"), max_steps=1, beta=0.3, **COMMON)
    rows = [
        {"prompt": asked("Price?"), "chosen": answered("a"), "rejected": answered("b"), "images": [PICTURES[0]]}
        for _ in range(4)
    ]
    trainer = DPOTrainer(
        model=adapted.model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=adapted.processor,
    )
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in adapted.model.named_parameters():
            if "lora_B.default" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    batch = source.join([source.draw(0, position) for position in range(4)])
    loss, numbers = DirectPreference(0.3).loss(adapted.model, batch, 4)
    order = [0, 2, 4, 6, 1, 3, 5, 7]  # theirs: all chosen rows, then all rejected ones
    pixels = batch.inputs["pixel_values"][order]
    theirs = {key: batch.inputs[key][order] for key in ("input_ids", "attention_mask")} | {
        "completion_mask": (batch.labels[order] != IGNORE_INDEX).long(),
        "pixel_values": pixels,
        "image_sizes": batch.inputs["image_sizes"][order],
    }
    trainer.model.eval()
    expected = trainer.compute_loss(trainer.model, theirs)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert abs(float(loss.detach()) - 0.6931) > 0.01
    logged = trainer._metrics["eval"]
    assert numbers["rewards/margins"] == pytest.approx(logged["rewards/margins"][0], rel=1e-4)
    assert numbers["rewards/accuracies"] == pytest.approx(logged["rewards/accuracies"][0])
