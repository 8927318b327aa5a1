"""Chat text and pictures -> `input_ids` with picture placeholders, as the published processor builds them.

Picture k of a prompt is a run of the id -k, one per image token. Text between picture tags is tokenized chunk by
chunk, each with its own BOS. Where the published processor lets doubtful input pass (tags without pictures, repeated
or out-of-order tags), this one refuses: the published model would silently put the wrong picture there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerFast, ProcessorMixin

from .image_processing_phi3_v import Phi3VImageProcessor

IMAGE_TAG = re.compile(r"<\|image_(\d+)\|>")
HUB_KEYWORDS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")

# As the published processor lists them; engines index this list by the picture's number.
IMAGE_TAGS = [f"<|image_{number}|>" for number in range(1, 10_001)]

# The published template with picture parts: strings stay as they are, {"type": "image"} parts are numbered.
CHAT_TEMPLATE = (
    "{%- set ns = namespace(pictures=0) -%}"
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>\n' -}}"
    "{%- set ns.text = '' -%}"
    "{%- if message['content'] is string -%}{%- set ns.text = message['content'] -%}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}{%- set ns.pictures = ns.pictures + 1 -%}"
    "{%- set ns.text = ns.text + '<|image_' ~ ns.pictures ~ '|>' -%}"
    "{%- else -%}{%- set ns.text = ns.text + part['text'] -%}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{% generation %}{{- ns.text + '<|end|>\n' -}}{% endgeneration %}"
    "{%- else -%}{{- ns.text + '<|end|>\n' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt and messages[-1]['role'] != 'assistant' -%}{{- '<|assistant|>\n' -}}{%- endif -%}"
)


class Phi3VProcessor(ProcessorMixin):
    """Tokenizer and image processor of one folder in the published layout.

    Args:
        reads_tags_alone: whether text with picture tags may come without pictures, its tags read as text, as the
            published processor does. vLLM asks so, and puts the picture tokens there itself; for anybody else it is
            a picture that was forgotten.
    """

    reads_tags_alone: ClassVar[bool] = False

    def __init__(
        self,
        image_processor: Phi3VImageProcessor,
        tokenizer: PreTrainedTokenizerFast,
        chat_template: str | None = None,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, num_crops: int | None = None, **kwargs: Any
    ) -> Phi3VProcessor:
        """Load from a folder or a Hub id; `num_crops` overrides the folder's crop budget.

        The tokenizer is loaded as PreTrainedTokenizerFast: AutoTokenizer and the Llama classes of transformers 5 build
        another tokenizer from the same files, without a word.
        """
        hub = {key: kwargs[key] for key in HUB_KEYWORDS if key in kwargs}
        image_processor = Phi3VImageProcessor.from_pretrained(pretrained_model_name_or_path, **hub)
        if num_crops is not None:
            image_processor.num_crops = num_crops
        tokenizer = PreTrainedTokenizerFast.from_pretrained(pretrained_model_name_or_path, **hub)
        return cls(image_processor, tokenizer)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> list[str]:
        """Write tokenizer files and `preprocessor_config.json`, the published layout (no processor_config.json)."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        files = list(self.tokenizer.save_pretrained(folder))
        return files + list(self.image_processor.save_pretrained(folder))

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "pixel_values", "image_sizes"]

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        images: Image.Image | Sequence[Image.Image] | Sequence[Sequence[Image.Image]] | None = None,
        *,
        return_tensors: str | None = None,
        num_crops: int | None = None,
        padding_side: str = "left",
        add_special_tokens: bool = True,
        max_length: int | None = None,
        truncation: bool = False,
        return_offsets_mapping: bool = False,
        **kwargs: Any,
    ) -> BatchFeature:
        """Tokenize one prompt or several, with their pictures.

        Args:
            text: a prompt, or a list of prompts. Tags `<|image_1|>`, `<|image_2|>` ... count from 1 in every prompt.
            images: pictures of the one prompt; for several prompts a list per prompt, or one flat list that the
                tags consume in order.
            num_crops: crop budget for this call.
            padding_side: `left`, as generation needs it, or `right`. Rows of one call are always padded together.
            add_special_tokens: BOS for prompts without pictures; chunks beside pictures always have it, as published.

        Returns:
            `input_ids`, `attention_mask` [B, S]; with pictures also `pixel_values` [n, num_crops + 1, 3, S, S] and
            `image_sizes` [n, 2], all rows' pictures in order.

        Raises:
            ValueError: tags and pictures that do not fit each other, or a truncation that would cut a picture.
        """
        if text is None:
            if images is None:
                raise ValueError("give text, pictures or both")
            return self.image_processor(images, return_tensors=return_tensors, num_crops=num_crops)
        prompts = [text] if isinstance(text, str) else list(text)
        is_text_alone = images is None and self.reads_tags_alone
        per_prompt = [[] for _ in prompts] if is_text_alone else self._assign_images(prompts, images)
        pictures = [picture for row in per_prompt for picture in row]
        features = self.image_processor(pictures, num_crops=num_crops) if pictures else None
        counts = iter(features.pop("num_img_tokens") if features is not None else [])
        counts_per_row = [[next(counts) for _ in row] for row in per_prompt]
        encoded = [
            self._encode(prompt, row, add_special_tokens=add_special_tokens)
            for prompt, row in zip(prompts, counts_per_row, strict=True)
        ]
        rows = [ids for ids, _ in encoded]
        if truncation and max_length is not None:
            rows = [self._truncate(row, max_length) for row in rows]
        data: dict[str, Any] = self._pad(rows, padding_side)
        if return_offsets_mapping:
            data["offset_mapping"] = self._pad_offsets([spans for _, spans in encoded], data["attention_mask"])
        if isinstance(text, str) and return_tensors is None and not return_offsets_mapping:
            data = {key: value[0] for key, value in data.items()}
        if features is not None:
            data |= dict(features)
        return BatchFeature(data=data, tensor_type=return_tensors)

    def _assign_images(self, prompts: list[str], images: Any) -> list[list[Image.Image]]:
        """One list of pictures per prompt, checked against its tags."""
        if images is None:
            images = []
        if isinstance(images, Image.Image):
            images = [images]
        nested = [list(row) for row in images] if images and not isinstance(images[0], Image.Image) else None
        if nested is not None:
            if len(nested) != len(prompts):
                raise ValueError(f"{len(prompts)} prompts but pictures for {len(nested)}")
            for prompt, row in zip(prompts, nested, strict=True):
                _check_tags(prompt, len(row))
            return nested
        remaining = list(images)
        if len(prompts) == 1:
            _check_tags(prompts[0], len(remaining))
            return [remaining]
        rows = []
        for prompt in prompts:
            num_tags = len(IMAGE_TAG.findall(prompt))
            _check_tags(prompt, min(num_tags, len(remaining)))
            rows.append(remaining[:num_tags])
            remaining = remaining[num_tags:]
        if remaining:
            raise ValueError(f"{len(remaining)} more pictures than picture tags in the {len(prompts)} prompts")
        return rows

    @property
    def img_tokens(self) -> list[str]:
        """Picture tags, the first picture's first; under the published processor's name, by which vLLM asks."""
        return IMAGE_TAGS

    @property
    def num_img_tokens(self) -> int:
        """Image tokens of one crop; under the published processor's name."""
        return self.image_processor.num_img_tokens

    def calc_num_image_tokens_from_image_size(self, width: int, height: int) -> int:
        """Image tokens of a picture of this size in pixels; under the published processor's name, as vLLM asks."""
        return self.image_processor.num_tokens_for_size(width, height)

    def prompt_ids(self, prompt: str, counts: Sequence[int], *, add_special_tokens: bool = True) -> list[int]:
        """Ids of one prompt whose k-th picture has `counts[k - 1]` image tokens; tags are not checked here."""
        return self._encode(prompt, counts, add_special_tokens=add_special_tokens)[0]

    def _encode(
        self, prompt: str, counts: Sequence[int], *, add_special_tokens: bool
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids, and the characters of `prompt` that each stands for; image tokens stand for none."""
        if not counts:
            encoded = self.tokenizer(prompt, add_special_tokens=add_special_tokens, return_offsets_mapping=True)
            return list(encoded.input_ids), list(encoded.offset_mapping)
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        tags = list(IMAGE_TAG.finditer(prompt))
        starts = [0, *(tag.end() for tag in tags)]
        ends = [*(tag.start() for tag in tags), len(prompt)]
        for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
            encoded = self.tokenizer(prompt[start:end], return_offsets_mapping=True)
            ids += encoded.input_ids
            spans += [(start + first, start + last) for first, last in encoded.offset_mapping]
            if index < len(counts):
                ids += [-(index + 1)] * counts[index]
                spans += [(end, end)] * counts[index]
        return ids, spans

    def _truncate(self, row: list[int], max_length: int) -> list[int]:
        if any(token < 0 for token in row[max_length:]):
            raise ValueError(
                f"max_length {max_length} would cut image tokens of a row of {len(row)} tokens; raise it or lower "
                "num_crops"
            )
        return row[:max_length]

    def _pad(self, rows: list[list[int]], padding_side: str) -> dict[str, list[list[int]]]:
        if padding_side not in ("left", "right"):
            raise ValueError(f"padding_side must be 'left' or 'right', got {padding_side!r}")
        length = max(len(row) for row in rows)
        input_ids, attention_mask = [], []
        for row in rows:
            pad = [self.tokenizer.pad_token_id] * (length - len(row))
            left = padding_side == "left"
            input_ids.append(pad + row if left else row + pad)
            mask = [1] * len(row)
            attention_mask.append([0] * len(pad) + mask if left else mask + [0] * len(pad))
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def _pad_offsets(self, rows: list[list[tuple[int, int]]], mask: list[list[int]]) -> list[list[tuple[int, int]]]:
        """The rows' spans in the places that `mask` marks as real; padding stands for no characters."""
        padded = []
        for spans, real in zip(rows, mask, strict=True):
            following = iter(spans)
            padded.append([next(following) if place else (0, 0) for place in real])
        return padded

    def batch_decode(self, sequences: Any, **kwargs: Any) -> list[str]:
        """Text of each row; picture placeholders (negative ids) have no text and are left out."""
        rows = sequences.tolist() if isinstance(sequences, torch.Tensor) else sequences
        return [self.decode(row, **kwargs) for row in rows]

    def decode(self, token_ids: Any, **kwargs: Any) -> str:
        """Text of one row; picture placeholders (negative ids) have no text and are left out."""
        ids = token_ids.tolist() if isinstance(token_ids, torch.Tensor) else token_ids
        text: str = self.tokenizer.decode([token for token in ids if token >= 0], **kwargs)
        return text


def _check_tags(prompt: str, num_images: int) -> None:
    """Tags must be 1, 2, ... in this order, one per picture. Raises ValueError naming what was found."""
    tags = [int(number) for number in IMAGE_TAG.findall(prompt)]
    if len(tags) != num_images and tags == list(range(1, len(tags) + 1)):
        raise ValueError(f"the prompt has {len(tags)} picture tags but {num_images} pictures were given")
    if tags != list(range(1, num_images + 1)):
        found = ", ".join(f"<|image_{tag}|>" for tag in tags) or "none"
        raise ValueError(
            f"picture tags must be <|image_1|> to <|image_{max(num_images, 1)}|>, each once and in this order; "
            f"found: {found}"
        )
