"""Pictures: CLIP tower, HD merge and projector, and where their features go in the text.

    pixels [n, num_crops + 1, 3, S, S]
      tower      real crops alone          -> [N, P, C]
      merge      2 x 2 patches a token     -> [T, 4 C]
      project    in the decoder's width    -> [T, D]
      place      over the placeholders of input_ids [B, S]

Module names are the published tensor names. Letters of tensor shapes: B batch, S sequence, D hidden, N crops of all
pictures, P patches per crop, C tower width, T image tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import attention_function
from .configuration_phi3_v import Phi3VConfig
from .elementwise import quick_gelu

# Widest tensor of a pass of the tower that only looks, on a CPU. One crop at a time of 40 took 38 instead of 52 ms each
# (bf16, 1.2 MB, one of two cores at work): larger tensors leave the core's cache and come as fresh pages every time.
PASS_BYTES = 1 << 21


class Phi3VVisionEmbeddings(nn.Module):
    """Patches, class token and learned positions of a crop."""

    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__()
        clip = config.clip_config
        self.class_embedding = nn.Parameter(torch.empty(clip["hidden_size"]))
        self.patch_embedding = nn.Conv2d(
            3, clip["hidden_size"], kernel_size=clip["patch_size"], stride=clip["patch_size"], bias=False
        )
        num_patches = (clip["image_size"] // clip["patch_size"]) ** 2
        self.position_embedding = nn.Embedding(num_patches + 1, clip["hidden_size"])

    def forward(self, crops: Tensor) -> Tensor:
        """[N, 3, S, S] pixels -> [N, 1 + P, C]."""
        # As a matrix product: patches do not overlap, and bf16 convolutions are slow on CPUs.
        weight = self.patch_embedding.weight
        size = weight.shape[-1]
        side = crops.shape[-1] // size
        patches = crops.reshape(len(crops), 3, side, size, side, size).permute(0, 2, 4, 1, 3, 5)
        patches = functional.linear(patches.reshape(len(crops), side * side, -1), weight.flatten(1))
        first = self.class_embedding.to(patches.dtype).expand(len(crops), 1, -1)
        return torch.cat([first, patches], dim=1) + self.position_embedding.weight


class Phi3VVisionAttention(nn.Module):
    is_causal = False

    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__()
        self.config = config
        width = config.clip_config["hidden_size"]
        self.head_dim = width // config.clip_config["num_attention_heads"]
        self.scaling = self.head_dim**-0.5
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, hidden_states: Tensor) -> Tensor:
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key, value = (
            projection(hidden_states).view(shape).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        output, _ = attention_function(self.config)(
            self, query, key, value, None, dropout=0.0, scaling=self.scaling, is_causal=False
        )
        return self.out_proj(output.reshape(*hidden_states.shape[:-1], -1))


class Phi3VVisionMLP(nn.Module):
    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__()
        clip = config.clip_config
        self.fc1 = nn.Linear(clip["hidden_size"], clip["intermediate_size"])
        self.fc2 = nn.Linear(clip["intermediate_size"], clip["hidden_size"])

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.fc2(quick_gelu(self.fc1(hidden_states)))


class Phi3VVisionLayer(GradientCheckpointingLayer):
    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__()
        width, eps = config.clip_config["hidden_size"], config.clip_config["layer_norm_eps"]
        self.self_attn = Phi3VVisionAttention(config)
        self.layer_norm1 = nn.LayerNorm(width, eps=eps)
        self.mlp = Phi3VVisionMLP(config)
        self.layer_norm2 = nn.LayerNorm(width, eps=eps)

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = hidden_states + self.self_attn(self.layer_norm1(hidden_states))
        return hidden_states + self.mlp(self.layer_norm2(hidden_states))


class Phi3VVisionEncoder(nn.Module):
    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Phi3VVisionLayer(config) for _ in range(config.clip_config["num_hidden_layers"]))


class Phi3VVisionTransformer(nn.Module):
    """CLIP ViT. The last block and `post_layernorm` are kept for saving; features come from the block before."""

    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__()
        width, eps = config.clip_config["hidden_size"], config.clip_config["layer_norm_eps"]
        self.embeddings = Phi3VVisionEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(width, eps=eps)  # sic: the published tensor name
        self.encoder = Phi3VVisionEncoder(config)
        self.post_layernorm = nn.LayerNorm(width, eps=eps)

    def forward(self, crops: Tensor) -> Tensor:
        """[N, 3, S, S] pixels -> [N, P, C]: output of the last block but one, class token dropped."""
        hidden_states = self.pre_layrnorm(self.embeddings(crops))
        for layer in self.encoder.layers[:-1]:
            hidden_states = layer(hidden_states)
        return hidden_states[:, 1:]

    def unused_parameters(self) -> list[nn.Parameter]:
        """Parameters that are saved but never computed, so they never get a gradient."""
        return [*self.encoder.layers[-1].parameters(), *self.post_layernorm.parameters()]


class Phi3VVisionTower(nn.Module):
    """Holds the tower under its published name `img_processor.vision_model`."""

    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__()
        self.vision_model = Phi3VVisionTransformer(config)
        clip = config.clip_config
        self._widest = ((clip["image_size"] // clip["patch_size"]) ** 2 + 1) * clip["intermediate_size"]

    def forward(self, crops: Tensor) -> Tensor:
        """[N, 3, S, S] pixels -> [N, P, C], all in one pass; on a CPU that only looks, in passes that fit its cache."""
        dtype = self.vision_model.embeddings.class_embedding.dtype
        if crops.device.type != "cpu" or torch.is_grad_enabled():
            return cast(Tensor, self.vision_model(crops.to(dtype)))
        size = max(1, PASS_BYTES // (self._widest * dtype.itemsize))
        return torch.cat([self.vision_model(part.to(dtype)) for part in torch.split(crops, size)])


class Phi3VImageEmbedding(nn.Module):
    """Pictures -> features in the decoder's width."""

    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__()
        self.config = config
        merged = 4 * config.clip_config["hidden_size"]
        self.img_processor = Phi3VVisionTower(config)
        self.img_projection = nn.Sequential(
            nn.Linear(merged, config.hidden_size),
            nn.GELU(),
            nn.Linear(config.hidden_size, config.hidden_size),
        )
        self.glb_GN = nn.Parameter(torch.empty(1, 1, merged))
        self.sub_GN = nn.Parameter(torch.empty(1, 1, 1, merged))

    def crop_grid(self, image_sizes: Tensor) -> list[tuple[int, int]]:
        """(rows, columns) of crops of each picture from its padded size in pixels."""
        side = self.config.clip_config["image_size"]
        sizes = image_sizes.tolist()
        for height, width in sizes:
            if height % side or width % side or not height or not width:
                raise ValueError(f"image_sizes must be multiples of {side} px (height, width), got {height, width}")
        return [(height // side, width // side) for height, width in sizes]

    def encode_crops(self, pixel_values: Tensor, image_sizes: Tensor) -> Tensor:
        """Run the real crops, and no padding crop, through the tower in one pass.

        Args:
            pixel_values: [n, num_crops + 1, 3, S, S]; index 0 is the global view.
            image_sizes: [n, 2] (height, width).

        Returns:
            [N, P, C]: picture by picture, global view first.
        """
        grid = self.crop_grid(image_sizes)
        real = [1 + rows * columns for rows, columns in grid]
        if len(real) != len(pixel_values) or max(real) > pixel_values.shape[1]:
            raise ValueError(
                f"image_sizes ask for {real} views, pixel_values hold {len(pixel_values)} pictures of "
                f"{pixel_values.shape[1]}"
            )
        # A picture of one crop is padded to exactly that crop, so its global view is the same pixels again:
        # run them once and use the result twice. Checked on the pixels, since callers may pass others.
        is_same = [
            count == 2 and torch.equal(views[0], views[1]) for views, count in zip(pixel_values, real, strict=True)
        ]
        runs = [1 if same else count for same, count in zip(is_same, real, strict=True)]
        crops = torch.cat([views[:count] for views, count in zip(pixel_values, runs, strict=True)])
        patches = self.img_processor(crops)
        if not any(is_same):
            return patches
        if all(is_same):
            return patches.repeat_interleave(2, dim=0)
        per_picture = patches.split(runs)
        return torch.cat(
            [torch.cat([run, run]) if same else run for run, same in zip(per_picture, is_same, strict=True)]
        )

    def merge(self, crops: Tensor, rows: int, columns: int) -> Tensor:
        """Merge 2 x 2 patches into one token and end every row of the grid with the separator.

        crops [rows * columns, P, C]  ->  grid [rows * t, columns * t + 1, 4 C]  ->  flattened [T, 4 C]
        """
        side = self.config.tokens_per_crop_side
        grid = crops.reshape(rows, columns, side, 2, side, 2, crops.shape[-1])
        grid = grid.permute(0, 2, 1, 4, 3, 5, 6).reshape(rows * side, columns * side, -1)
        separator = self.sub_GN.reshape(1, 1, -1).to(grid.dtype).expand(rows * side, 1, -1)
        return torch.cat([grid, separator], dim=1).flatten(0, 1)

    def merge_pictures(self, patches: Tensor, image_sizes: Tensor) -> Tensor:
        """[N, P, C] patches of all pictures -> [T, 4 C]: per picture crops, separator, global view (`sub_glb`)."""
        sequences, start = [], 0
        for rows, columns in self.crop_grid(image_sizes):
            end = start + 1 + rows * columns
            crops = self.merge(patches[start + 1 : end], rows, columns)
            global_view = self.merge(patches[start : start + 1], 1, 1)
            sequences += [crops, self.glb_GN[0].to(crops.dtype), global_view]
            start = end
        return torch.cat(sequences)

    def num_tokens(self, image_sizes: Tensor) -> list[int]:
        """Image tokens of each picture."""
        side = self.config.tokens_per_crop_side
        return [(h * w + 1) * side * side + 1 + (h + 1) * side for h, w in self.crop_grid(image_sizes)]

    def project(self, patches: Tensor, image_sizes: Tensor) -> Tensor:
        """[N, P, C] tower features -> [T, D] features in the decoder's width."""
        return self.img_projection(self.merge_pictures(patches, image_sizes))

    def forward(self, pixel_values: Tensor, image_sizes: Tensor) -> Tensor:
        """[T, D] features of all pictures, one picture after the other."""
        return self.project(self.encode_crops(pixel_values, image_sizes), image_sizes)


def place_image_features(inputs_embeds: Tensor, input_ids: Tensor, features: Tensor, counts: list[int]) -> Tensor:
    """Write the pictures' features over their placeholder tokens.

    Args:
        inputs_embeds: [B, S, D] text embeddings; left unchanged.
        input_ids: [B, S]; picture k of a row is a run of the id -k, counted from 1.
        features: [T, D], picture after picture, row after row.
        counts: image tokens of each picture; they add up to T.

    Returns:
        [B, S, D], dtype of `inputs_embeds`.

    Raises:
        ValueError: placeholders and features differ in number; the message names the picture and both lengths.
    """
    check_runs(picture_runs(input_ids), counts)
    # masked_scatter keeps autograd simple: no in-place write into a leaf that checkpointing or PEFT made require grad.
    return inputs_embeds.masked_scatter((input_ids < 0)[..., None], features.to(inputs_embeds.dtype))


def picture_runs(input_ids: Tensor) -> list[tuple[int, int]]:
    """(first place, end) of every picture's placeholders within its row, in the order of the pictures."""
    mask = input_ids < 0
    # A run begins where the id changes: after every picture comes its text, BOS at least, or another picture's id.
    begins = mask & (input_ids != functional.pad(input_ids, (1, 0))[:, :-1])
    ends = mask & (input_ids != functional.pad(input_ids, (0, 1))[:, 1:])
    places = torch.stack([begins.nonzero()[:, 1], ends.nonzero()[:, 1] + 1], dim=1)
    return [(start, end) for start, end in places.tolist()]


def check_runs(runs: list[tuple[int, int]], counts: list[int]) -> None:
    """Raise ValueError unless every picture has as many places as image tokens."""
    lengths = [end - start for start, end in runs]
    if sum(lengths) != sum(counts):
        raise ValueError(
            f"the text has places for {sum(lengths)} image tokens, the {len(counts)} pictures have "
            f"{sum(counts)}: use the same num_crops for the text and the pictures"
        )
    if lengths != counts:
        index = next(k for k, (length, count) in enumerate(zip(lengths, counts, strict=False)) if length != count)
        raise ValueError(
            f"picture {index + 1} has {counts[index]} image tokens, but its run of placeholders has {lengths[index]}"
        )


class ChunkPictures:
    """Features of the pictures of a prompt that is fed in chunks.

    The tower sees a picture when a chunk comes to it, one at a time, and what is behind is dropped. Where a chunk ends
    within a picture, the rest of its features waits for the next chunk.
    """

    def __init__(
        self,
        vision: Phi3VImageEmbedding,
        input_ids: Tensor,
        image_sizes: Tensor,
        pixel_values: Tensor | None,
        image_features: Tensor | None,
    ) -> None:
        self.vision = vision
        self.sizes = image_sizes
        self.runs = picture_runs(input_ids)
        check_runs(self.runs, vision.num_tokens(image_sizes))
        if image_features is None:
            self.patches: Sequence[Tensor] | None = None
            self.pixels = cast(Tensor, pixel_values)
        else:
            views = [1 + rows * columns for rows, columns in vision.crop_grid(image_sizes)]
            self.patches = torch.split(image_features, views)
        self.waiting: dict[int, Tensor] = {}

    def place(self, embeds: Tensor, input_ids: Tensor, start: int) -> Tensor:
        """Embeddings and ids of the chunk that begins at `start` -> its embeddings with pictures."""
        end = start + input_ids.shape[1]
        parts = []
        for number, (first, last) in enumerate(self.runs):
            if first < end and start < last:
                features = self.waiting.pop(number, None)
                features = self._features(number) if features is None else features
                parts.append(features[max(0, start - first) : end - first])
                if end < last:
                    self.waiting[number] = features
        if not parts:
            return embeds
        return place_image_features(embeds, input_ids, torch.cat(parts), [len(part) for part in parts])

    def _features(self, number: int) -> Tensor:
        """[T, D] of one picture."""
        size = self.sizes[number : number + 1]
        if self.patches is not None:
            return self.vision.project(self.patches[number], size)
        return self.vision(self.pixels[number : number + 1], size)
