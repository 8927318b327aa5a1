"""The title of a product: `[Size] Colour [Pattern] Material [Hardware] NOUN [line name]`, 8 to 71 characters.

What is usual has no word: regular size, plain pattern, no hardware. Every word but the line name can be seen.
"""

from __future__ import annotations

from appraiser.data.samples.attributes import TYPES, Product

MIN_LENGTH, MAX_LENGTH = 8, 71

HARDWARE_WORDS = {"none": "", "buttons": "Button", "zip": "Zip", "buckle": "Buckle", "chain": "Chain"}


def title_parts(product: Product) -> dict[str, list[str]]:
    """The words of the title that the picture shows, in order, by what they speak of; `Tote Bag` is two words."""
    parts = {
        "size": "" if product.size == "regular" else product.size,
        "colour": product.colour,
        "pattern": "" if product.pattern == "plain" else product.pattern,
        "material": product.material,
        "hardware": HARDWARE_WORDS[product.hardware],
        "noun": TYPES[product.type].noun,
    }
    return {name: capitals(part).split() for name, part in parts.items()}


def visible_words(product: Product) -> list[str]:
    """All of these words."""
    return [word for words in title_parts(product).values() for word in words]


def make_title(product: Product) -> str:
    """The title as the shop prints it."""
    return " ".join([*visible_words(product), *([product.line_name] if product.line_name else [])])


def capitals(words: str) -> str:
    """Capital at each word's start; a hyphen starts no word: `Gold-plated`, `T-shirt`."""
    return " ".join(word[:1].upper() + word[1:] for word in words.split())
