"""Examples -> Batch: what one micro-batch feeds to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from appraiser.backbone import IGNORE_INDEX, Features, Reader, Views


@dataclass(frozen=True)
class Example:
    """One record as the model reads it.

    Args:
        input_ids: [S] prompt with picture placeholders, then the completion (none for generation).
        labels: [S] the same ids where they are supervised, IGNORE_INDEX elsewhere.
        pictures: the record's views, in the order of their placeholders.
    """

    record_id: str
    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    pictures: tuple[Views | Features, ...]


@dataclass(frozen=True)
class Batch:
    """Tensors of one micro-batch; `inputs` are keyword arguments of the model."""

    record_ids: tuple[str, ...]
    inputs: dict[str, Tensor]
    labels: Tensor
    num_tokens: int
    """Real tokens, padding left out."""
    reference: Tensor | None = None
    """[num_examples] numbers that an objective compares with."""

    @property
    def num_examples(self) -> int:
        return len(self.record_ids)

    def row_numbers(self, kept: Tensor) -> Tensor:
        """[n] number of the example that each of the kept positions [B, S] belongs to, also in a pack."""
        if len(kept) == self.num_examples:
            numbers = torch.arange(len(kept), device=kept.device)[:, None].expand_as(kept)
        else:
            numbers = (self.inputs["position_ids"] == 0).cumsum(-1) - 1
        return numbers[kept]

    @property
    def num_supervised(self) -> int:
        """Tokens that the loss scores."""
        return int((self.labels[:, 1:] != IGNORE_INDEX).sum())

    def to(self, device: torch.device) -> Batch:
        moved = {key: value.to(device, non_blocking=True) for key, value in self.inputs.items()}
        return replace(self, inputs=moved, labels=self.labels.to(device, non_blocking=True))


def collate(examples: Sequence[Example], reader: Reader, *, padding_side: str = "right") -> Batch:
    """Pad examples into one batch: right for training, left for generation.

    Returns:
        `input_ids`, `attention_mask`, `position_ids` [B, S] and the pictures of all rows in order; labels [B, S] with
        IGNORE_INDEX on prompts and padding.
    """
    length = max(len(example.input_ids) for example in examples)
    input_ids = torch.full((len(examples), length), reader.pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, IGNORE_INDEX)
    for row, example in enumerate(examples):
        start = length - len(example.input_ids) if padding_side == "left" else 0
        end = start + len(example.input_ids)
        input_ids[row, start:end] = torch.tensor(example.input_ids)
        attention_mask[row, start:end] = 1
        labels[row, start:end] = torch.tensor(example.labels)
    position_ids = (attention_mask.cumsum(-1) - 1).masked_fill(attention_mask == 0, 1)
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
    pictures = [picture for example in examples for picture in example.pictures]
    if pictures:
        inputs |= reader.collate_pictures(pictures)
    return Batch(tuple(example.record_id for example in examples), inputs, labels, int(attention_mask.sum()))


def pack(examples: Sequence[Example], reader: Reader) -> Batch:
    """Examples behind each other in one row; positions begin again with each, which is what keeps them apart.

    input_ids     a a a a b b b c c c c c
    position_ids  0 1 2 3 0 1 2 0 1 2 3 4

    Returns:
        `input_ids`, `position_ids` [1, T], no attention mask, and all pictures in order; labels [1, T].
    """
    ids = torch.tensor([token for example in examples for token in example.input_ids])[None]
    positions = torch.cat([torch.arange(len(example.input_ids)) for example in examples])[None]
    labels = torch.cat([torch.tensor(example.labels) for example in examples])[None].clone()
    # The first token of an example is nobody's next token.
    labels[positions == 0] = IGNORE_INDEX
    inputs = {"input_ids": ids, "position_ids": positions}
    pictures = [picture for example in examples for picture in example.pictures]
    if pictures:
        inputs |= reader.collate_pictures(pictures)
    return Batch(tuple(example.record_id for example in examples), inputs, labels, ids.numel())
