"""Low-rank adapters through PEFT: attach, and load again in the PEFT file format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from appraiser.backbone import Backbone, first_line, load
from appraiser.config import AdapterConfig
from appraiser.errors import CheckpointError

TRAINED_PARTS = "trained_parts.safetensors"
"""Weights of the base model that were trained in full beside adapters (`parts.projector=train`), by published name."""


def target_modules(parts: Sequence[str], num_tower_layers: int) -> str:
    """Regular expression of the linear layers that get an adapter, as PEFT matches it against whole names.

    The tower's last block is left out: it is never computed.
    """
    tower = "|".join(str(layer) for layer in range(num_tower_layers - 1))
    patterns = {
        "decoder": r"model\.layers\.\d+\.(self_attn\.(qkv_proj|o_proj)|mlp\.(gate_up_proj|down_proj))",
        "tower": rf".*\.encoder\.layers\.({tower})\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])",
        "projector": r".*\.img_projection\.[02]",
    }
    return "|".join(f"({patterns[part]})" for part in parts)


def attach_adapters(backbone: Backbone, config: AdapterConfig, parts: Sequence[str]) -> Backbone:
    """The backbone with trainable adapters on `parts` and everything else frozen."""
    layers = backbone.config.clip_config["num_hidden_layers"]
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=target_modules(parts, layers),
        use_dora=config.kind == "dora",
        bias="none",
    )
    return Backbone(backbone.processor, backbone.name, get_peft_model(backbone.model, lora))


def load_adapted(folder: Path, base: str, *, dtype: str = "float32", device: Any = "cpu") -> Backbone:
    """Base model with the adapter of `folder` on it, and the adapter's own processor settings.

    Raises:
        CheckpointError: base or adapter is missing or damaged.
    """
    backbone = load(base, dtype=dtype, device=device)
    try:
        read_trained_parts(backbone, folder)
        model = PeftModel.from_pretrained(backbone.model, str(folder))
        processor = type(backbone.processor).from_pretrained(folder)
    except Exception as error:  # PEFT and safetensors raise many kinds; all mean a damaged adapter
        raise CheckpointError(
            f"cannot load the adapter in {folder}: {first_line(error)}",
            fix="train it again, or copy it again from where it works",
        ) from error
    return Backbone(processor, str(folder), model)


def write_trained_parts(model: Any, folder: Path) -> None:
    """Write base weights that were trained beside the adapters; PEFT's own file holds the adapters alone."""
    base = model.get_base_model()
    originals = {name.replace(".base_layer", ""): parameter for name, parameter in base.named_parameters()}
    trained = {
        name: parameter.detach().cpu().contiguous()
        for name, parameter in originals.items()
        if parameter.requires_grad and "lora_" not in name
    }
    if trained:
        save_file(trained, folder / TRAINED_PARTS)


def read_trained_parts(backbone: Backbone, folder: Path) -> None:
    """Put such weights back into their base model."""
    path = folder / TRAINED_PARTS
    if not path.is_file():
        return
    weights = load_file(path)
    parameters = dict(backbone.network.named_parameters())
    with torch.no_grad():
        for name, weight in weights.items():
            parameters[name].copy_(weight)


def read_weights(backbone: Backbone, folder: Path) -> None:
    """Put the weights of a checkpoint of this very model back, bit by bit, whatever their dtypes."""
    read_trained_parts(backbone, folder)
    if backbone.model is not backbone.network:
        set_peft_model_state_dict(backbone.model, load_file(folder / "adapter_model.safetensors"))
        return
    parameters = dict(backbone.network.named_parameters())
    with torch.no_grad():
        for path in sorted(folder.glob("model*.safetensors")):
            for name, weight in load_file(path).items():
                parameters[name].copy_(weight)
