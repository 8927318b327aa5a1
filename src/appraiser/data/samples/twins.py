"""Twins: one product rendered twice with one attribute changed and everything else equal, and what the change costs.

A model that reads prices off pictures has to move its price from the first twin to the second as the truth moves; one
that recognises types and otherwise guesses does not move at all.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from appraiser.data.samples import pricing
from appraiser.data.samples.attributes import SIZES, TYPES, Product, draw_product, resolved_category
from appraiser.data.samples.drawing import draw_scene, encode_jpeg
from appraiser.data.samples.items import Purpose, stream
from appraiser.data.samples.scenes import make_scene
from appraiser.data.samples.titles import make_title

Attribute = Literal["material", "size", "pattern", "hardware"]
ATTRIBUTES: tuple[Attribute, ...] = get_args(Attribute)
COLUMNS = (
    "pair", "attribute", "first", "second", "first_image", "second_image", "first_title", "second_title",
    "first_category", "second_category", "first_oracle_price", "second_oracle_price", "log_price_change",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Twins:
    """A product and the same with another value of one attribute."""

    pair: int
    attribute: Attribute
    first: Product
    second: Product

    @property
    def log_price_change(self) -> float:
        """ln of the second's price without noise over the first's."""
        return math.log(pricing.oracle_price(self.second) / pricing.oracle_price(self.first))

    def image(self, which: Literal["first", "second"]) -> str:
        """Path of a picture relative to the catalogue folder."""
        return f"twins/{self.pair:06d}-{which}.jpg"


def iter_twins(num_pairs: int, seed: int) -> Iterator[Twins]:
    """The first pairs of a seed; pair k depends on the seed and k alone. Attributes take turns."""
    for pair in range(num_pairs):
        rng = stream(seed, pair, Purpose.TWIN)
        attribute = ATTRIBUTES[pair % len(ATTRIBUTES)]
        while True:
            first = draw_product(rng)
            others = [value for value in _values(first, attribute) if value != getattr(first, attribute)]
            if others:  # a t-shirt has no other hardware than none
                break
        changed: dict[str, Any] = {attribute: others[int(rng.integers(len(others)))]}
        yield Twins(pair, attribute, first, replace(first, **changed))


def _values(product: Product, attribute: Attribute) -> tuple[str, ...]:
    kind = TYPES[product.type]
    known = {"material": kind.materials, "size": SIZES, "pattern": kind.patterns, "hardware": kind.hardware}
    return tuple(dict.fromkeys(known[attribute]))


def write_twins(folder: Path, num_pairs: int, seed: int, size: int) -> None:
    """Write `twins.csv` and the pictures into `twins/` of a catalogue folder."""
    (folder / "twins").mkdir()
    with (folder / "twins.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for twins in iter_twins(num_pairs, seed):
            table.writerow(_row(twins))
            _draw(folder / twins.image("first"), twins.first, twins.pair, seed, size)
            _draw(folder / twins.image("second"), twins.second, twins.pair, seed, size)


def _draw(path: Path, product: Product, pair: int, seed: int, size: int) -> None:
    # The same stream for both: pose, light, camera and the cloth's threads are those of one studio session.
    scene = make_scene(product, stream(seed, pair, Purpose.TWIN, part=1))
    path.write_bytes(encode_jpeg(draw_scene(scene, size), scene.quality))


def _row(twins: Twins) -> tuple[str | int | float, ...]:
    first, second = twins.first, twins.second
    return (
        twins.pair, twins.attribute, getattr(first, twins.attribute), getattr(second, twins.attribute),
        twins.image("first"), twins.image("second"), make_title(first), make_title(second),
        resolved_category(first), resolved_category(second), round(pricing.oracle_price(first), 2),
        round(pricing.oracle_price(second), 2), round(twins.log_price_change, 6),
    )  # fmt: skip
