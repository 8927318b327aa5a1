"""Very small Phi-3-Visions for tests, built in the test process in a fraction of a second.

Weights come from a formula of the tensor's name (numpy's Philox), not from torch's generator: they are the same under
every version of torch, and large enough that greedy answers have clear winners.

    crop 28 px, patches of 7 px  ->  2 x 2 image tokens per crop; a picture of one crop is 13 tokens
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from appraiser.backbone import Backbone
from appraiser.phi3_v import Phi3VConfig, Phi3VForConditionalGeneration, Phi3VImageProcessor, Phi3VProcessor
from appraiser.pretraining import tokenizer as pretraining_tokenizer

CROP = 28
PATCH = 7
TOKENS_PER_CROP = (CROP // PATCH // 2) ** 2
HEAD_DIM = 8
# Whole words for a tokenizer that needs no training; everything else is spelled in letters.
WORDS = ("The", "What", "is", "this", "shown", "picture", "Bag", "Red", "Price", "price", "Category", "EUR", "item")


def formula_tensor(seed: str, name: str, shape: tuple[int, ...]) -> Tensor:
    """Weights of one tensor by the rule of the golden vectors' `wide_recipe`, for any width.

    Source: "Weight recipe of wide_recipe" in the vectors' README; `seed` is "phi3v-wide:" there.
    """
    scale, offset = _scale_and_offset(name, shape)
    key = int.from_bytes(hashlib.sha256((seed + name).encode()).digest()[:8], "little")
    values = np.random.Generator(np.random.Philox(key=key)).random(math.prod(shape), dtype=np.float32)
    # In place, in this order: the roundings are part of the recipe, and the largest tensor has 400 MB.
    values -= np.float32(0.5)
    values *= np.float32(math.sqrt(12))
    values *= np.float32(scale)
    values += np.float32(offset)
    return torch.from_numpy(values.reshape(shape))


def _scale_and_offset(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    fan = shape[1] if len(shape) == 2 else 1
    if name.endswith("norm.weight") or any(word in name for word in ("layernorm", "layer_norm", "layrnorm")):
        return (0.1, 0.0) if name.endswith("bias") else (0.15, 1.0)
    if name.endswith(("_GN", "embed_tokens.weight")):
        return 0.8, 0.0
    if "class_embedding" in name:
        return 1.0, 0.0
    if "position_embedding" in name:
        return 0.4, 0.0
    if name.endswith(".bias"):
        return 0.1, 0.0
    if "patch_embedding" in name:
        return 1 / math.sqrt(math.prod(shape[1:])), 0.0
    if "lm_head" in name:
        return 2.5 / math.sqrt(fan), 0.0
    if "qkv_proj" in name:
        return 1.3 / math.sqrt(fan), 0.0
    return 1 / math.sqrt(fan), 0.0


def formula_model(config: Phi3VConfig, seed: str = "tiny:", attention: str = "sdpa") -> Phi3VForConditionalGeneration:
    """A model with weights by formula, made tensor by tensor, in evaluation mode."""
    config._attn_implementation = attention
    with torch.device("meta"):
        model = Phi3VForConditionalGeneration(config)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(formula_tensor(seed, name, tuple(value.shape)))
    return model.eval()


def tiny_config(vocab_size: int = 480, pad_token_id: int = 430, **changes: Any) -> Phi3VConfig:
    """Every structural part of Phi-3-Vision at about 70 thousand parameters; grouped keys, both factor lists."""
    settings: dict[str, Any] = {
        "vocab_size": vocab_size,
        "pad_token_id": pad_token_id,
        "hidden_size": 4 * HEAD_DIM,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "original_max_position_embeddings": 256,
        "rope_scaling": {
            "type": "su",
            "short_factor": [1.0, 1.1, 1.2, 1.3],
            "long_factor": [1.0, 1.7, 2.9, 4.3],
        },
        "img_processor": {
            "name": "clip_vision_model",
            "model_name": "tiny",
            "image_dim_out": 24,
            "num_img_tokens": TOKENS_PER_CROP,
            "clip_config": {
                "hidden_size": 24,
                "intermediate_size": 48,
                "num_hidden_layers": 3,
                "num_attention_heads": 3,
                "image_size": CROP,
                "patch_size": PATCH,
            },
        },
    }
    return Phi3VConfig(**(settings | changes))


def tiny_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The embedded tokenizer's layout with a vocabulary that is written down here: no training, never changes."""
    letters = [pretraining_tokenizer.SPACE, *map(chr, range(33, 127))]
    pieces, merges = list(letters), []
    for word in WORDS:
        piece = pretraining_tokenizer.SPACE
        for letter in word:
            merged = piece + letter
            if merged not in pieces:
                merges.append([piece, letter])
                pieces.append(merged)
            piece = merged
    everything = (*pretraining_tokenizer.CONTROL, *pretraining_tokenizer.BYTES, *pieces)
    vocab = {piece: place for place, piece in enumerate(everything)}
    with mock.patch.object(pretraining_tokenizer, "_train", return_value=(vocab, merges)):
        pretraining_tokenizer.build_tokenizer(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def tiny_image_processor(num_crops: int = 1) -> Phi3VImageProcessor:
    return Phi3VImageProcessor(num_crops=num_crops, num_img_tokens=TOKENS_PER_CROP, crop_size=CROP)


def tiny_backbone(folder: Path, *, num_crops: int = 1, seed: str = "tiny:", **changes: Any) -> Backbone:
    """A tiny Phi-3-Vision with tokenizer and processor, also saved in `folder` in the published layout.

    Args:
        num_crops: crop budget of the processor.
        changes: settings of the configuration that differ from `tiny_config`.
    """
    tokenizer = tiny_tokenizer(folder)
    vocab_size = math.ceil(len(tokenizer) / 32) * 32
    model = formula_model(tiny_config(vocab_size, tokenizer.pad_token_id, **changes), seed)
    backbone = Backbone(Phi3VProcessor(tiny_image_processor(num_crops), tokenizer), str(folder), model)
    backbone.save(folder)
    return backbone


def formula_picture(width: int, height: int, number: int = 0) -> Image.Image:
    """An RGB picture by integer arithmetic: smooth ramps with a checker on top, different for every `number`."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    channels = [
        x * (3 + number) + y * 2,
        y * 5 + number * 40 + (x // 3 + y // 2) % 2 * 90,
        x * y // 7 + number * 77,
    ]
    return Image.fromarray(np.stack([channel % 256 for channel in channels], axis=-1).astype(np.uint8))
