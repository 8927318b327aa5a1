"""Phi-3-Vision: pictures and text in one sequence through the Phi-3 decoder, and answers from it.

Module names are the published tensor names, so saved keys equal state-dict keys and nothing is renamed on load.
Source: the published reference code and arXiv:2404.14219; every step is held to vectors made by that code.

Letters of tensor shapes: B batch, S sequence, D hidden, H heads, N crops of all pictures, P patches per crop,
C tower width, T image tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache, GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils.output_capturing import capture_outputs

from .attention import attention_function, eager_attention
from .configuration_phi3_v import Phi3VConfig
from .elementwise import rms_norm, rotate
from .growing_cache import make_room
from .next_token_loss import IGNORE_INDEX, loss_of_states, next_token_loss
from .vision_phi3_v import ChunkPictures, Phi3VImageEmbedding, Phi3VVisionEmbeddings, place_image_features

# Rows longer than this fill a cache in chunks of so many tokens. On a CPU chunks of 512 to 8,192 took the same time;
# longer ones need more memory, shorter ones would leave a GPU idle.
PREFILL_CHUNK = 2048
# Positions of a pass of the MLP that only reads, on a CPU: larger tensors leave the core's cache and come as fresh
# pages every time. Answers from kept features took 0.118 s with it, 0.124 without.
PASS_POSITIONS = 2048


class Phi3VRMSNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, hidden_states: Tensor) -> Tensor:
        return rms_norm(hidden_states, self.weight, self.eps)


class Phi3VRotaryEmbedding(nn.Module):
    """cos and sin tables with Phi-3's two factor lists.

    Frequencies are plain fp32 tensors made from the config, not buffers: `.to(bfloat16)` would otherwise round them
    and shift cos by up to 0.9.
    """

    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__()
        self.config = config
        self._frequencies: dict[torch.device, Tensor] = {}

    def frequencies(self, device: torch.device) -> Tensor:
        """[2, head_dim / 2] fp32: inverse frequencies with short factors, and with long ones."""
        if device not in self._frequencies:
            dim = self.config.head_dim
            base = self.config.rope_theta ** (torch.arange(0, dim, 2, dtype=torch.int64).float() / dim)
            scaling = self.config.rope_scaling
            names = ("short_factor", "long_factor")
            factors = [torch.tensor(scaling[name] if scaling else [1.0] * (dim // 2)) for name in names]
            self._frequencies[device] = torch.stack([1.0 / (factor * base) for factor in factors]).to(device)
        return self._frequencies[device]

    @torch.no_grad()
    def forward(
        self, position_ids: Tensor, dtype: torch.dtype, total_lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tables for every token.

        Each document chooses its factor list by its own length, so that neither its neighbours in a batch nor those
        in a pack change its answer. (The published code chooses once per batch, by the longest row.)

        Args:
            position_ids: [B, S]; within a row a document ends where positions stop rising by one.
            total_lengths: lengths that rows [B], or the documents of all tokens [B, S], will have in the end, for
                prefill in chunks.

        Returns:
            cos, sin: [B, S, head_dim], computed in fp32, then cast to `dtype`.
        """
        lengths = document_lengths(position_ids)
        if total_lengths is not None:
            lengths = torch.maximum(lengths, total_lengths.reshape(len(total_lengths), -1))
        is_long = (lengths > self.config.original_max_position_embeddings).long()
        frequencies = self.frequencies(position_ids.device)[is_long]  # [B, S, head_dim / 2]
        angles = position_ids[..., None].float() * frequencies
        angles = torch.cat([angles, angles], dim=-1)
        magnitude = self.config.rope_magnitude
        return (angles.cos() * magnitude).to(dtype), (angles.sin() * magnitude).to(dtype)


def document_lengths(position_ids: Tensor) -> Tensor:
    """[B, S] length so far of the document that each token belongs to: its largest position plus one."""
    documents = document_numbers(position_ids)
    largest = torch.zeros_like(position_ids).scatter_reduce(1, documents, position_ids, "amax")
    return largest.gather(1, documents) + 1


