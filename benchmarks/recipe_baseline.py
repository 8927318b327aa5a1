"""The common recipe, on our weights: what the published modelling code and the official fine-tuning script compute.

One picture per step; written-out attention with a mask tensor; every slot of `pixel_values` through the tower, padding
crops and the tower's unneeded last block included; logits of all positions, cast to fp32 and shifted; plain AdamW on
weights in the training dtype. Nothing here is slower than the published code on purpose: the softmax of the tower
stays in the training dtype and tokens are decoded in a bare loop, as there or faster.
Source: spec/phi3_vision.md; microsoft/PhiCookBook `finetune_hf_trainer_docvqa.py`.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Cache = list[tuple[Tensor, Tensor]]


class RecipeBaseline:
    """Runs a `Phi3VForConditionalGeneration` the way the recipe runs the published model."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.model = network.model
        self.config = network.config

    def optimizer(self, learning_rate: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.network.parameters(), lr=learning_rate, foreach=True)

    def loss(self, inputs: dict[str, Tensor], labels: Tensor) -> Tensor:
        """Next-token loss of one row, through [1, S, vocab] fp32 logits."""
        logits = self.logits(inputs["input_ids"], inputs["pixel_values"], inputs["image_sizes"])
        shifted = logits[..., :-1, :].contiguous().view(-1, self.config.vocab_size)
        return functional.cross_entropy(shifted, labels[..., 1:].contiguous().view(-1))

    def logits(
        self, input_ids: Tensor, pixel_values: Tensor, image_sizes: Tensor, cache: Cache | None = None
    ) -> Tensor:
        hidden_states = self.embed(input_ids, pixel_values, image_sizes)
        return self.network.lm_head(self.decode(hidden_states, 0, cache)).float()

    def generate(self, inputs: dict[str, Tensor], new_tokens: int, stops: Collection[int] = ()) -> Tensor:
        """`new_tokens` greedy tokens after one row, or fewer where one of them is a stop, [1, n]."""
        cache: Cache = []
        logits = self.logits(inputs["input_ids"], inputs["pixel_values"], inputs["image_sizes"], cache)
        tokens = [logits[:, -1].argmax(-1, keepdim=True)]
        for past in range(inputs["input_ids"].shape[1], inputs["input_ids"].shape[1] + new_tokens - 1):
            if stops and int(tokens[-1]) in stops:
                break
            hidden_states = self.decode(self.model.embed_tokens(tokens[-1]), past, cache)
            tokens.append(self.network.lm_head(hidden_states).float()[:, -1].argmax(-1, keepdim=True))
        return torch.cat(tokens, dim=1)

    # ------------------------------------------------------------------------------------------------ pictures

    def embed(self, input_ids: Tensor, pixel_values: Tensor, image_sizes: Tensor) -> Tensor:
        vision = self.model.vision_embed_tokens
        slots = pixel_values.flatten(0, 1)
        features = self.tower(slots.to(vision.img_processor.vision_model.embeddings.patch_embedding.weight.dtype))
        height, width = image_sizes[0].tolist()
        side = self.config.clip_config["image_size"]
        rows, columns = height // side, width // side
        grid = self.merge(features[1 : 1 + rows * columns], rows, columns)
        pieces = torch.cat([grid, vision.glb_GN[0], self.merge(features[:1], 1, 1)])
        projected = vision.img_projection(pieces)
        hidden_states = self.model.embed_tokens(input_ids.clamp(min=0))
        places = torch.nonzero(input_ids < 0, as_tuple=True)
        return hidden_states.index_put(places, projected.to(hidden_states.dtype), accumulate=False)

    def merge(self, features: Tensor, rows: int, columns: int) -> Tensor:
        side = self.config.tokens_per_crop_side
        grid = features.reshape(rows, columns, side, 2, side, 2, -1).permute(0, 2, 1, 4, 3, 5, 6)
        grid = grid.reshape(rows * side, columns * side, -1)
        separators = self.model.vision_embed_tokens.sub_GN[0].expand(rows * side, -1, -1)
        return torch.cat([grid, separators], dim=1).flatten(0, 1)

    def tower(self, pixels: Tensor) -> Tensor:
        """All blocks run, as `output_hidden_states=True` makes them; the features are those before the last."""
        tower = self.model.vision_embed_tokens.img_processor.vision_model
        embeddings = tower.embeddings
        patches = embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        first = embeddings.class_embedding.expand(len(pixels), 1, -1)
        hidden_states = torch.cat([first, patches], dim=1) + embeddings.position_embedding.weight
        hidden_states = tower.pre_layrnorm(hidden_states)
        states = [hidden_states]
        for layer in tower.encoder.layers:
            normed = layer.layer_norm1(hidden_states)
            hidden_states = hidden_states + self.tower_attention(layer.self_attn, normed)
            inner = layer.mlp.fc1(layer.layer_norm2(hidden_states))
            hidden_states = hidden_states + layer.mlp.fc2(inner * torch.sigmoid(1.702 * inner))
            states.append(hidden_states)
        return states[-2][:, 1:]

    def tower_attention(self, module: Any, hidden_states: Tensor) -> Tensor:
        heads = module.q_proj.out_features // module.head_dim
        batch, length, width = hidden_states.shape

        def split(states: Tensor) -> Tensor:
            states = states.view(batch, length, heads, module.head_dim).transpose(1, 2).contiguous()
            return states.view(batch * heads, length, module.head_dim)

        query = split(module.q_proj(hidden_states) * module.scaling)
        key, value = split(module.k_proj(hidden_states)), split(module.v_proj(hidden_states))
        weights = functional.softmax(torch.bmm(query, key.transpose(1, 2)), dim=-1)
        output = torch.bmm(weights, value).view(batch, heads, length, module.head_dim).transpose(1, 2)
        return module.out_proj(output.reshape(batch, length, width))

    # ------------------------------------------------------------------------------------------------- decoder

    def decode(self, hidden_states: Tensor, past: int, cache: Cache | None) -> Tensor:
        length = hidden_states.shape[1]
        positions = torch.arange(past, past + length)
        mask = torch.full((length, past + length), torch.finfo(hidden_states.dtype).min, dtype=hidden_states.dtype)
        mask = mask.triu(past + 1)[None, None]
        tables = self.tables(positions, hidden_states.dtype)
        for index, layer in enumerate(self.model.layers):
            normed = norm(layer.input_layernorm, hidden_states)
            hidden_states = hidden_states + self.attention(layer.self_attn, normed, tables, mask, index, cache)
            normed = norm(layer.post_attention_layernorm, hidden_states)
            gate, up = layer.mlp.gate_up_proj(normed).chunk(2, dim=-1)
            hidden_states = hidden_states + layer.mlp.down_proj(up * layer.mlp.activation_fn(gate))
        return norm(self.model.norm, hidden_states)

    def tables(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        is_long = int(positions[-1]) + 1 > self.config.original_max_position_embeddings
        angles = positions[None, :, None].float() * self.model.rotary_emb.frequencies(positions.device)[int(is_long)]
        angles = torch.cat([angles, angles], dim=-1)
        magnitude = self.config.rope_magnitude
        return (angles.cos() * magnitude).to(dtype), (angles.sin() * magnitude).to(dtype)

    def attention(
        self,
        module: Any,
        hidden_states: Tensor,
        tables: tuple[Tensor, Tensor],
        mask: Tensor,
        index: int,
        cache: Cache | None,
    ) -> Tensor:
        batch, length, _ = hidden_states.shape
        projected = module.qkv_proj(hidden_states).split([module.q_width, module.kv_width, module.kv_width], dim=-1)
        query, key, value = (states.view(batch, length, -1, module.head_dim).transpose(1, 2) for states in projected)
        cos, sin = (table[:, None] for table in tables)
        query, key = (states * cos + turn_half(states) * sin for states in (query, key))
        if cache is not None:
            if index < len(cache):
                key = torch.cat([cache[index][0], key], dim=2)
                value = torch.cat([cache[index][1], value], dim=2)
                cache[index] = (key, value)
            else:
                cache.append((key, value))
        if module.num_key_value_groups > 1:
            key, value = (states.repeat_interleave(module.num_key_value_groups, dim=1) for states in (key, value))
        weights = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(module.head_dim) + mask
        weights = functional.softmax(weights, dim=-1, dtype=torch.float32).to(value.dtype)
        output = torch.matmul(weights, value).transpose(1, 2).contiguous()
        return module.o_proj(output.reshape(batch, length, -1))


def norm(module: Any, hidden_states: Tensor) -> Tensor:
    """RMS norm as published, operation by operation; the module's own has its gradient written by hand."""
    wide = hidden_states.to(torch.float32)
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + module.eps)
    return module.weight * wide.to(hidden_states.dtype)


def turn_half(states: Tensor) -> Tensor:
    half = states.shape[-1] // 2
    return torch.cat([-states[..., half:], states[..., :half]], dim=-1)
