"""ProductRecord -> Example: the prompt with the record's pictures, and what the model should answer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol

from PIL import Image

from appraiser.backbone import IGNORE_INDEX, Backbone, Features, Views
from appraiser.data.augmentation import Augmentation
from appraiser.data.batches import Example
from appraiser.data.pictures import decode
from appraiser.data.records import ProductRecord
from appraiser.data.task import Task
from appraiser.errors import DataError


class RecordSequence(Protocol):
    """Records by position: a split, or a list."""

    def __len__(self) -> int: ...
    def __getitem__(self, position: int, /) -> ProductRecord: ...


def prompt_example(backbone: Backbone, task: Task, record_id: str, pictures: Sequence[Views | Features]) -> Example:
    """What generation starts from: the prompt alone."""
    ids = backbone.prompt_ids(task.prompt(len(pictures)), [picture.size for picture in pictures])
    return Example(record_id, tuple(ids), (IGNORE_INDEX,) * len(ids), tuple(pictures))


def training_example(
    backbone: Backbone, task: Task, record: ProductRecord, pictures: Sequence[Views], max_tokens: int
) -> Example:
    """Prompt and completion; the completion is supervised.

    Raises:
        DataError: longer than `max_tokens`. Nothing is cut: a cut title would teach to stop early, a cut picture
            would not be the picture.
    """
    prompt = prompt_example(backbone, task, record.id, pictures)
    completion = tuple(backbone.completion_ids(task.format(record.values(task.fields))))
    length = len(prompt.input_ids) + len(completion)
    if length > max_tokens:
        raise DataError(
            f"record {record.id!r} needs {length} tokens, the limit is {max_tokens}",
            fix="raise data.max_tokens, lower model.num_crops, or shorten the title",
        )
    return Example(record.id, prompt.input_ids + completion, prompt.labels + completion, prompt.pictures)


class ExampleSource:
    """Training examples of a split.

    Args:
        cache_bytes: memory for processed pictures; those beyond it are processed again in every epoch.
        augmentation: where it changes anything, pictures are new in every epoch and none is kept.
    """

    def __init__(
        self,
        records: RecordSequence,
        backbone: Backbone,
        task: Task,
        *,
        cache_bytes: int,
        max_tokens: int = sys.maxsize,
        augmentation: Augmentation,
    ) -> None:
        self.records = records
        self.backbone = backbone
        self.task = task
        self.max_tokens = max_tokens
        self.augmentation = augmentation
        self._cache: dict[int, Example] = {}
        self._free_bytes = cache_bytes

    def __len__(self) -> int:
        return len(self.records)

    def draw(self, epoch: int, position: int) -> Example:
        """The record at `position` as it is shown in an epoch."""
        if position in self._cache:
            return self._cache[position]
        record = self.records[position]
        images = [decode(data) for data in record.images]
        if self.augmentation.changes_anything:
            images = self.augmentation(images, epoch, position)
        pictures = views_of(images, self.backbone)
        example = training_example(self.backbone, self.task, record, pictures, self.max_tokens)
        size = sum(picture.nbytes for picture in pictures)
        if size <= self._free_bytes and not self.augmentation.changes_anything:
            self._free_bytes -= size
            self._cache[position] = example
        return example


def views_of(images: Sequence[Image.Image], backbone: Backbone) -> list[Views]:
    """The model's views of RGB pictures."""
    return [backbone.views(image) for image in images]
