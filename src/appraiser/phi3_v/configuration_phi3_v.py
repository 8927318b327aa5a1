"""Configuration of Phi-3-Vision: reads and writes the keys of the published `config.json`.

The published keys stay as they are (`rope_scaling` with type `su`, flat text settings), so that a saved folder can be
read by other engines. Two keys of the published file are ignored on purpose: `_attn_implementation`, which would make
a plain load demand flash-attn, and `auto_map`, which would make the Auto classes ask for remote code.
"""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

# ViT-L/14-336, which the published model uses without writing its dimensions into config.json.
PUBLISHED_CLIP_CONFIG: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "layer_norm_eps": 1e-5,
}
PUBLISHED_IMG_PROCESSOR: dict[str, Any] = {
    "name": "clip_vision_model",
    "model_name": "openai/clip-vit-large-patch14-336",
    "image_dim_out": 1024,
    "num_img_tokens": 144,
}
PUBLISHED_EMBD_LAYER: dict[str, Any] = {
    "embedding_cls": "image",
    "hd_transform_order": "sub_glb",
    "projection_cls": "mlp",
    "use_hd_transform": True,
    "with_learnable_separator": True,
}
# The published decoder writes <|end|> and then <|endoftext|>; its config.json names neither as its end. <|endoftext|>
# is the padding token, and <|end|> stands seven places behind it in the published list of added tokens.
END_OFFSET_FROM_PAD = 7
ROPE_TYPES = ("su", "longrope", "yarn")