def document_numbers(position_ids: Tensor) -> Tensor:
    """[B, S] number of the document within its row: a new one starts where positions stop rising by one."""
    return functional.pad(position_ids[:, 1:] != position_ids[:, :-1] + 1, (1, 0)).cumsum(dim=1)


@dataclass(frozen=True)
class KeptPositions:
    """The positions whose output somebody will read: in the last layer the others need keys and values only.

    Args:
        positions: [B, S] bool.
        index: [B, K] the kept positions of each row, filled up with 0.
        is_real: [B, K] bool, False for the filling.
        mask: [B, 1, K, S] additive mask: causal, within a query's own document, without padding.
    """

    positions: Tensor
    index: Tensor
    is_real: Tensor
    mask: Tensor

    @classmethod
    def of(
        cls, positions: Tensor, position_ids: Tensor, attention_mask: Tensor | None, dtype: torch.dtype
    ) -> KeptPositions:
        counts = positions.sum(dim=1)
        order = positions.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, : int(counts.max())]
        is_real = torch.arange(order.shape[1], device=order.device) < counts[:, None]
        index = order.masked_fill(~is_real, 0)
        documents = document_numbers(position_ids).expand_as(positions)
        keys = torch.arange(positions.shape[1], device=positions.device)
        allowed = (keys <= index[..., None]) & (documents[:, None] == documents.gather(1, index)[..., None])
        if attention_mask is not None:
            allowed &= attention_mask[:, None].bool()
        # A row of filling may see nothing: it has to see something, or its softmax is not a number.
        allowed |= ~is_real[..., None]
        mask = torch.zeros(allowed.shape, dtype=dtype, device=positions.device)
        return cls(positions, index, is_real, mask.masked_fill_(~allowed, torch.finfo(dtype).min)[:, None])

    def gather(self, states: Tensor) -> Tensor:
        """[B, H, S, d] -> [B, H, K, d]."""
        index = self.index[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[-1])
        return states.gather(2, index)


