"""Examples -> Batch: what one micro-batch feeds to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from appraiser.backbone import IGNORE_INDEX, Backbone, Features, Views


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

    @property
    def num_supervised(self) -> int:
        """Tokens that the loss scores."""
        return int((self.labels[:, 1:] != IGNORE_INDEX).sum())

    @property
    def num_tokens(self) -> int:
        """Real tokens, padding left out."""
        return int(self.inputs["attention_mask"].sum())

    def to(self, device: torch.device) -> Batch:
        moved = {key: value.to(device, non_blocking=True) for key, value in self.inputs.items()}
        return Batch(self.record_ids, moved, self.labels.to(device, non_blocking=True))


def collate(examples: Sequence[Example], backbone: Backbone, *, padding_side: str = "right") -> Batch:
    """Pad examples into one batch: right for training, left for generation.

    Returns:
        `input_ids`, `attention_mask`, `position_ids` [B, S] and the pictures of all rows in order; labels [B, S] with
        IGNORE_INDEX on prompts and padding.
    """
    length = max(len(example.input_ids) for example in examples)
    input_ids = torch.full((len(examples), length), backbone.pad_token_id)
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
        inputs |= backbone.collate_pictures(pictures)
    return Batch(tuple(example.record_id for example in examples), inputs, labels)
