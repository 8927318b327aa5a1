"""The latest items of an endless stream, each used several times: to draw a picture costs a third of training on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")


class Replay(Generic[T]):
    """Holds the latest `capacity` items of the stream `make(first)`, `make(first + stride)`, ...

    Which ones a batch gets follows from the seed alone, so a run can be made again.
    """

    def __init__(self, make: Callable[[int], T], first: int, stride: int, capacity: int, seed: list[int]) -> None:
        self._make = make
        self._next, self._stride = first, stride
        self._items: list[T] = []
        self._capacity, self._oldest = capacity, 0
        self.rng = np.random.default_rng(np.random.SeedSequence(seed))

    def add(self, num: int) -> None:
        """Make the next items, in place of the oldest once the store is full."""
        for _ in range(num):
            item = self._make(self._next)
            self._next += self._stride
            if len(self._items) < self._capacity:
                self._items.append(item)
            else:
                self._items[self._oldest] = item
                self._oldest = (self._oldest + 1) % self._capacity

    def draw(self, num: int) -> list[T]:
        """`num` different items."""
        return [self._items[index] for index in self.rng.choice(len(self._items), num, replace=False)]
