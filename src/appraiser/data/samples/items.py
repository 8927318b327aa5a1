"""The endless catalogue of a seed: item k depends on the seed and k alone, not on rows, workers, or the clock.

Items come in blocks of four; a block holds one to four products, and a product's items are its colour variants.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from PIL import Image

from appraiser.data.samples import pricing
from appraiser.data.samples.attributes import Product, draw_colours, draw_product
from appraiser.data.samples.drawing import DEFAULT_SIZE, draw_scene
from appraiser.data.samples.labels import Labels, own_labels
from appraiser.data.samples.likeness import Likeness
from appraiser.data.samples.scenes import Scene, make_scene

GENERATOR_VERSION = 2
"""Raised whenever the same seed would give other labels or visibly other pictures."""

_BLOCK = 4
_SPLITS = ((1, 1, 1, 1), (2, 1, 1), (2, 2), (3, 1), (4,))
_SPLIT_SHARES = (0.45, 0.25, 0.10, 0.10, 0.10)
"""Four items into products: on average 40 % of the items have a colour variant beside them."""


class Purpose(IntEnum):
    """What a random stream is for: what one purpose draws never shifts what another does."""

    BLOCK = 0
    PRODUCT = 1
    SCENE = 2
    FAULT = 3
    TWIN = 4


@dataclass(frozen=True, slots=True)
class CatalogueItem:
    """One row: a product in one colour, its price, what the table says of it, and where its picture goes."""

    item: int
    product_id: int
    product: Product
    price: float
    """A whole number where the sample has its own prices."""
    labels: Labels

    @property
    def image(self) -> str:
        """Path of the picture relative to the catalogue folder."""
        return f"images/{self.item:06d}.jpg"


def iter_products(
    num_rows: int,
    seed: int,
    start: int = 0,
    *,
    price_noise: float = pricing.DEFAULT_NOISE,
    like: Likeness | None = None,
) -> Iterator[CatalogueItem]:
    """Items `start` to `start + num_rows - 1` of the endless catalogue with this seed.

    Args:
        like: draws them as a user's own shop has them; it brings its own price noise.
    """
    for block in range(start // _BLOCK, -(-(start + num_rows) // _BLOCK)):
        for entry in _block_items(seed, block, price_noise, like):
            if start <= entry.item < start + num_rows:
                yield entry


def item_scene(entry: CatalogueItem, seed: int) -> Scene:
    """The scene of an item's picture."""
    return make_scene(entry.product, stream(seed, entry.item, Purpose.SCENE))


def draw_item(entry: CatalogueItem, seed: int, size: int = DEFAULT_SIZE) -> Image.Image:
    """The picture of an item before JPEG compression."""
    return draw_scene(item_scene(entry, seed), size)


def stream(seed: int, number: int, purpose: Purpose, part: int = 0) -> np.random.Generator:
    """The random stream of item or block `number` for one purpose."""
    return np.random.default_rng(np.random.SeedSequence([seed, number, int(purpose), part]))


def _block_items(seed: int, block: int, price_noise: float, like: Likeness | None) -> list[CatalogueItem]:
    which = int(np.searchsorted(np.cumsum(_SPLIT_SHARES)[:-1], stream(seed, block, Purpose.BLOCK).random(), "right"))
    items: list[CatalogueItem] = []
    for part, count in enumerate(_SPLITS[which]):
        rng = stream(seed, block, Purpose.PRODUCT, part)
        products, price = like.draw(count, rng) if like else _draw(count, rng, price_noise)
        for product in products:
            labels = like.labels(product) if like else own_labels(product)
            items.append(CatalogueItem(block * _BLOCK + len(items), block * _BLOCK + part, product, price, labels))
    return items


def _draw(count: int, rng: np.random.Generator, price_noise: float) -> tuple[list[Product], int]:
    product = draw_product(rng)
    price = pricing.draw_price(product, float(rng.standard_normal()), price_noise)
    return [product.in_colour(colour) for colour in draw_colours(product.colour, count, rng)], price
