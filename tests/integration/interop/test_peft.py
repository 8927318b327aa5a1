"""PEFT takes the model as it is: adapters on decoder, tower and projector train, save, reload and merge."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny import formula_picture, tiny_backbone
from torch import Tensor

from appraiser.backbone import Backbone
from appraiser.phi3_v import Phi3VForConditionalGeneration

# PEFT 0.21 asks the model by the name that transformers 5.23 calls old.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

PROMPT = "<|user|>\n<|image_1|>\nWhat is this?<|end|>\n<|assistant|>\n"
# Every linear layer of decoder, tower (all blocks that are computed) and projector.
TARGETS = (
    r".*model\.layers\.\d+\.(self_attn\.(qkv_proj|o_proj)|mlp\.(gate_up_proj|down_proj))"
    r"|.*encoder\.layers\.[01]\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])"
    r"|.*img_projection\.[02]"
)


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    return tiny_backbone(tmp_path / "base", num_crops=2)


def example(backbone: Backbone) -> dict[str, Tensor]:
    inputs = dict(backbone.processor(PROMPT + "Red Bag", [formula_picture(40, 50)], return_tensors="pt"))
    return inputs | {"labels": inputs["input_ids"].clone()}


def two_steps(model: PeftModel, inputs: dict[str, Tensor]) -> list[float]:
    model.train()
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    losses = []
    for _ in range(2):
        loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    return losses


def test_lora_trains_saves_reloads_and_merges(backbone: Backbone, tmp_path: Path) -> None:
    inputs = example(backbone)
    torch.manual_seed(0)
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    model = get_peft_model(backbone.model, LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS))
    adapted = {name.split(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A" in name}
    assert len(adapted) == 2 * 4 + 2 * 6 + 2
    first, second = two_steps(model, inputs)
    assert second < first
    moved = [name for name, value in model.named_parameters() if "lora_B" in name and value.abs().max() > 0]
    assert len(moved) == len(adapted), "the gradient reaches every adapter, the tower's too"
    with torch.no_grad():
        attached = model(**inputs).logits

    model.save_pretrained(tmp_path / "adapter")
    assert {path.name for path in (tmp_path / "adapter").iterdir()} >= {
        "adapter_model.safetensors",
        "adapter_config.json",
    }
    base = Phi3VForConditionalGeneration.from_pretrained(tmp_path / "base", dtype=torch.float32)
    reloaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    with torch.no_grad():
        assert torch.equal(reloaded(**inputs).logits, attached)

    merged = reloaded.merge_and_unload()
    with torch.no_grad():
        # W + BA is rounded once instead of adding two products; logits here reach 8, measured 2.7e-5 or 3.4e-6 of that.
        difference = (merged(**inputs).logits - attached).abs().max()
        assert difference < 1e-5 * attached.abs().max()
    assert type(merged) is Phi3VForConditionalGeneration
    assert merged.state_dict().keys() == before.keys()
    merged.save_pretrained(tmp_path / "merged")
    again = Phi3VForConditionalGeneration.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, merged(**inputs).logits)


def test_a_lora_model_generates_and_disables(backbone: Backbone) -> None:
    inputs = example(backbone)
    labels = inputs.pop("labels")
    with torch.no_grad():
        base = backbone.model(**inputs).logits
    torch.manual_seed(0)
    model = get_peft_model(backbone.model, LoraConfig(r=4, target_modules=TARGETS))
    two_steps(model, inputs | {"labels": labels})
    answer = model.generate(**inputs, max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert answer.shape == (1, inputs["input_ids"].shape[1] + 4)
    with torch.no_grad(), model.disable_adapter():
        assert torch.equal(model(**inputs).logits, base)


def test_checkpointing_with_frozen_embeddings_reaches_the_first_adapter(backbone: Backbone) -> None:
    # PEFT makes the embeddings' output require a gradient; features are placed there without an in-place write.
    inputs = example(backbone)
    torch.manual_seed(0)
    model = get_peft_model(backbone.model, LoraConfig(r=4, target_modules=TARGETS)).train()
    model.enable_input_require_grads()
    grads = []
    for checkpointing in (False, True):
        if checkpointing:
            backbone.model.activation_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        model(**inputs, use_cache=False).loss.backward()
        grads.append({name: value.grad for name, value in model.named_parameters() if value.requires_grad})
    for name, value in grads[0].items():
        assert value is not None, name
        assert torch.allclose(grads[1][name], value, rtol=1e-5, atol=1e-7), name


def test_modules_to_save_wraps_the_projector(backbone: Backbone, tmp_path: Path) -> None:
    inputs = example(backbone)
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["qkv_proj"], modules_to_save=["img_projection"])
    model = get_peft_model(backbone.model, config)
    two_steps(model, inputs)
    model.save_pretrained(tmp_path / "adapter")
    base = Phi3VForConditionalGeneration.from_pretrained(tmp_path / "base", dtype=torch.float32)
    reloaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    with torch.no_grad():
        assert torch.equal(reloaded(**inputs).logits, model(**inputs).logits)
