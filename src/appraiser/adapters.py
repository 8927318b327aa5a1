"""Low-rank adapters through PEFT: attach, and load again in the PEFT file format."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from appraiser.backbone import Backbone, first_line, load
from appraiser.config import AdapterConfig
from appraiser.errors import CheckpointError, ConfigError
from appraiser.trained_task import checkpoint_folder, read_task

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
    with _old_names():
        return Backbone(backbone.processor, backbone.name, get_peft_model(backbone.model, lora))


@contextmanager
def _old_names() -> Iterator[None]:
    """PEFT 0.21 asks transformers 5.23 for a name that is deprecated there: nothing a user could mend."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


def load_any(
    name: str,
    *,
    dtype: str = "float32",
    num_crops: int | None = None,
    attention: str = "auto",
    device: Any = "cpu",
    quantize: str = "none",
) -> Backbone:
    """A model to train from or to put an adapter on: what `load` takes, a run, or an adapter, which is merged.

    Raises:
        CheckpointError: nothing there, or damaged.
        ConfigError: an adapter is to be quantized: merging needs the full weights.
    """
    folder = checkpoint_folder(name)
    base = read_task(folder).base
    if base is None:
        return load(folder, dtype=dtype, num_crops=num_crops, attention=attention, device=device, quantize=quantize)
    if quantize != "none":
        raise ConfigError(
            f"{name} is an adapter: it cannot be merged into weights of 4 bits",
            fix="export it to a merged model first, and train from that",
        )
    adapted = load_adapted(Path(folder), base, dtype=dtype, num_crops=num_crops, attention=attention, device=device)
    return Backbone(adapted.processor, name, adapted.model.merge_and_unload())


def load_adapted(
    folder: Path,
    base: str,
    *,
    dtype: str = "float32",
    num_crops: int | None = None,
    attention: str = "auto",
    device: Any = "cpu",
) -> Backbone:
    """Base model with the adapter of `folder` on it, and the adapter's own processor settings.

    Raises:
        CheckpointError: base or adapter is missing or damaged.
    """
    backbone = load_any(base, dtype=dtype, attention=attention, device=device)
    try:
        read_trained_parts(backbone, folder)
        with _old_names():
            model = PeftModel.from_pretrained(backbone.model, str(folder))
        processor = type(backbone.processor).from_pretrained(folder, num_crops=num_crops)
    except Exception as error:  # PEFT and safetensors raise many kinds; all mean a damaged adapter
        raise CheckpointError(
            f"cannot load the adapter in {folder}: {first_line(error)}",
            fix="train it again, or copy it again from where it works",
        ) from error
    return Backbone(processor, str(folder), model)


def write_trained_parts(backbone: Backbone, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write base weights that were trained beside the adapters; PEFT's own file holds the adapters alone.

    Args:
        weights: the adapted model's, where this process holds only a share of them.
    """
    trained = {}
    for name, parameter in backbone.model.named_parameters():
        if parameter.requires_grad and "lora_" not in name:
            whole = parameter if weights is None else weights[name]
            published = name.removeprefix("base_model.model.").replace(".base_layer", "")
            trained[published] = whole.detach().cpu().contiguous()
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