class Phi3VAttention(nn.Module):
    is_causal = True

    def __init__(self, config: Phi3VConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_key_value_groups
        self.scaling = self.head_dim**-0.5
        self.q_width = config.num_attention_heads * self.head_dim
        self.kv_width = self.q_width // config.num_key_value_groups
        self.qkv_proj = nn.Linear(config.hidden_size, self.q_width + 2 * self.kv_width, bias=False)
        self.o_proj = nn.Linear(self.q_width, config.hidden_size, bias=False)

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        past_key_values: Cache | None = None,
        kept: KeptPositions | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """[B, S, D] -> [B, S, D], or [num_kept, D] where only `kept` positions are asked for."""
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key, value = self.qkv_proj(hidden_states).split([self.q_width, self.kv_width, self.kv_width], dim=-1)
        query, key, value = (states.view(shape).transpose(1, 2) for states in (query, key, value))
        cos, sin = (table[:, None] for table in position_embeddings)
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        weights: Tensor | None
        if kept is not None:
            output, weights = eager_attention(
                self, kept.gather(query).to(value.dtype), key.to(value.dtype), value, kept.mask, self.scaling
            )
            return self.o_proj(output[kept.is_real].flatten(1)), weights
        output, weights = attention_function(self.config)(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.config.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.o_proj(output.reshape(*hidden_states.shape[:-1], -1)), weights


class Phi3VMLP(nn.Module):
    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.activation_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: Tensor) -> Tensor:
        if fits_one_pass(hidden_states):
            return self._forward(hidden_states)
        parts = torch.split(hidden_states.flatten(0, -2), PASS_POSITIONS)
        return torch.cat([self._forward(part) for part in parts]).view_as(hidden_states)

    def _forward(self, hidden_states: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(hidden_states).chunk(2, dim=-1)
        return self.down_proj(up * self.activation_fn(gate))


def fits_one_pass(hidden_states: Tensor) -> bool:
    """Whether [..., D] states are few, or gradients or another device than a CPU make one pass the better way."""
    is_read_on_cpu = hidden_states.device.type == "cpu" and not torch.is_grad_enabled()
    return not is_read_on_cpu or hidden_states.shape[:-1].numel() <= PASS_POSITIONS


class Phi3VDecoderLayer(GradientCheckpointingLayer):
    def __init__(self, config: Phi3VConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = Phi3VAttention(config, layer_idx)
        self.mlp = Phi3VMLP(config)
        self.input_layernorm = Phi3VRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = Phi3VRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        kept: KeptPositions | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """[B, S, D] -> [B, S, D], or [num_kept, D] where only `kept` positions are asked for."""
        attended, _ = self.self_attn(
            self.input_layernorm(hidden_states), position_embeddings, attention_mask, past_key_values, kept, **kwargs
        )
        if kept is not None:
            hidden_states = hidden_states[kept.positions]
        hidden_states = hidden_states + self.dropout(attended)
        return hidden_states + self.dropout(self.mlp(self.post_attention_layernorm(hidden_states)))


class Phi3VPreTrainedModel(PreTrainedModel):
    config_class = Phi3VConfig
    config: Phi3VConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Phi3VDecoderLayer", "Phi3VVisionLayer"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": Phi3VDecoderLayer, "attentions": Phi3VAttention}  # noqa: RUF012
    # The published class registers embed_tokens twice (`wte`) and old CLIP code kept position_ids as a buffer.
    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
        r"vision_embed_tokens\.wte\.weight$",
        r"embeddings\.position_ids$",
    ]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Normal initialisation; separators and class token start small instead of undefined."""
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, Phi3VVisionEmbeddings):
            nn.init.normal_(module.class_embedding, std=std)
        elif isinstance(module, Phi3VImageEmbedding):
            nn.init.normal_(module.glb_GN, std=std)
            nn.init.normal_(module.sub_GN, std=std)


class Phi3VModel(Phi3VPreTrainedModel):
    """Decoder with pictures; no head."""

    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__(config)
        # padding_idx: the row of <|endoftext|> gets no gradient, as published (its row of lm_head does).
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.embed_dropout = nn.Dropout(config.embd_pdrop)
        self.vision_embed_tokens = Phi3VImageEmbedding(config)
        self.layers = nn.ModuleList(Phi3VDecoderLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = Phi3VRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = Phi3VRotaryEmbedding(config)
        self.gradient_checkpointing = False
        self.post_init()

    def embed(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None,
        image_sizes: Tensor | None,
        image_features: Tensor | None = None,
        *,
        expects_pictures: bool = True,
    ) -> Tensor:
        """[B, S] ids with picture placeholders -> [B, S, D]; `input_ids` is left unchanged.

        Raises:
            ValueError: placeholders without pictures, pictures without placeholders, or different counts. The
                published model ignores such pictures silently, which is how blind models get trained.
        """
        embeds = self.embed_dropout(self.embed_tokens(input_ids.clamp(min=0)))
        if not self._has_pictures(input_ids, pixel_values, image_sizes, image_features, expects_pictures):
            return embeds
        vision, image_sizes = self.vision_embed_tokens, cast(Tensor, image_sizes)
        if image_features is None:
            image_features = vision.encode_crops(cast(Tensor, pixel_values), image_sizes)
        projected = vision.project(image_features, image_sizes)
        return place_image_features(embeds, input_ids, projected, vision.num_tokens(image_sizes))

    @staticmethod
    def _has_pictures(
        input_ids: Tensor,
        pixel_values: Tensor | None,
        image_sizes: Tensor | None,
        image_features: Tensor | None,
        expects_pictures: bool,
    ) -> bool:
        """Whether there are places and pictures for them; ValueError where one is there without the other."""
        has_pictures = pixel_values is not None or image_features is not None
        if not bool((input_ids < 0).any()):
            if has_pictures and expects_pictures:
                raise ValueError("pictures were given, but input_ids hold no picture placeholders (negative ids)")
            return False
        if not has_pictures or image_sizes is None:
            raise ValueError("input_ids hold picture placeholders, but pixel_values or image_sizes are missing")
        return True

    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        image_features: Tensor | None = None,
        total_lengths: Tensor | None = None,
        kept_positions: Tensor | None = None,
        states_to_keep: int = 0,
        prefill_chunk_size: int | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Hidden states after the final norm: [B, S, D], or [num_kept, D] with `kept_positions`.

        Long rows that only fill a cache run in chunks, one after the other through all layers: activations and the
        tower's features are then those of one chunk. It is done where no gradient, hidden states or attentions are
        asked for and a mask is [B, S]; factors are those of the final length, so that chunks change no answer.

        Args:
            input_ids: [B, S]; picture k of a row is a run of the id -k.
            attention_mask: [B, S] (with a cache: past and present), 1 for real tokens. None for packed rows.
            position_ids: [B, S]; restarting positions mark the documents of a packed row.
            pixel_values: [n, num_crops + 1, 3, side, side], pictures in the order of their placeholders.
            image_sizes: [n, 2] (height, width) of the padded pictures in pixels.
            image_features: [N, P, C] kept output of `encode_crops`, instead of `pixel_values`.
            total_lengths: [B] final row lengths, when a long prompt is fed in chunks by several calls.
            kept_positions: [B, S] bool; the last layer computes these alone. Not with a cache.
            states_to_keep: only the last so many positions are returned (0: all).
            prefill_chunk_size: tokens of each row in a chunk, None for `PREFILL_CHUNK`; shorter rows are not cut.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        is_packed = (
            attention_mask is None
            and past_key_values is None
            and position_ids is not None
            and bool((document_numbers(position_ids) > 0).any())
        )
        if use_cache is None:
            # transformers keeps the documents of a pack apart only where there is no cache.
            use_cache = self.config.use_cache and not self.training and not is_packed
        elif use_cache and is_packed:
            raise ValueError("packed rows cannot fill a cache: their documents would see each other; use_cache=False")
        past_length = past_key_values.get_seq_length() if past_key_values is not None else 0
        given = cast(Tensor, inputs_embeds if input_ids is None else input_ids)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            position_ids = torch.arange(past_length, past_length + given.shape[1], device=given.device)[None]
        records = any(
            kwargs.get(name, getattr(self.config, name, False))
            for name in ("output_hidden_states", "output_attentions")
        )
        chunk_size = prefill_chunk_size or PREFILL_CHUNK
        if (
            given.shape[1] > chunk_size
            and use_cache
            and not torch.is_grad_enabled()
            and kept_positions is None
            and not records
            and (attention_mask is None or attention_mask.shape == (len(given), past_length + given.shape[1]))
        ):
            pictures = None
            if input_ids is not None and self._has_pictures(
                input_ids, pixel_values, image_sizes, image_features, past_length == 0
            ):
                pictures = ChunkPictures(
                    self.vision_embed_tokens, input_ids, cast(Tensor, image_sizes), pixel_values, image_features
                )
            return self._prefill_in_chunks(
                chunk_size,
                given,
                pictures,
                attention_mask,
                position_ids,
                cast(Cache, past_key_values),
                total_lengths,
                states_to_keep,
                **kwargs,
            )
        embeds = given
        if input_ids is not None:
            embeds = self.embed(input_ids, pixel_values, image_sizes, image_features, expects_pictures=past_length == 0)
        # Padding behind a row is seen by padding alone: plain causal attention does, and kernels are fastest with it.
        is_plain = past_key_values is None and is_padded_behind(attention_mask)
        if past_length == 0 and past_key_values is not None and embeds.device.type == "cpu":
            make_room(past_key_values, len(self.layers), embeds.shape[1])
        causal_mask = create_causal_mask(
            config=self.config,
            inputs_embeds=embeds,
            attention_mask=None if is_plain else attention_mask,
            past_key_values=past_key_values,
            position_ids=None if is_plain else position_ids,
        )
        tables = self.rotary_emb(position_ids, embeds.dtype, total_lengths)
        # A prompt of which only the end is asked for, as when an answer begins: the last layer computes that alone.
        reads_end = (
            kept_positions is None
            and not records
            and past_length == 0
            and states_to_keep == 1
            and embeds.shape[1] > 1
            and type(past_key_values) in (type(None), DynamicCache)  # others return more keys than they were given
            and (attention_mask is None or attention_mask.shape == embeds.shape[:2])
        )
        if reads_end:
            kept_positions = torch.zeros(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
            kept_positions[:, -1] = True
        kept = None
        if kept_positions is not None:
            kept = KeptPositions.of(kept_positions, position_ids, attention_mask, self.norm.weight.dtype)
        hidden_states = embeds
        for number, layer in enumerate(self.layers, start=1):
            hidden_states = layer(
                hidden_states,
                position_embeddings=tables,
                attention_mask=causal_mask,
                past_key_values=past_key_values,
                kept=kept if number == len(self.layers) else None,
                position_ids=position_ids,
                **kwargs,
            )
        if reads_end:
            hidden_states = hidden_states[:, None]
        elif states_to_keep and not records and kept is None:
            hidden_states = hidden_states[:, -states_to_keep:]
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(hidden_states),
            past_key_values=past_key_values if use_cache else None,
        )

    def _prefill_in_chunks(
        self,
        size: int,
        given: Tensor,
        pictures: ChunkPictures | None,
        attention_mask: Tensor | None,
        position_ids: Tensor,
        past_key_values: Cache,
        total_lengths: Tensor | None,
        states_to_keep: int,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """`forward` for one part of the rows after the other; `given` are ids [B, S] or embeddings [B, S, D]."""
        length, past_length = given.shape[1], int(past_key_values.get_seq_length())
        make_room(past_key_values, len(self.layers), length)
        first_kept = length - states_to_keep if states_to_keep else 0
        lengths = document_lengths(position_ids)
        if total_lengths is not None:
            lengths = torch.maximum(lengths, total_lengths.reshape(len(total_lengths), -1))
        states = []
        for start in range(0, length, size):
            end = min(length, start + size)
            embeds = given[:, start:end]
            if given.ndim == 2:
                embeds = self.embed_dropout(self.embed_tokens(embeds.clamp(min=0)))
            if pictures is not None:
                embeds = pictures.place(embeds, given[:, start:end], start)
            output = self(
                inputs_embeds=embeds,
                attention_mask=None if attention_mask is None else attention_mask[:, : past_length + end],
                position_ids=position_ids[:, start:end],
                past_key_values=past_key_values,
                total_lengths=lengths[:, start:end],
                prefill_chunk_size=size,
                use_cache=True,
                **kwargs,
            )
            if end > first_kept:
                states.append(output.last_hidden_state[:, max(0, first_kept - start) :])
        return BaseModelOutputWithPast(last_hidden_state=torch.cat(states, dim=1), past_key_values=past_key_values)


def is_padded_behind(attention_mask: Tensor | None) -> bool:
    """Whether every row of a [B, S] mask is ones, then zeros."""
    if attention_mask is None or attention_mask.ndim != 2:
        return False
    return bool((attention_mask[:, 1:] <= attention_mask[:, :-1]).all())


class Phi3VForConditionalGeneration(Phi3VPreTrainedModel, GenerationMixin):
    """Phi-3-Vision with its language head; a drop-in for transformers' Auto classes, Trainer, PEFT and TRL."""

    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__(config)
        self.model = Phi3VModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()
        self._set_stop_tokens()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        loaded = super().from_pretrained(*args, **kwargs)
        # With output_loading_info=True transformers returns a pair.
        (loaded[0] if isinstance(loaded, tuple) else loaded)._set_stop_tokens()
        return loaded

    def _set_stop_tokens(self) -> None:
        """Stop on <|end|> and <|endoftext|>: published files name token 2, which this model never writes."""
        stale = self.generation_config.eos_token_id in (None, 2, [2])
        if stale:
            self.generation_config.eos_token_id = self.config.answer_stop_ids
        self.generation_config.pad_token_id = self.config.pad_token_id

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        image_features: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        answer_only: bool = False,
        with_logits: bool = True,
        num_items_in_batch: int | Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits, and with labels the next-token loss.

        Args:
            labels: [B, S]; negative values (IGNORE_INDEX, picture placeholders) are not scored.
            logits_to_keep: only the last so many positions get logits (0: all).
            answer_only: with labels, compute logits only where the next token is scored: [num_scored, vocab] instead
                of [B, S, vocab].
            with_logits: False, with `answer_only`: return the loss alone, for which few logits are held at a time.
            num_items_in_batch: divide the summed loss by this instead of by the number of scored tokens here.

        Other arguments: see `Phi3VModel.forward`.
        """
        scored = targets = None
        if labels is not None:
            targets = functional.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX)
            # Recorded hidden states must keep their shape, so the last layer is shortened only without them.
            if answer_only and not kwargs.get("output_hidden_states") and past_key_values is None:
                scored = targets >= 0
                kwargs["use_cache"] = False
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            pixel_values=pixel_values,
            image_sizes=image_sizes,
            image_features=image_features,
            kept_positions=scored,
            states_to_keep=logits_to_keep if isinstance(logits_to_keep, int) else 0,
            **kwargs,
        )
        hidden_states = outputs.last_hidden_state
        loss = None
        if scored is not None and targets is not None:
            if with_logits:
                logits = self.lm_head(hidden_states)
                loss = next_token_loss(logits, targets[scored], num_items_in_batch)
            else:
                logits, wanted = None, targets[scored]
                loss = loss_of_states(hidden_states, wanted, self.lm_head, self.config.vocab_size, num_items_in_batch)
        else:
            kept = (
                hidden_states[:, -logits_to_keep:]
                if isinstance(logits_to_keep, int)
                else hidden_states[:, logits_to_keep]
            )
            logits = self.lm_head(kept)
            if targets is not None:
                loss = next_token_loss(logits.flatten(0, 1), targets.flatten(), num_items_in_batch)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _prefill(
        self, input_ids: Tensor, generation_config: GenerationConfig, model_kwargs: dict[str, Any], **kwargs: Any
    ) -> Any:
        """Leave `generate(prefill_chunk_size=...)` to `Phi3VModel.forward`, also where a row is fed again later.

        transformers would split the prompt here: it refuses pictures then, and no chunk knows the final length.
        """
        if generation_config.prefill_chunk_size is not None:
            model_kwargs["prefill_chunk_size"] = generation_config.prefill_chunk_size
            generation_config.prefill_chunk_size = None
        return super()._prefill(input_ids, generation_config, model_kwargs, **kwargs)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        past_key_values: Cache | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        image_features: Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As in transformers, and: where a row grows past the short-factor length, start again without the cache.

        Keys in the cache were rotated with the short factors; from that length on they need the long ones. The
        pictures have to be inserted again on that one recomputation.
        """
        past_length = past_key_values.get_seq_length() if past_key_values is not None else 0
        if past_length and self._crosses(input_ids, attention_mask, past_length):
            past_key_values, past_length = None, 0
            kwargs["next_sequence_length"] = None
            kwargs.pop("position_ids", None)
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        if past_length == 0:
            inputs |= {
                "pixel_values": pixel_values,
                "image_sizes": image_sizes,
                "image_features": image_features,
            }
        if inputs.get("position_ids") is None and attention_mask is not None and attention_mask.ndim == 2:
            positions = (attention_mask.long().cumsum(-1) - 1).masked_fill(attention_mask == 0, 1)
            inputs["position_ids"] = positions[:, -inputs["input_ids"].shape[1] :]
        return inputs

    def _crosses(self, input_ids: Tensor, attention_mask: Tensor | None, past_length: int) -> bool:
        """Whether any row was in the short-factor range when cached and leaves it with this step."""
        limit = self.config.original_max_position_embeddings
        if self.config.rope_scaling is None:
            return False
        if attention_mask is None or attention_mask.ndim != 2:
            return past_length <= limit < input_ids.shape[1]
        before = attention_mask[:, :past_length].sum(-1)
        return bool(((before <= limit) & (attention_mask.sum(-1) > limit)).any())
