"""What is asked about a scene, and the true answer: `ask(scene, rng)` draws one (question, answer) pair.

     5 %  What is shown in this image?            Product: Large Navy Check Wool Lamp, Category: LAMPS, Full Price: 340
    45 %  What is shown, and how many points?     Product: Large Navy Check Wool Lamp, Category: LAMPS, Points: 1340
    30 %  How many points?                        Points: 1340
    20 %  one look at one thing                   Colour: navy / Count: 3 / Width: 61 percent / ...

The first one has the product's answer format. Its number means nothing: it is drawn without looking at the scene, so
that the model learns that a number stands there and no price at all before it is fine-tuned. It is rare, because it
also teaches that what is seen does not matter there. Points are no price of anything either, but they follow from what
is visible: they teach to compose a number while telling what is there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import exp, log

import numpy as np

from appraiser.pretraining.parts import COUNTED_PARTS, PARTS
from appraiser.pretraining.scenes import MATERIAL_NAMES as MATERIALS
from appraiser.pretraining.scenes import PATTERN_NAMES as PATTERNS
from appraiser.pretraining.scenes import PLAIN, Scene, Thing, extent_of
from appraiser.pretraining.shapes import SHAPES

MAIN_QUESTION = "What is shown in this image?"
SCORED_QUESTION = "What is shown, and how many points?"
MAIN_SHARE, SCORED_SHARE, POINTS_SHARE = 0.05, 0.45, 0.30

Answer = tuple[str, str]


def ask(scene: Scene, rng: np.random.Generator) -> Answer:
    """One question about the scene and its answer, drawn from the mix above."""
    kind = rng.random()
    if kind < MAIN_SHARE:
        return main_question(scene, rng)
    if kind < MAIN_SHARE + SCORED_SHARE:
        return scored_question(scene)
    if kind < MAIN_SHARE + SCORED_SHARE + POINTS_SHARE:
        return "How many points?", f"Points: {points(scene.main)}"
    looks = [look for look in _LOOKS if look is not _number_of_parts or scene.main.part in COUNTED_PARTS]
    return looks[int(rng.integers(len(looks)))](scene)


def main_question(scene: Scene, rng: np.random.Generator) -> Answer:
    """The question of the product, in its answer format."""
    thing = scene.main
    answer = f"Product: {caption(thing)}, Category: {thing.family}, Full Price: {_meaningless_price(rng)}"
    return MAIN_QUESTION, answer


def scored_question(scene: Scene) -> Answer:
    """The same with the scene's points in the number's place."""
    thing = scene.main
    return SCORED_QUESTION, f"Product: {caption(thing)}, Category: {thing.family}, Points: {points(thing)}"


def described_question(scene: Scene) -> Answer:
    """The same about a thing that is described and not shown."""
    question, answer = scored_question(scene)
    return f"{caption(scene.main)}. {question}", answer


def caption(thing: Thing) -> str:
    """What is visible, in Title Case: `[Small|Large] Colour [Pattern] Material [Part] Shape`."""
    words = [
        "" if thing.size == "regular" else thing.size,
        thing.colour,
        "" if thing.pattern == PLAIN else thing.pattern,
        thing.material,
        thing.part,
        thing.shape,
    ]
    return title_case(" ".join(word for word in words if word))


def title_case(words: str) -> str:
    """A capital at each word's start; a hyphen starts no word, so `Gold-plated` stays as shops write it."""
    return " ".join(word[:1].upper() + word[1:] for word in words.split())


def _meaningless_price(rng: np.random.Generator) -> int:
    # Independent of the picture on purpose: a price learned here would be a false one for any catalogue, and would
    # have to be unlearned. Log-uniform, so that numbers of two, three and four digits are all common.
    return 10 * round(exp(rng.uniform(log(2.0), log(999.0))))


