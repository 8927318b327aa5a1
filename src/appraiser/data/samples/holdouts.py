"""Splits that ask more than new products: combinations of attributes, or backgrounds, that training never shows.

combinations   the same types, materials and patterns, but one in eight (type, material, pattern) only in the test
backgrounds    the test products stand before darker, coloured backdrops
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from appraiser.data.samples.attributes import Product
from appraiser.data.samples.scenes import Scene

Holdout = Literal["combinations", "backgrounds"]
HOLDOUTS: tuple[str, ...] = get_args(Holdout)
TEST_SHARES: dict[str, float] = {"combinations": 1 / 8, "backgrounds": 1 / 10}
_OTHERS = (("val", 0.05), ("calib", 0.05))


def split_of(product: Product, holdout: Holdout) -> str:
    """train, val, calib or test: the same for all products that differ in colour, cut and line name only."""
    combination = (product.type, product.material, product.pattern)
    kind = (*combination, product.size, product.hardware)
    if _share(holdout, combination if holdout == "combinations" else kind) < TEST_SHARES[holdout]:
        return "test"
    place = _share("others", kind)
    for name, share in _OTHERS:
        if place < share:
            return name
        place -= share
    return "train"


def with_unseen_background(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same picture before a backdrop such as no other picture of the catalogue has: mid grey, strongly tinted."""
    top = float(rng.uniform(0.50, 0.70))
    sign = 1.0 if rng.random() < 0.5 else -1.0
    return replace(
        scene,
        backdrop_top=top,
        backdrop_bottom=top + float(rng.uniform(0.05, 0.15)),
        backdrop_tint=sign * float(rng.uniform(0.06, 0.12)),
    )


def _share(name: str, key: tuple[str, ...]) -> float:
    """A number in [0, 1) that depends on the key alone."""
    digest = hashlib.sha256("\x1f".join((name, *key)).encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64
