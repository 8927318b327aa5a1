"""From a type, a cut and its hardware to a silhouette."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from appraiser.data.samples import accessories, bags_and_shoes, garments
from appraiser.data.samples.garments import Cut
from appraiser.data.samples.shapes import Shape

_DRAW: dict[str, Callable[[Shape, Cut, str], None]] = {
    "coat": garments.coat, "jacket": garments.jacket, "parka": garments.parka, "gilet": garments.gilet,
    "cape": garments.cape, "dress": garments.dress, "shirt": garments.shirt, "t-shirt": garments.t_shirt,
    "sweater": garments.sweater, "skirt": garments.skirt, "trousers": garments.trousers, "shorts": garments.shorts,
    "dungarees": garments.dungarees, "teddy bear": accessories.teddy_bear, "tote bag": bags_and_shoes.tote_bag,
    "shoulder bag": bags_and_shoes.shoulder_bag, "backpack": bags_and_shoes.backpack, "boot": bags_and_shoes.boot,
    "sneaker": bags_and_shoes.sneaker, "scarf": accessories.scarf, "bucket hat": accessories.bucket_hat,
    "cap": accessories.cap, "tie": accessories.tie, "belt": accessories.belt, "wallet": accessories.wallet,
    "sunglasses": accessories.sunglasses, "bracelet": accessories.bracelet, "umbrella": accessories.umbrella,
}  # fmt: skip

STRETCH: dict[str, tuple[float, float]] = {
    "mini": (0.98, 0.94),
    "regular": (1.0, 1.0),
    "oversized": (1.08, 0.98),
}
"""How each size changes the proportions, across and down; its scale in the picture is the scene's business."""


def cut_of(variant: int) -> Cut:
    """The small differences that a product's variant number stands for."""
    return Cut(*(float(value) for value in np.random.default_rng(variant).uniform(-1.0, 1.0, 5)))


def silhouette(type_name: str, variant: int, hardware: str) -> Shape:
    """Panels, strokes and fittings of a product."""
    shape = Shape()
    _DRAW[type_name](shape, cut_of(variant), hardware)
    return shape
