"""The pictures that an export is compared on and carries with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Literal

import numpy as np
from PIL import Image

from appraiser.data.dataset import ProductDataset
from appraiser.data.pictures import decode, encode
from appraiser.data.samples.drawing import encode_jpeg
from appraiser.data.samples.items import draw_item, iter_products
from appraiser.errors import DataError

NUM_PRODUCTS = 20
MAX_BYTES = 300_000
"""Larger pictures are scaled down: the references must not outweigh a small model."""
MAX_SIDE = 1008
"""Three crops of 336 px along the longer side, where a picture is scaled down."""
SAMPLE_SEED = 20
Origin = Literal["val", "test", "sample"]
# Validation first: a test picture that is published with a model is none for the next one.
SPLITS: tuple[Origin, ...] = ("val", "test")


@dataclass(frozen=True)
class ReferenceProduct:
    """One product: JPEG or PNG files of its pictures, and where they come from."""

    id: str
    origin: Origin
    pictures: tuple[bytes, ...]

    @property
    def images(self) -> list[Image.Image]:
        return [decode(data) for data in self.pictures]


def reference_products(dataset: ProductDataset | None, count: int = NUM_PRODUCTS) -> list[ReferenceProduct]:
    """Products spread over the data set's validation split, then its test split; the rest is rendered.

    Args:
        dataset: None: all are rendered.
    """
    own = chain.from_iterable(_of_split(dataset, name, count) for name in SPLITS) if dataset else iter(())
    found = list(islice(own, count))
    return found + list(islice(_rendered(), count - len(found)))


def _of_split(dataset: ProductDataset, name: Origin, count: int) -> Iterator[ReferenceProduct]:
    try:
        records = dataset.split(name)
    except DataError:
        return  # an empty split, or a file that is gone: there are other pictures
    positions = np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int)
    for position in sorted(set(positions.tolist())):
        record = records[position]
        yield ReferenceProduct(record.id, name, tuple(map(_small, record.images)))


def _small(data: bytes) -> bytes:
    """The picture itself, or scaled down where its file is large."""
    if len(data) <= MAX_BYTES:
        return data
    image = decode(data)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    return encode(image)


def _rendered() -> Iterator[ReferenceProduct]:
    for entry in iter_products(NUM_PRODUCTS, SAMPLE_SEED):
        picture = encode_jpeg(draw_item(entry, SAMPLE_SEED), 90)
        yield ReferenceProduct(f"sample-{entry.item}", "sample", (picture,))


def suffix(data: bytes) -> str:
    """File suffix of JPEG or PNG bytes."""
    return ".png" if data.startswith(b"\x89PNG") else ".jpg"
