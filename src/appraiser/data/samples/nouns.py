"""English words of shops, as data: which silhouettes come nearest to a noun, and which words tell what kind of thing.

Used on the user's own table only to count and to choose; no word of it goes into a sample.
"""

from __future__ import annotations

from appraiser.data.building.grouping import COLOUR_WORDS
from appraiser.data.samples.textures import COLOURS

# Type -> singular nouns to which its silhouette is the nearest; the types' own nouns need no entry.
_NEAREST: dict[str, str] = {
    "coat": "mackintosh overcoat peacoat raincoat trench",
    "jacket": "blazer blouson puffer softshell suit tuxedo windbreaker",
    "parka": "anorak",
    "gilet": "bodywarmer vest waistcoat",
    "cape": "cloak kimono poncho",
    "dress": "gown kaftan robe tunic",
    "shirt": "blouse",
    "t-shirt": "bodysuit camisole jersey polo tee tshirt",
    "sweater": "cardigan fleece hoodie hoody jumper knit knitwear longsleeve pullover sweatshirt turtleneck",
    "skirt": "kilt sarong",
    "trousers": "chino denim jean jogger legging pant trouser",
    "shorts": "swimwear trunk",
    "dungarees": "jumpsuit overall romper salopette",
    "teddy bear": "bear doll plush toy",
    "tote bag": "duffel duffle holdall shopper suitcase tote",
    "shoulder bag": "briefcase clutch crossbody messenger satchel",
    "backpack": "daypack rucksack",
    "boot": "bootie heel wellington",
    "sneaker": "derby flat loafer moccasin mule oxford pump runner sandal slipper trainer",
    "scarf": "bandana blanket muffler shawl snood stole throw wrap",
    "bucket hat": "beanie beret",
    "cap": "visor",
    "tie": "necktie",
    "belt": "harness sash strap",
    "wallet": "cardholder case pouch purse",
    "sunglasses": "eyeglass eyewear glass glasses goggle shades spectacles sunglass",
    "bracelet": "bangle cuff earring jewellery jewelry necklace pendant ring watch",
    "umbrella": "parasol pole tent",
}
# Nouns for several types, the nearest first: a category's name may mean all of them, a title means the nearest.
_SEVERAL: dict[str, tuple[str, ...]] = {
    "accessory": ("belt", "wallet", "scarf"),
    "bag": ("tote bag", "shoulder bag", "backpack"),
    "bottom": ("trousers", "shorts"),
    "clothes": ("dress", "shirt", "trousers"),
    "clothing": ("dress", "shirt", "trousers"),
    "footwear": ("sneaker", "boot"),
    "handbag": ("tote bag", "shoulder bag"),
    "hat": ("bucket hat", "cap"),
    "headwear": ("bucket hat", "cap"),
    "helmet": ("bucket hat", "cap"),
    "luggage": ("tote bag", "backpack"),
    "outerwear": ("coat", "jacket", "parka"),
    "outwear": ("coat", "jacket", "parka"),
    "pyjama": ("shirt", "trousers"),
    "shoe": ("sneaker", "boot"),
    "top": ("t-shirt", "shirt"),
}
NOUNS: dict[str, tuple[str, ...]] = {word: (kind,) for kind, words in _NEAREST.items() for word in words.split()}
NOUNS |= _SEVERAL
"""Singular noun -> types that it covers, the nearest first."""

# For categories that nothing comes near to, the first type that no other category needs.
FALLBACKS: tuple[str, ...] = ("umbrella", "wallet", "teddy bear", "sunglasses", "bracelet", "tie", "cap", "belt")

# What a title may speak of, by its words: only the shares of titles that do are taken from a table.
SLOT_WORDS: dict[str, frozenset[str]] = {
    "colour": COLOUR_WORDS | frozenset(COLOURS),
    "material": frozenset(
        """acrylic alpaca aluminium aluminum canvas carbon cashmere corduroy cotton denim down elastane fibre fiber
        fleece fur gold goretex knit lace leather linen merino mesh metal microfibre modal mohair neoprene nylon
        polyester plated rubber satin shearling silk silver steel suede titanium tweed twill velvet viscose wool
        """.split()
    ),
    "pattern": frozenset(
        """animal argyle camo camouflage check checked checkered chevron colourblock colorblock dot dots dotted
        embroidered floral geometric gingham heart hearts herringbone houndstooth leopard logo monogram paisley plain
        plaid print printed quilted stripe striped stripes tartan zebra""".split()
    ),
    "size": frozenset(
        """baby big cropped extra giant kids large long maxi medium micro midi mini oversized oversize petite regular
        short slim small tall xl xs xxl wide""".split()
    ),
    "hardware": frozenset(
        """belted buckle buckled button buttoned buttons chain clasp drawstring hook snap strap velcro zip zipper
        zipped""".split()
    ),
}
