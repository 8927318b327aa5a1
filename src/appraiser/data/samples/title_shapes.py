"""The shape of a shop's titles, without their words, and titles of ours in that shape.

How many words a title has, and which kinds of words, follows from the product's colour: so it can be learnt from the
picture, and over the colours the shares come out as in the shop's table.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from appraiser.data.samples.nouns import SLOT_WORDS
from appraiser.data.samples.shop_prices import MIN_GROUP
from appraiser.data.samples.textures import COLOURS

Case = Literal["capitals", "lower", "upper"]
GRAMMAR = ("size", "colour", "pattern", "material", "hardware", "noun")
# Where a shop's titles speak of nothing that can be seen: what every picture shows goes first.
FILL = ("colour", "material", "pattern", "hardware", "size")
COMMON_CASE = 0.8


@dataclass(frozen=True, slots=True)
class TitleShape:
    """Numbers of a table's titles.

    Args:
        words: (number of words, share of the titles), ascending; numbers that fewer than five titles have are counted
            with the nearest one that more have.
        mentions: share of the titles that speak of a colour, material, pattern, size, hardware.
        case: how nearly all are written; capitals otherwise.
    """

    words: tuple[tuple[int, float], ...]
    mentions: tuple[tuple[str, float], ...]
    case: Case


@dataclass(frozen=True, slots=True)
class TitlePlan:
    """What titles of products in one colour are like.

    Args:
        mentions: what they always speak of.
        fill: what else, in this order, until the number of words is reached.
    """

    num_words: int
    mentions: frozenset[str]
    fill: tuple[str, ...]


def title_shape(titles: Sequence[str]) -> TitleShape:
    """The shape of these titles, five or more."""
    lengths = Counter(len(title.split()) for title in titles)
    common = [length for length, count in lengths.items() if count >= MIN_GROUP]
    # Where no number of words is common, the middle one stands for all.
    kept = common or [sorted(lengths.elements())[len(titles) // 2]]
    merged: Counter[int] = Counter()
    for length, count in lengths.items():
        merged[min(kept, key=lambda other: (abs(other - length), other))] += count
    shares = {slot: sum(mentions(title, slot) for title in titles) / len(titles) for slot in SLOT_WORDS}
    lower, upper = (sum(test(title) for title in titles) / len(titles) for test in (str.islower, str.isupper))
    case: Case = "lower" if lower >= COMMON_CASE else "upper" if upper >= COMMON_CASE else "capitals"
    words = tuple((length, merged[length] / len(titles)) for length in sorted(merged))
    return TitleShape(words, tuple(shares.items()), case)


def mentions(title: str, slot: str) -> bool:
    """Whether a title speaks of a colour, material, pattern, size or hardware, as far as our word lists know."""
    return not SLOT_WORDS[slot].isdisjoint(re.findall(r"[a-z]+", title.lower()))


def title_plans(shape: TitleShape) -> dict[str, TitlePlan]:
    """A plan per colour; over the colours, all alike, they have the shape's shares to one part in 26."""
    places = {slot: _places(slot) for slot in ("words", *SLOT_WORDS)}
    told = dict(shape.mentions)
    # Titles of visible words alone need more of them than the shop's have: first of what the shop speaks of most.
    fill = tuple(sorted(FILL, key=lambda slot: -told[slot]))
    return {
        colour: TitlePlan(
            _quantile(shape.words, places["words"][colour]),
            frozenset(slot for slot in SLOT_WORDS if places[slot][colour] < told[slot]),
            fill,
        )
        for colour in COLOURS
    }


def choose_words(parts: dict[str, list[str]], plan: TitlePlan, num_words: int) -> list[str]:
    """The words of a title, in the order of the grammar; the noun always, and others up to the number of words.

    Args:
        parts: words per slot of the grammar; empty where the product is plain, bare or of regular size.
        num_words: usually the plan's.
    """
    chosen, count = {"noun"}, len(parts["noun"])
    for slot in (*(slot for slot in GRAMMAR if slot in plan.mentions), *plan.fill):
        if slot not in chosen and parts[slot] and count + len(parts[slot]) <= num_words:
            chosen.add(slot)
            count += len(parts[slot])
    return [word for slot in GRAMMAR if slot in chosen for word in parts[slot]]


def in_case(words: str, case: Case) -> str:
    """A title as the shop writes it; capitals are what the grammar gives."""
    return words.lower() if case == "lower" else words.upper() if case == "upper" else words


def _places(purpose: str) -> dict[str, float]:
    """Every colour's place in (0, 1), evenly spread, in an order of its own for each purpose."""
    order = sorted(COLOURS, key=lambda colour: hashlib.sha256(f"{purpose}:{colour}".encode()).digest())
    return {colour: (rank + 0.5) / len(order) for rank, colour in enumerate(order)}


def _quantile(words: Sequence[tuple[int, float]], place: float) -> int:
    for number, share in words:
        if place < share:
            return number
        place -= share
    return words[-1][0]
