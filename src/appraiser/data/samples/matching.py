"""Which silhouettes stand for which of a shop's categories: so that every category can be told from the picture.

Nouns of the category's name are looked up first, then the last known noun of each of its titles. Where two categories
need the same silhouette they share its colours; what matches nothing gets a silhouette that nobody else needs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from appraiser.data.samples.attributes import TYPES
from appraiser.data.samples.nouns import FALLBACKS, NOUNS
from appraiser.data.samples.textures import COLOURS
from appraiser.errors import DataError

MIN_VOTES = 2
MIN_VOTE_SHARE = 0.10
"""A silhouette that fewer of a category's titles call for is not drawn for it."""

Matched = Literal["name", "titles", "nothing"]
_STRENGTH: dict[Matched, int] = {"name": 2, "titles": 1, "nothing": 0}


@dataclass(frozen=True, slots=True)
class Look:
    """A silhouette that stands for a category, in some or all colours, in a share of the category's products."""

    type: str
    colours: tuple[str, ...]
    share: float


@dataclass(frozen=True, slots=True)
class Match:
    """How a category is drawn.

    Args:
        by: what gave the silhouettes: its name, the nouns of its titles, or nothing did.
        nouns: our words for what was found.
    """

    by: Matched
    nouns: tuple[str, ...]
    looks: tuple[Look, ...]


@dataclass(frozen=True)
class _Claim:
    """What a category asks for: the share of each type, and the nouns that call for it."""

    by: Matched
    nouns: dict[str, tuple[str, ...]]
    shares: dict[str, float]


def match_categories(titles: Mapping[str, Sequence[str]]) -> dict[str, Match]:
    """A match for every category.

    Args:
        titles: titles per category, the largest category first; empty for those too small to be looked into.

    Raises:
        DataError: more categories than could be told apart.
    """
    limit = len(TYPES) * len(COLOURS)
    if len(titles) > limit:
        raise DataError(
            f"{len(titles)} categories; pictures can tell {limit} apart",
            fix="name a coarser column: --map category=COLUMN",
        )
    claims = {name: _claim(name, found) for name, found in titles.items()}
    _settle(claims)
    _place_the_rest(claims)
    claimants = {kind: [name for name, claim in claims.items() if kind in claim.shares] for kind in TYPES}
    return {
        name: Match(
            claim.by,
            tuple(dict.fromkeys(noun for kind in claim.shares for noun in claim.nouns.get(kind, ()))),
            tuple(_look(name, kind, claim, claimants[kind]) for kind in claim.shares),
        )
        for name, claim in claims.items()
    }


def nouns_in(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """(our word, types) of every known noun, in order; `Tote Bags` is one noun and not also a bag."""
    words = [_singular(word) for word in re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower())]
    found: list[tuple[str, tuple[str, ...]]] = []
    at = 0
    while at < len(words):
        pair = " ".join(words[at : at + 2])
        if pair in TYPES:
            found.append((pair, (pair,)))
            at += 2
            continue
        types = (words[at],) if words[at] in TYPES else NOUNS.get(words[at])
        if types:
            found.append((words[at], types))
        at += 1
    return found


def _singular(word: str) -> str:
    """A noun's entry: `scarves` -> scarf, `watches` -> watch, `accessories` -> accessory; `glasses` has its own."""
    if word in TYPES or word in NOUNS:
        return word
    endings = (("ves", "f"), ("ies", "y"), ("ies", "ie"), ("s", ""), ("es", ""))
    stems = [word[: -len(end)] + instead for end, instead in endings if word.endswith(end)]
    # Parts of two-word types: `bags` of `tote bags`.
    parts = {part for kind in TYPES for part in kind.split()}
    return next((stem for stem in stems if stem in TYPES or stem in NOUNS or stem in parts), word)


def _claim(name: str, titles: Sequence[str]) -> _Claim:
    named = nouns_in(name)
    votes: Counter[str] = Counter()
    words: dict[str, Counter[str]] = {kind: Counter() for kind in TYPES}
    for title in titles:
        # `Duffle Bag` is a duffle first; of two exact nouns the last is what the product is.
        known = sorted(enumerate(nouns_in(title)), key=lambda found: (len(found[1][1]), -found[0]))
        if known:
            noun, types = known[0][1]
            votes[types[0]] += 1
            words[types[0]][noun] += 1
    needed = max(MIN_VOTES, MIN_VOTE_SHARE * len(titles))
    common = {kind: float(count) for kind, count in votes.items() if count >= needed}
    if named:
        called: dict[str, tuple[str, ...]] = {}
        for noun, types in named:
            called |= {kind: (*called.get(kind, ()), noun) for kind in types}
        wanted = {kind: common[kind] for kind in called if kind in common} or dict.fromkeys(called, 1.0)
        return _Claim("name", called, _normalised(wanted))
    if common:
        counted = {kind: [noun for noun, count in words[kind].most_common() if count >= MIN_VOTES] for kind in common}
        return _Claim("titles", {kind: tuple(found) for kind, found in counted.items()}, _normalised(common))
    return _Claim("nothing", {}, {})


def _normalised(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    order = sorted(weights, key=lambda kind: (-weights[kind], kind))
    return {kind: weights[kind] / total for kind in order}


def _settle(claims: dict[str, _Claim]) -> None:
    """Categories with several silhouettes leave those that others need more."""
    for kind in TYPES:
        while True:
            claimants = [name for name, claim in claims.items() if kind in claim.shares]
            flexible = [name for name in claimants if len(claims[name].shares) > 1]
            if len(claimants) < 2 or not flexible:
                break
            # The weakest claim gives way: what its titles say before its name, then the smallest part of the category.
            weakest = min(flexible, key=lambda name: (_STRENGTH[claims[name].by], claims[name].shares[kind], name))
            claim = claims[weakest]
            left = {other: share for other, share in claim.shares.items() if other != kind}
            claims[weakest] = _Claim(claim.by, claim.nouns, _normalised(left))


def _place_the_rest(claims: dict[str, _Claim]) -> None:
    """Categories without a match take silhouettes that are free, or the least shared ones."""
    order = list(dict.fromkeys([*FALLBACKS, *TYPES]))
    used = Counter(kind for claim in claims.values() for kind in claim.shares)
    for name, claim in claims.items():
        if not claim.shares:
            kind = min(order, key=lambda option: (used[option], order.index(option)))
            used[kind] += 1
            claims[name] = _Claim("nothing", {}, {kind: 1.0})
    crowded = [kind for kind, count in used.items() if count > len(COLOURS)]
    if crowded:
        raise DataError(
            f"{used[crowded[0]]} categories look like a {crowded[0]}; its {len(COLOURS)} colours can tell "
            f"{len(COLOURS)} apart",
            fix="name a coarser column: --map category=COLUMN",
        )


def _look(name: str, kind: str, claim: _Claim, claimants: Sequence[str]) -> Look:
    colours = tuple(COLOURS)[claimants.index(name) :: len(claimants)]
    return Look(kind, colours, claim.shares[kind])
