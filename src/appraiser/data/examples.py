"""ProductRecord -> Example: the prompt with the record's pictures, and what the model should answer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from PIL import Image

from appraiser.backbone import IGNORE_INDEX, Features, Reader, Views
from appraiser.data.augmentation import Augmentation
from appraiser.data.batches import Batch, Example, collate, pack
from appraiser.data.pictures import decode
from appraiser.data.records import ProductRecord
from appraiser.data.task import Task
from appraiser.errors import DataError

FeaturesOf = Callable[[Sequence[bytes]], Sequence[Features]]


class RecordSequence(Protocol):
    """Records by position: a split, or a list."""

    def __len__(self) -> int: ...
    def __getitem__(self, position: int, /) -> ProductRecord: ...


def prompt_example(reader: Reader, task: Task, record_id: str, pictures: Sequence[Views | Features]) -> Example:
    """What generation starts from: the prompt alone."""
    ids = reader.prompt_ids(task.prompt(len(pictures)), [picture.size for picture in pictures])
    return Example(record_id, tuple(ids), (IGNORE_INDEX,) * len(ids), tuple(pictures))


def training_example(
    reader: Reader, task: Task, record: ProductRecord, pictures: Sequence[Views | Features], max_tokens: int
) -> Example:
    """Prompt and completion; the completion is supervised.

    Raises:
        DataError: longer than `max_tokens`. Nothing is cut: a cut title would teach to stop early, a cut picture
            would not be the picture.
    """
    prompt = prompt_example(reader, task, record.id, pictures)
    return answered(reader, prompt, task.format(record.values(task.fields)), max_tokens)


def answered(reader: Reader, prompt: Example, answer: str, max_tokens: int) -> Example:
    """A prompt followed by its answer, which is supervised; raises as `training_example` does."""
    completion = tuple(reader.completion_ids(answer))
    length = len(prompt.input_ids) + len(completion)
    if length > max_tokens:
        raise DataError(
            f"record {prompt.record_id!r} needs {length} tokens, the limit is {max_tokens}",
            fix="raise data.max_tokens, lower model.num_crops, or shorten the title",
        )
    return Example(prompt.record_id, prompt.input_ids + completion, prompt.labels + completion, prompt.pictures)


class ExampleSource:
    """Training examples of a split.

    Args:
        cache_bytes: memory for processed pictures; those beyond it are processed again in every epoch.
        augmentation: where it changes anything, pictures are new in every epoch and none is kept.
        features: what a frozen tower has seen in pictures, by their bytes; None: the tower sees them in every step.
        features_anew: the same, not as it was kept.
    """

    def __init__(
        self,
        records: RecordSequence,
        reader: Reader,
        task: Task,
        *,
        cache_bytes: int,
        max_tokens: int = sys.maxsize,
        augmentation: Augmentation,
        features: FeaturesOf | None = None,
        features_anew: FeaturesOf | None = None,
    ) -> None:
        self.records = records
        self.reader = reader
        self.task = task
        self.max_tokens = max_tokens
        self.augmentation = augmentation
        self.features = features
        self.features_anew = features_anew or features
        self._cache: dict[int, Example] = {}
        self._free_bytes = cache_bytes

    def __len__(self) -> int:
        return len(self.records)

    def draw(self, epoch: int, position: int) -> Example:
        """The record at `position` as it is shown in an epoch."""
        if position in self._cache:
            return self._cache[position]
        record = self.records[position]
        pictures = self.pictures(record, epoch, position)
        example = training_example(self.reader, self.task, record, pictures, self.max_tokens)
        size = sum(picture.nbytes for picture in pictures)
        if size <= self._free_bytes and not self.augmentation.changes_anything:
            self._free_bytes -= size
            self._cache[position] = example
        return example

    def length(self, example: Example) -> int:
        """Tokens of an example."""
        return len(example.input_ids)

    def join(self, examples: Sequence[Example], *, packed: bool = False) -> Batch:
        """One micro-batch."""
        return (pack if packed else collate)(examples, self.reader)

    def rows(self, examples: Sequence[Example]) -> list[Example]:
        """The rows of a batch of these examples."""
        return list(examples)

    def truth(self, epoch: int, position: int) -> list[tuple[str, Sequence[Views | Features]]]:
        """Answer and pictures of every row, made anew from the record."""
        record = self.records[position]
        return [(self.task.format(record.values(self.task.fields)), self.pictures(record, epoch, position, anew=True))]

    def pictures(
        self, record: ProductRecord, epoch: int, position: int, *, anew: bool = False
    ) -> Sequence[Views | Features]:
        """A record's pictures as they are shown in an epoch."""
        features = self.features_anew if anew else self.features
        if features is not None:
            return features(record.images)
        images = [decode(data) for data in record.images]
        if self.augmentation.changes_anything:
            images = self.augmentation(images, epoch, position)
        return views_of(images, self.reader)


def views_of(images: Sequence[Image.Image], reader: Reader) -> list[Views]:
    """The model's views of RGB pictures."""
    return [reader.views(image) for image in images]
