"""What a product of the sample catalogue is, and how one is drawn from a random stream.

Everything here except the line name can be seen in the picture, and everything that moves the price is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from appraiser.data.samples.textures import COLOURS, METALS

SIZES: tuple[str, ...] = ("mini", "regular", "oversized")
HARDWARE: tuple[str, ...] = ("none", "buttons", "zip", "buckle", "chain")
LINE_NAMES: tuple[str, ...] = (
    "Frances",
    "Ashby",
    "Lola",
    "Kensington",
    "Willow",
    "Marlow",
    "Hollis",
    "Sienna",
)
NO_CATEGORY = "N.A."

LINE_NAME_SHARE = 0.10
SIZE_SHARES = (0.2, 0.6, 0.2)
PLAIN_SHARE = 0.35
BARE_SHARE = 0.35
VARIANTS = 1000
"""Number of cuts of one type: small differences of length, width and collar that have no word and no price."""


@dataclass(frozen=True, slots=True)
class ProductType:
    """A kind of product: its noun, where the shop files it, and what it may be made of."""

    noun: str
    category: tuple[str, str, str]
    materials: tuple[str, ...]
    patterns: tuple[str, ...]
    hardware: tuple[str, ...]
    quilted_category: str = ""
    """Level 3 for the quilted ones, where the shop files them apart."""


_CLOTH = (
    "plain",
    "striped",
    "check",
    "argyle",
    "houndstooth",
    "polka dot",
    "quilted",
    "camouflage",
    "chevron",
    "heart",
)
# Several times: the shop files quilted coats apart, and a category needs more than a handful of rows to be learnt.
_OUTER = (*_CLOTH, *("quilted",) * 5)
_SMALL = ("plain", "striped", "check", "houndstooth", "polka dot", "camouflage", "quilted", "heart")
_FLAT = ("plain", "striped", "check", "argyle", "houndstooth", "polka dot", "camouflage", "chevron", "heart")
_NARROW = ("plain", "striped", "check", "polka dot", "camouflage", "chevron")
_METAL = tuple(METALS)

TYPES: dict[str, ProductType] = {
    "coat": ProductType(
        "Coat", ("WOMAN", "OUTERWEAR", "COATS"),
        ("wool", "cashmere", "cotton", "leather", "suede"), _OUTER,
        ("buttons", "zip", "buckle"), "QUILTED COATS",
    ),
    "jacket": ProductType(
        "Jacket", ("MAN", "OUTERWEAR", "JACKETS"),
        ("leather", "denim", "nylon", "suede", "wool"), _OUTER,
        ("buttons", "zip", "buckle"), "QUILTED JACKETS",
    ),
    "parka": ProductType(
        "Parka", ("MAN", "OUTERWEAR", "PARKAS"),
        ("nylon", "cotton", "wool", "denim"), _CLOTH, ("buttons", "zip", "none")
    ),
    "gilet": ProductType(
        "Gilet", ("MAN", "OUTERWEAR", "GILETS"),
        ("nylon", "wool", "leather", "suede"), _CLOTH, ("zip", "buttons", "none")
    ),
    "cape": ProductType(
        "Cape", ("WOMAN", "OUTERWEAR", "PONCHOS & CAPES"),
        ("cashmere", "wool", "cotton"), _FLAT, ("none", "buttons", "chain")
    ),
    "dress": ProductType(
        "Dress", ("WOMAN", "CLOTHES", "DRESSES"),
        ("silk", "cotton", "wool", "denim"), _FLAT, ("none", "buttons", "buckle")
    ),
    "shirt": ProductType("Shirt", ("MAN", "CLOTHES", "SHIRTS"),
        ("cotton", "silk", "denim"), _FLAT, ("none", "buttons")),
    "t-shirt": ProductType(
        "T-shirt", ("MAN", "CLOTHES", "T-SHIRTS"),
        ("cotton", "silk", "cashmere"), _FLAT, ("none",)
    ),
    "sweater": ProductType(
        "Sweater", ("WOMAN", "CLOTHES", "KNITWEAR"),
        ("cashmere", "wool", "cotton"), _FLAT, ("none", "buttons", "zip")
    ),
    "skirt": ProductType(
        "Skirt", ("WOMAN", "CLOTHES", "SKIRTS"),
        ("wool", "silk", "leather", "denim", "suede"), _CLOTH,
        ("none", "buttons", "zip", "buckle", "chain"),
    ),
    "trousers": ProductType(
        "Trousers", ("MAN", "CLOTHES", "TROUSERS"),
        ("wool", "cotton", "denim", "leather"), _FLAT, ("none", "buckle", "chain")
    ),
    "shorts": ProductType(
        "Shorts", ("MAN", "CLOTHES", "SHORTS"),
        ("cotton", "denim", "silk", "nylon"), _FLAT, ("none", "buckle", "buttons")
    ),
    "dungarees": ProductType(
        "Dungarees", ("KIDS", "CLOTHES", "DUNGAREES"),
        ("denim", "cotton", "wool"), _FLAT, ("none", "buttons", "buckle")
    ),
    "teddy bear": ProductType(
        "Teddy Bear", ("KIDS", NO_CATEGORY, NO_CATEGORY),
        ("cashmere", "wool", "cotton", "suede"), _FLAT, ("none", "buttons")
    ),
    "tote bag": ProductType(
        "Tote Bag", ("WOMAN", "BAGS", "TOTE BAGS"),
        ("leather", "cotton", "suede", "nylon", "denim"), _CLOTH,
        ("none", "zip", "buckle", "chain"),
    ),
    "shoulder bag": ProductType(
        "Shoulder Bag", ("WOMAN", "BAGS", "SHOULDER BAGS"),
        ("leather", "suede", "denim", "nylon"), _CLOTH,
        ("none", "buckle", "chain"),
    ),
    "backpack": ProductType(
        "Backpack", ("MAN", "BAGS", "BACKPACKS"),
        ("nylon", "leather", "cotton", "denim"), _CLOTH, ("none", "zip", "buckle")
    ),
    "boot": ProductType(
        "Boot", ("WOMAN", "SHOES", "BOOTS"),
        ("leather", "suede", "nylon"), _SMALL, ("none", "zip", "buckle", "chain")
    ),
    "sneaker": ProductType(
        "Sneaker", ("MAN", "SHOES", "SNEAKERS"),
        ("leather", "suede", "cotton", "nylon"), _SMALL, ("none", "zip", "buckle")
    ),
    "scarf": ProductType(
        "Scarf", ("WOMAN", "SCARVES", NO_CATEGORY),
        ("cashmere", "wool", "silk"), _FLAT, ("none",)
    ),
    "bucket hat": ProductType(
        "Bucket Hat", ("MAN", "ACCESSORIES", "HATS"),
        ("cotton", "nylon", "denim", "wool"), _SMALL, ("none", "chain", "buckle")
    ),
    "cap": ProductType(
        "Cap", ("KIDS", "ACCESSORIES", "CAPS"),
        ("cotton", "denim", "suede", "wool"), _SMALL, ("none", "chain", "buttons")
    ),
    "tie": ProductType("Tie", ("MAN", "ACCESSORIES", "TIES"),
        ("silk", "wool", "cashmere"), _NARROW, ("none", "chain")),
    "belt": ProductType(
        "Belt", ("MAN", "ACCESSORIES", NO_CATEGORY),
        ("leather", "suede", "cotton"), _NARROW, ("buckle", "chain")
    ),
    "wallet": ProductType(
        "Wallet", ("MAN", "ACCESSORIES", "WALLETS & CARD CASES"),
        ("leather", "suede", "nylon"), _SMALL,
        ("none", "buttons", "zip", "chain"),
    ),
    "sunglasses": ProductType(
        "Sunglasses", ("WOMAN", "ACCESSORIES", "SUNGLASSES"),
        _METAL, ("plain", "striped", "check"), ("none", "chain")
    ),
    "bracelet": ProductType(
        "Bracelet", ("WOMAN", "BRACELETS", NO_CATEGORY),
        _METAL, ("plain", "striped", "check", "chevron"), ("none", "buckle", "chain")
    ),
    "umbrella": ProductType(
        "Umbrella", ("MAN", NO_CATEGORY, NO_CATEGORY),
        ("nylon", "cotton", "silk"), _FLAT, ("none",)
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Product:
    """One product. `variant` chooses among cuts of the type; `line_name` is the only word nobody can see."""

    type: str
    colour: str
    pattern: str
    material: str
    size: str
    hardware: str
    line_name: str = ""
    variant: int = 0

    def in_colour(self, colour: str) -> Product:
        """The same product in another colour."""
        return replace(self, colour=colour)

    def as_dict(self) -> dict[str, str | int]:
        """The attributes by name, in the order of the truth table."""
        return asdict(self)


def categories(product: Product) -> tuple[str, str, str]:
    """Levels 1 to 3; `N.A.` where the shop has none. They follow from what is visible: the type and the quilting."""
    kind = TYPES[product.type]
    if kind.quilted_category and product.pattern == "quilted":
        return kind.category[0], kind.category[1], kind.quilted_category
    return kind.category


def resolved_category(product: Product) -> str:
    """The most exact level that is not `N.A.`."""
    return next(level for level in reversed(categories(product)) if level != NO_CATEGORY)


def draw_product(
    rng: np.random.Generator, types: Sequence[str] = tuple(TYPES), colours: Sequence[str] = tuple(COLOURS)
) -> Product:
    """Draw one product. Types are equally likely; plain and bare ones are likelier than any other kind."""
    name = _choose(types, rng)
    kind = TYPES[name]
    size = SIZES[int(np.searchsorted(np.cumsum(SIZE_SHARES)[:-1], rng.random(), side="right"))]
    line_name = _choose(LINE_NAMES, rng) if rng.random() < LINE_NAME_SHARE else ""
    return Product(
        type=name,
        colour=_choose(colours, rng),
        pattern=_choose_or(kind.patterns, "plain", PLAIN_SHARE, rng),
        material=_choose(kind.materials, rng),
        size=size,
        hardware=_choose_or(kind.hardware, "none", BARE_SHARE, rng),
        line_name=line_name,
        variant=int(rng.integers(VARIANTS)),
    )


def draw_colours(
    first: str, count: int, rng: np.random.Generator, colours: Sequence[str] = tuple(COLOURS)
) -> list[str]:
    """`count` different colours, the given one first; fewer where there are fewer."""
    others = [name for name in colours if name != first]
    return [first, *(others[int(k)] for k in rng.permutation(len(others))[: count - 1])]


def _choose(names: Sequence[str], rng: np.random.Generator) -> str:
    return names[int(rng.integers(len(names)))]


def _choose_or(names: Sequence[str], usual: str, share: float, rng: np.random.Generator) -> str:
    """The usual one with this probability where it is allowed, else one of the others, all alike."""
    others = [name for name in names if name != usual]
    is_usual = rng.random() < share
    if usual in names and (is_usual or not others):
        return usual
    return _choose(others, rng)