@strict
class Phi3VConfig(PreTrainedConfig):
    """Settings of the decoder, the CLIP tower and the picture grid.

    Fields are those of the published `config.json`. Extensions of ours, both optional and absent from published files:
    `img_processor["clip_config"]` (tower dimensions, `image_size` and `patch_size` of a small model) and
    `stop_token_ids` (tokens that end an answer).

    Raises:
        ValueError: rope factors of the wrong length or type, a picture grid that cannot be merged 2 x 2, a picture
            order or projection that the published model does not use.
    """

    model_type = "phi3_v"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012 - transformers' own declaration style

    vocab_size: int = 32064
    hidden_size: int = 3072
    intermediate_size: int = 8192
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    resid_pdrop: float | int = 0.0
    embd_pdrop: float | int = 0.0
    attention_dropout: float | int = 0.0
    hidden_act: str = "silu"
    max_position_embeddings: int = 131072
    original_max_position_embeddings: int = 4096
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-5
    use_cache: bool = True
    tie_word_embeddings: bool = False
    rope_theta: float | int = 10000.0
    rope_scaling: dict[str, Any] | None = None
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    pad_token_id: int = 32000
    sliding_window: int | None = None
    embd_layer: dict[str, Any] = field(default_factory=lambda: dict(PUBLISHED_EMBD_LAYER))
    img_processor: dict[str, Any] = field(default_factory=lambda: dict(PUBLISHED_IMG_PROCESSOR))
    stop_token_ids: list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs.pop("auto_map", None)
        kwargs.pop("_attn_implementation", None)
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Called by the strict base class after every construction."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.num_attention_heads % (self.num_key_value_heads or 1):
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of num_key_value_heads "
                f"{self.num_key_value_heads}"
            )
        self._validate_rope_scaling()
        self._validate_pictures()
        if self.sliding_window is not None and self.sliding_window < self.max_position_embeddings:
            # Published files hold a window as long as the longest input, which masks nothing; we build no window.
            raise ValueError(
                f"sliding_window {self.sliding_window} is shorter than max_position_embeddings "
                f"{self.max_position_embeddings}: no published Phi-3-Vision has that, and it is not supported"
            )

    def _validate_rope_scaling(self) -> None:
        if self.rope_scaling is None:
            return
        kind = self.rope_type
        if kind not in ROPE_TYPES:
            raise ValueError(f"rope_scaling type must be one of {', '.join(ROPE_TYPES)}, got {kind!r}")
        for name in ("short_factor", "long_factor"):
            factors = self.rope_scaling.get(name)
            if not isinstance(factors, list) or len(factors) != self.head_dim // 2:
                raise ValueError(
                    f"rope_scaling.{name} must be a list of {self.head_dim // 2} numbers (half of head_dim "
                    f"{self.head_dim}), got {len(factors) if isinstance(factors, list) else factors!r}"
                )

    def _validate_pictures(self) -> None:
        clip = self.clip_config
        side, patch = clip["image_size"], clip["patch_size"]
        if side % (2 * patch):
            raise ValueError(f"image_size {side} must be a multiple of twice the patch_size {patch}")
        if self.img_processor["image_dim_out"] != clip["hidden_size"]:
            raise ValueError(
                f"img_processor.image_dim_out {self.img_processor['image_dim_out']} is not the tower's hidden_size "
                f"{clip['hidden_size']}"
            )
        order = self.embd_layer.get("hd_transform_order", "sub_glb")
        if order != "sub_glb" or self.embd_layer.get("projection_cls", "mlp") != "mlp":
            raise ValueError(
                f"embd_layer asks for hd_transform_order {order!r} and projection_cls "
                f"{self.embd_layer.get('projection_cls')!r}; published models use 'sub_glb' and 'mlp'"
            )

    @property
    def num_key_value_groups(self) -> int:
        """Query heads that share one key and value head."""
        return self.num_attention_heads // (self.num_key_value_heads or self.num_attention_heads)

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def rope_type(self) -> str | None:
        """`su`, `longrope` (the same mathematics) or `yarn`; None for plain rotary embeddings."""
        if self.rope_scaling is None:
            return None
        kind = self.rope_scaling.get("type") or self.rope_scaling.get("rope_type")
        return None if kind is None else str(kind)

    @property
    def rope_magnitude(self) -> float:
        """Factor on cos and sin, applied for short inputs too. Source: the published rotary embeddings."""
        scale = self.max_position_embeddings / self.original_max_position_embeddings
        if self.rope_scaling is None or scale <= 1.0:
            return 1.0
        if self.rope_type == "yarn":
            return 0.1 * math.log(scale) + 1.0
        return math.sqrt(1 + math.log(scale) / math.log(self.original_max_position_embeddings))

    @property
    def clip_config(self) -> dict[str, Any]:
        """Dimensions of the tower: ViT-L/14-336 unless `img_processor["clip_config"]` says otherwise."""
        return PUBLISHED_CLIP_CONFIG | self.img_processor.get("clip_config", {})

    @property
    def tokens_per_crop_side(self) -> int:
        """Image tokens along one side of a crop after the 2 x 2 merge: 12 for 336 px crops of 14 px patches."""
        return int(self.clip_config["image_size"] // self.clip_config["patch_size"] // 2)

    @property
    def answer_stop_ids(self) -> list[int]:
        """Tokens on which generation ends: `<|end|>` and `<|endoftext|>`."""
        if self.stop_token_ids is not None:
            return self.stop_token_ids
        return [self.pad_token_id + END_OFFSET_FROM_PAD, self.pad_token_id]

    @property
    def torch_dtype(self) -> torch.dtype | str | None:
        """`dtype` under its published name; transformers' own property warns, also when it only saves."""
        return self.dtype

    @torch_dtype.setter
    def torch_dtype(self, value: torch.dtype | str | None) -> None:
        self.dtype = value

    def to_dict(self) -> dict[str, Any]:
        """As published: the architecture's published name and `torch_dtype`, which older readers look for."""
        output = super().to_dict()
        output["architectures"] = ["Phi3VForCausalLM"]
        if output.get("dtype") is not None:
            output["torch_dtype"] = output.pop("dtype")
        if self.stop_token_ids is None:
            output.pop("stop_token_ids", None)
        return output
