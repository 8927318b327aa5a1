"""Everything a check knows of the rows: small values per row, so that memory hardly grows with the pictures."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from appraiser.data.checking.measures import Measured
from appraiser.data.looks import LOOK_BYTES
from appraiser.data.records import ProductRecord

NUMBERS = ("width", "height", "num_bytes", "light", "range", "blur", "product")


@dataclass
class Findings:
    """One entry per record in the first lists, one per readable picture in the others.

    Args:
        record: place of the picture's record.
        number: which of its pictures, counted from 1.
        broken: (place of the record, number of the picture, reason) of pictures that cannot be decoded.
    """

    splits: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    titles: list[str | None] = field(default_factory=list)
    categories: list[str | None] = field(default_factory=list)
    prices: list[float | None] = field(default_factory=list)
    currencies: list[str | None] = field(default_factory=list)
    title_tokens: array[int] = field(default_factory=lambda: array("i"))
    answer_tokens: array[int] = field(default_factory=lambda: array("i"))

    record: array[int] = field(default_factory=lambda: array("i"))
    number: array[int] = field(default_factory=lambda: array("h"))
    numbers: dict[str, array[float]] = field(default_factory=lambda: {name: array("d") for name in NUMBERS})
    sha256: bytearray = field(default_factory=bytearray)
    looks: bytearray = field(default_factory=bytearray)
    corners: array[float] = field(default_factory=lambda: array("f"))
    broken: list[tuple[int, int, str]] = field(default_factory=list)

    def add(
        self, split: str, record: ProductRecord, measured: Sequence[Measured | str], title_tokens: int, tokens: int
    ) -> None:
        """Take in a record with the measures of its pictures."""
        place = len(self.ids)
        self.splits.append(split)
        self.ids.append(record.id)
        self.groups.append(record.group)
        self.titles.append(record.title)
        self.categories.append(record.category)
        self.prices.append(record.price)
        self.currencies.append(record.currency)
        self.title_tokens.append(title_tokens)
        self.answer_tokens.append(tokens)
        for number, picture in enumerate(measured, start=1):
            if isinstance(picture, str):
                self.broken.append((place, number, picture))
                continue
            self.record.append(place)
            self.number.append(number)
            for name, values in self.numbers.items():
                values.append(getattr(picture, name))
            self.sha256 += picture.sha256
            self.looks += picture.look
            self.corners.extend(picture.corners.tolist())

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_pictures(self) -> int:
        """Readable pictures."""
        return len(self.record)

    def picture_numbers(self, name: str) -> NDArray[np.float64]:
        """[pictures] of one of `NUMBERS`."""
        return np.array(self.numbers[name])

    def picture_hashes(self) -> list[bytes]:
        """Content hash of every picture."""
        return [bytes(self.sha256[start : start + 16]) for start in range(0, len(self.sha256), 16)]

    def picture_looks(self) -> NDArray[np.uint8]:
        """[pictures, 800] fingerprints."""
        return np.frombuffer(bytes(self.looks), np.uint8).reshape(-1, LOOK_BYTES)

    def picture_corners(self) -> NDArray[np.float32]:
        """[pictures, 16] colour and unrest of the corners."""
        return np.array(self.corners, dtype=np.float32).reshape(-1, 16)
