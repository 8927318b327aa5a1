"""The same model on wrong pictures: does it need them, and which part of them?

shuffled: every product gets another product's picture. same_category: another one of the same category. blank: white.
surroundings: the rim of the product's own picture, its middle painted over. A model that scores as well with the first
three does not look; one that scores nearly as well with the last looks at where the picture was taken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from PIL import Image

from appraiser.data.pictures import decode, picture_size
from appraiser.data.records import ProductRecord
from appraiser.predict import Prediction

CONTROLS = ("shuffled", "same_category", "blank", "surroundings")
RIM = 0.1
"""Of each side: what `surroundings` leaves of the picture, all around."""

Pictures = Iterable[Sequence[Image.Image]]


def derangement(keys: Sequence[str | None], seed: int = 0) -> list[int]:
    """For each row another row with the same key; rows alone with their key keep themselves.

    A random cycle through the rows of each key, so no row of a larger key keeps its own.
    """
    rng = np.random.default_rng(seed)
    members: dict[str | None, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        members[key].append(row)
    chosen = list(range(len(keys)))
    for rows in members.values():
        order = rng.permutation(rows)
        for here, there in zip(order, np.roll(order, 1), strict=True):
            chosen[int(here)] = int(there)
    return chosen


def control_predictions(
    name: str,
    records: Sequence[ProductRecord],
    predictions: Sequence[Prediction],
    answer: Callable[[Pictures], list[Prediction]],
) -> list[Prediction]:
    """Answers to the pictures that the control `name` shows instead of each record's own.

    An answer depends on the pictures alone, so another product's picture has been answered already, and white pictures
    of one size are answered once.

    Args:
        predictions: of the records' own pictures.
    """
    if name == "surroundings":
        return answer([without_middle(decode(data)) for data in record.images] for record in records)
    if name != "blank":
        keys = [record.category if name == "same_category" else None for record in records]
        return [predictions[row] for row in derangement(keys)]
    sizes = [tuple(picture_size(data) for data in record.images) for record in records]
    different = list(dict.fromkeys(sizes))
    answers = answer([Image.new("RGB", size, (255, 255, 255)) for size in pictures] for pictures in different)
    return [answers[different.index(pictures)] for pictures in sizes]


def without_middle(image: Image.Image) -> Image.Image:
    """The picture with all but its rim in the rim's mean colour: nothing of the product but what touches the edge."""
    pixels = np.asarray(image, dtype=np.float64)
    height, width = pixels.shape[:2]
    top, left = max(1, round(height * RIM)), max(1, round(width * RIM))
    is_rim = np.ones((height, width), dtype=bool)
    is_rim[top : height - top, left : width - left] = False
    painted = np.where(is_rim[..., None], pixels, pixels[is_rim].mean(axis=0))
    return Image.fromarray(np.round(painted).astype(np.uint8))
