"""Prices: log-normal around a sum of visible effects, in whole tens of dollars.

    ln price = base[type] + material + size + hardware + pattern + N(0, noise)

The noise is the limit of what any model can know: a perfect one is off by `exp(0.6745 noise) - 1` on half of the
products (8.4 % at the default). Colour has no effect, so colour variants cost the same.
"""

from __future__ import annotations

import math

from appraiser.data.samples.attributes import Product

DEFAULT_NOISE = 0.12
"""Spread of ln price given everything visible."""

BASE_USD: dict[str, float] = {
    "coat": 1750, "jacket": 1350, "parka": 1250, "gilet": 820, "cape": 1050, "dress": 1300, "shirt": 640,
    "t-shirt": 420, "sweater": 880, "skirt": 850, "trousers": 700, "shorts": 520, "dungarees": 460, "teddy bear": 190,
    "tote bag": 1150, "shoulder bag": 1450, "backpack": 980, "boot": 900, "sneaker": 560, "scarf": 310,
    "bucket hat": 350, "cap": 240, "tie": 180, "belt": 330, "wallet": 290, "sunglasses": 330, "bracelet": 620,
    "umbrella": 400,
}  # fmt: skip
"""Price of a plain, regular, bare product before its material's effect."""

MATERIAL_EFFECTS: dict[str, float] = {
    "cotton": -0.30, "nylon": -0.20, "denim": -0.10, "wool": 0.10, "silk": 0.25, "suede": 0.30, "leather": 0.45,
    "cashmere": 0.60, "silver-plated": -0.05, "gold-plated": 0.40,
}  # fmt: skip
SIZE_EFFECTS: dict[str, float] = {"mini": -0.25, "regular": 0.0, "oversized": 0.25}
HARDWARE_EFFECTS: dict[str, float] = {
    "none": 0.0,
    "buttons": 0.06,
    "zip": 0.12,
    "buckle": 0.20,
    "chain": 0.30,
}
PATTERN_EFFECTS: dict[str, float] = {
    "plain": 0.0, "striped": 0.05, "polka dot": 0.08, "chevron": 0.10, "heart": 0.12, "argyle": 0.14,
    "camouflage": 0.16, "check": 0.20, "houndstooth": 0.24, "quilted": 0.30,
}  # fmt: skip


def explain(product: Product) -> list[tuple[str, float]]:
    """The terms of ln price, each with the name of what causes it; their sum is ln of the oracle's price."""
    return [
        (product.type, math.log(BASE_USD[product.type])),
        (product.material, MATERIAL_EFFECTS[product.material]),
        (product.size, SIZE_EFFECTS[product.size]),
        (product.hardware, HARDWARE_EFFECTS[product.hardware]),
        (product.pattern, PATTERN_EFFECTS[product.pattern]),
    ]


def oracle_price(product: Product) -> float:
    """The best guess from the picture: the median of the price given everything visible, not rounded."""
    return math.exp(math.fsum(effect for _, effect in explain(product)))


def draw_price(product: Product, standard_normal: float, noise: float = DEFAULT_NOISE) -> int:
    """The shop's price in dollars, a multiple of ten.

    Args:
        standard_normal: the product's own draw from N(0, 1), shared by its colour variants.
        noise: spread of ln price.
    """
    return max(10, 10 * round(oracle_price(product) * math.exp(noise * standard_normal) / 10))


def theoretical_error(noise: float) -> float:
    """Median absolute percentage error of the oracle before rounding: exp(0.6745 noise) - 1.

    This counts a guess that is too high by that factor. Against the true price, as reports measure it, guesses that are
    too low count a little more and those too high a little less; the median then comes out near 0.6745 noise (8.1 % at
    the default), which is why a catalogue records its own realised figure.
    """
    return math.exp(0.6744897501960817 * noise) - 1.0
