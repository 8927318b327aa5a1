"""Which records a step trains on: a pure function of (seed, step), whatever ran before and on how many devices.

epoch 0: a permutation of all records   epoch 1: another one   ...          one endless line
step 0 | step 1 | step 2 | ...                                              batch_size records each
rank 0 takes records 0, n, 2n, ... of its step, rank 1 takes 1, n + 1, ...   for n ranks
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np

Draw = tuple[int, int]
"""(epoch, position of the record)."""
T = TypeVar("T")


class RecordOrder:
    """The endless line of records of a run."""

    def __init__(self, num_records: int, batch_size: int, seed: int) -> None:
        self.num_records, self.batch_size, self.seed = num_records, batch_size, seed
        self._permutation = lru_cache(2)(self._new_permutation)

    def _new_permutation(self, epoch: int) -> list[int]:
        return np.random.default_rng([self.seed, epoch]).permutation(self.num_records).tolist()

    def step(self, step: int, rank: int = 0, num_ranks: int = 1) -> list[Draw]:
        """The draws of a step, counted from 0, that one rank takes."""
        return [
            self.at(place) for place in range(step * self.batch_size + rank, (step + 1) * self.batch_size, num_ranks)
        ]

    def at(self, place: int) -> Draw:
        """The draw at a place of the line."""
        epoch, place = divmod(place, self.num_records)
        return epoch, self._permutation(epoch)[place]


def micro_batches(
    examples: Sequence[T], length: Callable[[T], int], most_examples: int, most_tokens: int | None = None
) -> list[list[T]]:
    """Examples of a step, the longest first, in groups that keep both limits; a longer example has its own group.

    Rows of like length share a group, so that little of it is padding. Equal lengths keep their order.
    """
    ordered = sorted(examples, key=length, reverse=True)
    groups: list[list[T]] = []
    for example in ordered:
        group = groups[-1] if groups else []
        # The first of a group is its longest: all are padded to it.
        fits = group and len(group) < most_examples
        if fits and (most_tokens is None or length(group[0]) * (len(group) + 1) <= most_tokens):
            group.append(example)
        else:
            groups.append([example])
    return groups


def split_into(groups: Sequence[list[T]], number: int) -> list[list[T]]:
    """Cut the largest groups until there are `number`: every rank computes equally many."""
    groups = list(groups)
    while len(groups) < number:
        largest = max(range(len(groups)), key=lambda index: len(groups[index]))
        group = groups[largest]
        half = (len(group) + 1) // 2
        groups[largest : largest + 1] = [group[:half], group[half:]]
    return groups