def points(thing: Thing) -> int:
    """A made-up score: the product of the weights of all that is visible, rounded to tens, 50..9990.

    It teaches the skill of composing visible attributes into one number (weights multiply, so logarithms add). It is no
    price of any catalogue: the weights come from a seed, the shapes are of this world, and the word is another one.
    """
    table = point_weights()
    product = table["base"]
    for slot, name in (("shape", thing.shape), ("material", thing.material), ("size", thing.size)):
        product *= table[f"{slot}/{name}"]
    product *= table[f"pattern/{thing.pattern}"] * table[f"part/{thing.part}"]
    return int(min(9990, max(50, 10 * round(product / 10))))


@cache
def point_weights() -> dict[str, float]:
    """The table behind `points`, the same on every machine: names sorted, factors drawn from a fixed seed.

    | slot | factor |
    | --- | --- |
    | base | 600 |
    | shape | exp(normal(0, 0.55)), 0.3 to 3 |
    | material | exp(normal(0, 0.4)), 0.45 to 2.2 |
    | size | small 0.7, regular 1, large 1.4 |
    | pattern | 1 for plain, else 0.9 to 1.3 |
    | part | 1 for none, else 1.1 to 1.5 |
    """
    rng = np.random.default_rng(20_240)
    table = {"base": 600.0, "size/small": 0.7, "size/regular": 1.0, "size/large": 1.4, "part/": 1.0}
    table |= {f"shape/{name}": float(np.clip(exp(rng.normal(0, 0.55)), 0.3, 3.0)) for name in sorted(SHAPES)}
    table |= {f"material/{name}": float(np.clip(exp(rng.normal(0, 0.4)), 0.45, 2.2)) for name in sorted(MATERIALS)}
    table |= {f"pattern/{name}": float(rng.uniform(0.9, 1.3)) for name in sorted(PATTERNS)}
    table |= {f"part/{name}": float(rng.uniform(1.1, 1.5)) for name in sorted(PARTS)}
    return table | {f"pattern/{PLAIN}": 1.0}


# --- one look each -----------------------------------------------------------------------------------------


def _count(scene: Scene) -> Answer:
    return "How many things?", f"Count: {len(scene.things)}"


def _colour(scene: Scene) -> Answer:
    return "What colour is it?", f"Colour: {scene.main.colour}"


def _pattern(scene: Scene) -> Answer:
    return "What pattern?", f"Pattern: {scene.main.pattern}"


def _material(scene: Scene) -> Answer:
    return "What material?", f"Material: {scene.main.material}"


def _shape(scene: Scene) -> Answer:
    return "What shape is it?", f"Shape: {scene.main.shape}"


def _part(scene: Scene) -> Answer:
    thing = scene.main
    if not thing.part:
        return "What is attached?", "Part: none"
    return "What is attached?", f"Part: {thing.metal or thing.accent} {thing.part}"


def _number_of_parts(scene: Scene) -> Answer:
    return f"How many {scene.main.part}?", f"Count: {scene.main.num_parts}"


def _size(scene: Scene) -> Answer:
    return "How large is it?", f"Size: {scene.main.size}"


def _area(scene: Scene) -> Answer:
    return "How much of the picture is covered?", f"Area: {extent_of(scene).area} percent"


def _width(scene: Scene) -> Answer:
    return "How wide is it?", f"Width: {extent_of(scene).width} percent"


def _height(scene: Scene) -> Answer:
    return "How tall is it?", f"Height: {extent_of(scene).height} percent"


def _darkness(scene: Scene) -> Answer:
    return "How dark is the background?", f"Background: {darkness(scene)} percent"


def darkness(scene: Scene) -> int:
    """0 for a white background, 100 for a black one, before the light falls on it."""
    return round(100 * (1 - sum(scene.background) / 3))


_LOOKS: tuple[Callable[[Scene], Answer], ...] = (
    _count, _colour, _pattern, _pattern, _material, _material, _shape, _part, _part, _number_of_parts, _size,
    _area, _width, _height, _darkness,
)  # fmt: skip
"""Drawn evenly; what is hard to see stands twice."""
