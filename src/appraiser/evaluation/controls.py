"""The same model on wrong pictures: does it need them?

shuffled: every product gets another product's picture. same_category: another one of the same category. blank: white.
A model that scores as well with them does not look.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from appraiser.data.pictures import decode
from appraiser.data.records import ProductRecord
from appraiser.predict import Prediction

CONTROLS = ("shuffled", "same_category", "blank")


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
    answer: Callable[[Sequence[Sequence[Image.Image]]], list[Prediction]],
) -> list[Prediction]:
    """Answers to the pictures that the control `name` shows instead of each record's own.

    An answer depends on the pictures alone, so another product's picture has been answered already, and white pictures
    of one size are answered once.

    Args:
        predictions: of the records' own pictures.
    """
    if name != "blank":
        keys = [record.category if name == "same_category" else None for record in records]
        return [predictions[row] for row in derangement(keys)]
    sizes = [tuple(decode(data).size for data in record.images) for record in records]
    different = list(dict.fromkeys(sizes))
    answers = answer([[Image.new("RGB", size, (255, 255, 255)) for size in pictures] for pictures in different])
    return [answers[different.index(pictures)] for pictures in sizes]
