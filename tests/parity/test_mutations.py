"""Planted faults are caught by the golden checks: each is a mistake that a port of this model could really have.

The list is that of the vectors' README ("These limits catch"), and a few boundaries of our own. A check that cannot
fail would be no check.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import shared_folder
from golden_cases import (
    GoldenModel,
    check_batch,
    check_generation,
    check_picture,
    check_rope,
    check_text,
    check_training,
)
from PIL import Image
from torch import nn
from torch.nn import functional

from appraiser.phi3_v import (
    Phi3VConfig,
    Phi3VForConditionalGeneration,
    Phi3VImageProcessor,
    Phi3VProcessor,
    modeling_phi3_v,
    vision_phi3_v,
)
from appraiser.phi3_v import image_processing_phi3_v as processing

Patch = pytest.MonkeyPatch
Mutation = Callable[[Patch, Phi3VForConditionalGeneration], None]
CHECKS: dict[str, Callable[..., None]] = {
    "rope": lambda data, model, processor, name: check_rope(data, model),
    "text": lambda data, model, processor, name: check_text(data, model, name),
    "picture": check_picture,
    "batch": check_batch,
    "training": check_training,
    "generation": check_generation,
}


@cache
def loaded(folder: str) -> tuple[GoldenModel, Phi3VForConditionalGeneration, Phi3VProcessor]:
    """Shared by all tests here: mutations are undone by monkeypatch."""
    golden = GoldenModel(shared_folder("golden"), folder)
    return golden, golden.load(), golden.processor()


# ------------------------------------------------------------------------------------------------- vision tower


def tower_output(layers: slice, tokens: slice) -> Mutation:
    """Take the features after other blocks, or other tokens of them."""

    def mutate(patch: Patch, model: Phi3VForConditionalGeneration) -> None:
        def forward(self: Any, crops: torch.Tensor) -> torch.Tensor:
            hidden_states = self.pre_layrnorm(self.embeddings(crops))
            for layer in self.encoder.layers[layers]:
                hidden_states = layer(hidden_states)
            return hidden_states[:, tokens]

        patch.setattr(vision_phi3_v.Phi3VVisionTransformer, "forward", forward)

    return mutate


def post_layernorm_applied(patch: Patch, model: Phi3VForConditionalGeneration) -> None:
    original = vision_phi3_v.Phi3VVisionTransformer.forward
    patch.setattr(
        vision_phi3_v.Phi3VVisionTransformer,
        "forward",
        lambda self, crops: self.post_layernorm(original(self, crops)),
    )


def exact_gelu_in_tower(patch: Patch, model: Phi3VForConditionalGeneration) -> None:
    patch.setattr(
        vision_phi3_v.Phi3VVisionMLP,
        "forward",
        lambda self, states: self.fc2(functional.gelu(self.fc1(states))),
    )


def clip_eps_too_small(patch: Patch, model: Phi3VForConditionalGeneration) -> None:
    for module in model.model.vision_embed_tokens.modules():
        if isinstance(module, nn.LayerNorm):
            patch.setattr(module, "eps", 1e-6)


# ------------------------------------------------------------------------------------------- merge and projection


def global_view_first(patch: Patch, model: Phi3VForConditionalGeneration) -> None:
    def merge_pictures(self: Any, patches: torch.Tensor, image_sizes: torch.Tensor) -> torch.Tensor:
        sequences, start = [], 0
        for rows, columns in self.crop_grid(image_sizes):
            end = start + 1 + rows * columns
            sequences += [self.merge(patches[start : start + 1], 1, 1), self.glb_GN[0]]
            sequences += [self.merge(patches[start + 1 : end], rows, columns)]
            start = end
        return torch.cat(sequences)

    patch.setattr(vision_phi3_v.Phi3VImageEmbedding, "merge_pictures", merge_pictures)


def separator_missing(patch: Patch, model: Phi3VForConditionalGeneration) -> None:
    vision = model.model.vision_embed_tokens
    patch.setitem(vision._parameters, "sub_GN", torch.zeros_like(vision.sub_GN))


def separators_mixed_up(patch: Patch, model: Phi3VForConditionalGeneration) -> None:
    vision = model.model.vision_embed_tokens
    between_views, at_row_end = vision.glb_GN, vision.sub_GN
    patch.setitem(vision._parameters, "glb_GN", at_row_end[0])
    patch.setitem(vision._parameters, "sub_GN", between_views[None])


def grid_by(order: tuple[int, ...]) -> Mutation:
    """Merge 2 x 2 patches with another permutation of (crop row, crop column, y, dy, x, dx, channel)."""

    def mutate(patch: Patch, model: Phi3VForConditionalGeneration) -> None:
        def merge(self: Any, crops: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
            side = self.config.tokens_per_crop_side
            grid = crops.reshape(rows, columns, side, 2, side, 2, crops.shape[-1])
            grid = grid.permute(*order).reshape(rows * side, columns * side, -1)
            separator = self.sub_GN.reshape(1, 1, -1).expand(rows * side, 1, -1)
            return torch.cat([grid, separator], dim=1).flatten(0, 1)

        patch.setattr(vision_phi3_v.Phi3VImageEmbedding, "merge", merge)

    return mutate


def height_and_width_swapped(patch: Patch, model: Phi3VForConditionalGeneration) -> None:
    """Lay w rows of h crops, but keep the number of tokens: nothing but the values gives it away."""
    original = vision_phi3_v.Phi3VImageEmbedding.merge

    def merge(self: Any, crops: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        turned = crops.reshape(columns, rows, *crops.shape[1:]).transpose(0, 1).reshape(crops.shape)
        return original(self, turned, rows, columns)

    patch.setattr(vision_phi3_v.Phi3VImageEmbedding, "merge", merge)


def tanh_gelu_in_projection(patch: Patch, model: Phi3VForConditionalGeneration) -> None:
    patch.setattr(model.model.vision_embed_tokens.img_projection[1], "approximate", "tanh")


# ------------------------------------------------------------------------------------------------------ decoder


def rope_magnitude_missing(patch: Patch, model: Phi3VForConditionalGeneration) -> None:
    patch.setattr(Phi3VConfig, "rope_magnitude", 1.0)


def rope_magnitude_for_long_inputs_only(patch: Patch, model: Phi3VForConditionalGeneration) -> None:
    original = modeling_phi3_v.Phi3VRotaryEmbedding.forward

    def forward(self: Any, position_ids: torch.Tensor, *args: Any) -> tuple[torch.Tensor, ...]:
        is_long = position_ids.max() + 1 > self.config.original_max_position_embeddings
        divisor = 1.0 if is_long else self.config.rope_magnitude
        return tuple(table / divisor for table in original(self, position_ids, *args))

    patch.setattr(modeling_phi3_v.Phi3VRotaryEmbedding, "forward", forward)


def factors(order: list[int]) -> Mutation:
    """Use the factor lists (0 short, 1 long) in another order."""

    def mutate(patch: Patch, model: Phi3VForConditionalGeneration) -> None:
        original = modeling_phi3_v.Phi3VRotaryEmbedding.frequencies
        patch.setattr(
            modeling_phi3_v.Phi3VRotaryEmbedding,
            "frequencies",
            lambda self, device: original(self, device)[order],
        )

    return mutate


def boundary_shifted(by: int) -> Mutation:
    """Change to the long factors one token too early (+1) or too late (-1)."""

    def mutate(patch: Patch, model: Phi3VForConditionalGeneration) -> None:
        original = modeling_phi3_v.document_lengths
        patch.setattr(modeling_phi3_v, "document_lengths", lambda position_ids: original(position_ids) + by)

    return mutate


def stale_cache_at_the_crossing(patch: Patch, model: Phi3VForConditionalGeneration) -> None:
    patch.setattr(Phi3VForConditionalGeneration, "_crosses", lambda *args: False)


def gate_and_up_swapped(patch: Patch, model: Phi3VForConditionalGeneration) -> None:
    def forward(self: Any, hidden_states: torch.Tensor) -> torch.Tensor:
        up, gate = self.gate_up_proj(hidden_states).chunk(2, dim=-1)
        return self.down_proj(up * self.activation_fn(gate))

    patch.setattr(modeling_phi3_v.Phi3VMLP, "forward", forward)


def rms_eps_too_small(patch: Patch, model: Phi3VForConditionalGeneration) -> None:
    for module in model.modules():
        if isinstance(module, modeling_phi3_v.Phi3VRMSNorm):
            patch.setattr(module, "eps", 1e-6)


def key_heads_tiled(patch: Patch, model: Phi3VForConditionalGeneration) -> None:
    """Grouped keys repeated as whole sets instead of head by head."""
    original = modeling_phi3_v.attention_function

    def attention_function(config: Phi3VConfig) -> Callable[..., Any]:
        def attention(module: nn.Module, query: torch.Tensor, key: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            # The same fault by moving the query heads: place p uses key head p // groups.
            groups = query.shape[1] // key.shape[1]
            moved = torch.arange(query.shape[1]).reshape(groups, -1).T.flatten()
            output, weights = original(config)(module, query[:, moved], key, *args, **kwargs)
            return output[:, :, moved.argsort()].contiguous(), weights

        return attention

    patch.setattr(modeling_phi3_v, "attention_function", attention_function)


# ------------------------------------------------------------------------------------------------------ pictures


def padding(color: tuple[int, int, int], top: bool) -> Mutation:
    """Pad with another colour, or all of it at the bottom."""

    def mutate(patch: Patch, model: Phi3VForConditionalGeneration) -> None:
        def hd_transform(self: Any, image: Image.Image, num_crops: int | None = None) -> Image.Image:
            tall = image.width < image.height
            image = image.transpose(Image.Transpose.TRANSPOSE) if tall else image
            width, height, padded = self._scaled_size(image.width, image.height, num_crops)
            canvas = Image.new("RGB", (width, padded), color)
            resized = image.resize((width, height), Image.Resampling.BILINEAR)
            canvas.paste(resized, (0, 0 if top else int((padded - height) / 2)))
            return canvas.transpose(Image.Transpose.TRANSPOSE) if tall else canvas

        patch.setattr(Phi3VImageProcessor, "hd_transform", hd_transform)

    return mutate


def bicubic_crops(patch: Patch, model: Phi3VForConditionalGeneration) -> None:
    original = Image.Image.resize
    patch.setattr(Image.Image, "resize", lambda self, size, method: original(self, size, Image.Resampling.BICUBIC))


def global_view_by(**changes: Any) -> Mutation:
    def mutate(patch: Patch, model: Phi3VForConditionalGeneration) -> None:
        original = functional.interpolate
        patch.setattr(
            processing.functional, "interpolate", lambda pixels, **kwargs: original(pixels, **(kwargs | changes))
        )

    return mutate


EVERYTHING = slice(1, None)
# (what, mutation, folder, check, case). Where the check is "picture", the case holds the layout that shows the fault.
MUTATIONS: list[tuple[str, Mutation, str, str, str]] = [
    ("tower layer -1", tower_output(slice(None), EVERYTHING), "tiny_mha", "picture", "noise_1x1"),
    ("tower layer -3", tower_output(slice(None, -2), EVERYTHING), "tiny_mha", "picture", "noise_1x1"),
    ("class token kept", tower_output(slice(None, -1), slice(None, -1)), "tiny_mha", "picture", "noise_1x1"),
    ("post layernorm applied", post_layernorm_applied, "tiny_mha", "picture", "noise_1x1"),
    ("GELU for quick_gelu", exact_gelu_in_tower, "tiny_mha", "picture", "noise_1x1"),
    ("CLIP eps 1e-6", clip_eps_too_small, "tiny_mha", "picture", "noise_1x1"),
    ("glb_sub order", global_view_first, "tiny_mha", "picture", "noise_1x1"),
    ("sub_GN missing", separator_missing, "tiny_mha", "picture", "noise_1x1"),
    ("sub_GN and glb_GN mixed up", separators_mixed_up, "tiny_mha", "picture", "noise_1x1"),
    ("2 x 2 merge transposed", grid_by((0, 2, 1, 4, 5, 3, 6)), "tiny_mha", "picture", "noise_1x1"),
    ("crops not laid side by side", grid_by((0, 1, 2, 4, 3, 5, 6)), "tiny_gqa", "picture", "noise_2x3"),
    ("h and w swapped", height_and_width_swapped, "tiny_gqa", "picture", "noise_2x3"),
    ("h and w swapped, pictures", height_and_width_swapped, "tiny_mha", "picture", "img_wide_nc16"),
    ("tanh GELU in the projection", tanh_gelu_in_projection, "tiny_mha", "picture", "noise_1x1"),
    ("rope magnitude missing, table", rope_magnitude_missing, "tiny_mha", "rope", "rope"),
    ("rope magnitude missing, short", rope_magnitude_missing, "tiny_mha", "text", "text_short"),
    ("rope magnitude only if long", rope_magnitude_for_long_inputs_only, "tiny_mha", "text", "text_short"),
    ("factor lists swapped", factors([1, 0]), "tiny_mha", "rope", "rope"),
    ("always short factors", factors([0, 0]), "tiny_mha", "text", "text_long"),
    ("always long factors", factors([1, 1]), "tiny_gqa", "text", "text_short"),
    ("long factors too early", boundary_shifted(1), "tiny_mha", "text", "text_boundary"),
    ("long factors too late", boundary_shifted(-1), "tiny_mha", "text", "text_boundary_plus1"),
    ("stale cache at the crossing", stale_cache_at_the_crossing, "tiny_mha", "generation", "gen_text_cross"),
    ("gate and up swapped", gate_and_up_swapped, "tiny_mha", "text", "text_short"),
    ("RMS eps 1e-6", rms_eps_too_small, "tiny_mha", "text", "text_short"),
    ("key heads tiled", key_heads_tiled, "tiny_gqa", "text", "text_short"),
    ("tower layer -1, training", tower_output(slice(None), EVERYTHING), "tiny_gqa", "training", "train_two_nc1"),
    ("sub_GN and glb_GN mixed up, batch", separators_mixed_up, "tiny_mha", "batch", "batch_two_rows_nc1"),
    ("black padding", padding((0, 0, 0), False), "tiny_mha", "picture", "img_portrait_nc4"),
    ("top-aligned padding", padding((255, 255, 255), True), "tiny_mha", "picture", "img_portrait_nc4"),
    ("bicubic crops", bicubic_crops, "tiny_mha", "picture", "img_portrait_nc4"),
    ("antialiased global view", global_view_by(antialias=True), "tiny_mha", "picture", "img_portrait_nc4"),
    ("bilinear global view", global_view_by(mode="bilinear"), "tiny_mha", "picture", "img_portrait_nc4"),
]
USED_CASES = sorted({mutation[2:] for mutation in MUTATIONS})


@pytest.mark.parametrize(
    ("mutate", "folder", "check", "case"),
    [mutation[1:] for mutation in MUTATIONS],
    ids=[mutation[0] for mutation in MUTATIONS],
)
def test_planted_fault_is_caught(
    mutate: Mutation, folder: str, check: str, case: str, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model, processor = loaded(folder)
    mutate(monkeypatch, model)
    with pytest.raises(AssertionError):
        CHECKS[check](data, model, processor, case)


@pytest.mark.parametrize(("folder", "check", "case"), USED_CASES)
def test_unmutated_model_passes_the_same_checks(folder: str, check: str, case: str, golden: Path) -> None:
    CHECKS[check](*loaded(folder), case)


def test_sizes_given_as_width_and_height_are_refused_by_the_model_itself(golden: Path) -> None:
    data, model, processor = loaded("tiny_gqa")
    pixels = data.pixels("noise_2x3", processor)
    pixels["image_sizes"] = pixels["image_sizes"].flip(-1)
    with pytest.raises(ValueError, match="places for 1045 image tokens, the 1 pictures have 1057"):
        model(input_ids=data.tensors["noise_2x3.input_ids"], **pixels)
