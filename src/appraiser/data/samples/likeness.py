"""How products are drawn when a sample follows a user's table.

    share of a category ─▶ silhouette ─▶ attributes, as ever
    ln of the sample's own price rule + noise ─▶ rank within the category ─▶ the shop's price at that rank, its ending
    the colour ─▶ number and kinds of the title's words

The rule's rank is exact: within a category its values are a known mixture, so item k needs no other item. The oracle is
the price at the rank of what is visible: ranks keep their order under any shop's prices, so it stays the median.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product as combinations

import numpy as np
from numpy.typing import NDArray

from appraiser.data.samples import pricing
from appraiser.data.samples.attributes import (
    BARE_SHARE,
    LINE_NAMES,
    NO_CATEGORY,
    PLAIN_SHARE,
    SIZE_SHARES,
    SIZES,
    TYPES,
    Product,
    categories,
    draw_colours,
    draw_product,
    resolved_category,
)
from appraiser.data.samples.labels import Labels
from appraiser.data.samples.matching import Look
from appraiser.data.samples.profile import CategoryProfile, Profile, text_hash, title_hash
from appraiser.data.samples.shop_prices import PriceShape
from appraiser.data.samples.textures import COLOURS
from appraiser.data.samples.title_shapes import TitlePlan, choose_words, in_case, title_plans
from appraiser.data.samples.titles import title_parts
from appraiser.errors import DataError

_GRID_POINTS = 257
_MIN_NOISE = 0.02
"""For ranks only: without noise the rule's values are steps, and every step would be one price."""
_MAX_WORDS = 8


@dataclass(frozen=True)
class _Ranks:
    """A category's rule values: the share of products below each point of a grid of ln prices."""

    points: NDArray[np.float64]
    shares: NDArray[np.float64]

    def share(self, log_price: float) -> float:
        return float(np.interp(log_price, self.points, self.shares))


@dataclass(frozen=True)
class Likeness:
    """Draws products as a profile's shop has them; the same in every process. See `make_likeness`."""

    profile: Profile
    noise: float
    ranks: tuple[_Ranks, ...]
    by_look: dict[tuple[str, str], int]
    plans: dict[str, TitlePlan]

    def for_pictures(self) -> Likeness:
        """The same without what only titles need: small enough to be sent to a process with every task."""
        return replace(self, profile=replace(self.profile, title_hashes=frozenset(), id_hashes=frozenset()))

    def draw(self, count: int, rng: np.random.Generator) -> tuple[list[Product], float]:
        """A product in `count` colours, and its price."""
        number = _choose([category.share for category in self.profile.categories], rng)
        looks = looks_of(self.profile.categories[number])
        look = looks[_choose([look.share for look in looks], rng)]
        first = draw_product(rng, (look.type,), look.colours)
        standard_normal, place = float(rng.standard_normal()), float(rng.random())
        colours = draw_colours(first.colour, count, rng, look.colours)
        # Where categories share a silhouette there may be too few colours for all variants: these repeat.
        products = [first.in_colour(colours[k % len(colours)]) for k in range(count)]
        shape = self.profile.categories[number].prices
        if shape is None or self.profile.endings is None:
            return products, float(pricing.draw_price(first, standard_normal, self.noise))
        value = math.log(pricing.oracle_price(first)) + self.noise * standard_normal
        return products, self.profile.endings.snap(self._price(number, shape, value), place)

    def labels(self, product: Product) -> Labels:
        """An item's labels but for its price."""
        number = self.by_look[product.type, product.colour]
        category = self.profile.categories[number]
        oracle = pricing.oracle_price(product)
        if category.prices is not None:
            oracle = self._price(number, category.prices, math.log(oracle))
        levels = (NO_CATEGORY, NO_CATEGORY, category.name) if category.name is not None else categories(product)
        title, visible, is_redrawn = self._title(product)
        return Labels(
            title=title,
            visible_words=visible,
            categories=levels,
            category=resolved_category(product) if category.name is None else category.name,
            oracle_price=oracle,
            currency="USD" if category.prices is None else self.profile.currency or NO_CATEGORY,
            is_redrawn=is_redrawn,
        )

    def free_code(self, code: int, num_codes: int) -> int:
        """The first of `code`, `code + num_codes`, ... that the user's table does not have."""
        while text_hash(str(code)) in self.profile.id_hashes:
            code += num_codes
        return code

    def _price(self, number: int, shape: PriceShape, log_price: float) -> float:
        return shape.price(min(max(self.ranks[number].share(log_price), 0.0), 1.0))

    def _title(self, product: Product) -> tuple[str, str, bool]:
        """(title, its visible words, whether another one came first)."""
        for attempt, (visible, line_name) in enumerate(self._titles(product)):
            title = " ".join([*visible, *([line_name] if line_name else [])])
            if title_hash(title) not in self.profile.title_hashes:
                shape = self.profile.titles
                shown = [in_case(text, shape.case) if shape else text for text in (title, " ".join(visible))]
                return shown[0], shown[1], attempt > 0
        raise DataError(
            f"every title that this can make for a {product.type} stands in {self.profile.source} already",
            fix="draw without --like; such a table is as good as a sample",
        )

    def _titles(self, product: Product) -> Iterator[tuple[list[str], str]]:
        """(visible words, line name) of the title to take and of those to take instead, best first."""
        parts = title_parts(product)
        everything = [word for words in parts.values() for word in words]
        plan = self.plans.get(product.colour)
        if plan is None:
            yield everything, product.line_name
        else:
            lengths = sorted(range(1, _MAX_WORDS + 1), key=lambda n: (abs(n - plan.num_words), -n))
            for length in lengths:
                visible = choose_words(parts, plan, length)
                # The only word that nobody can see stands where the visible ones do not fill the title.
                yield visible, product.line_name if len(visible) < length else ""
        for line_name in LINE_NAMES:
            yield everything, line_name


def make_likeness(profile: Profile, noise: float = pricing.DEFAULT_NOISE) -> Likeness:
    """Work out what every draw needs.

    Args:
        noise: spread of ln price, by the sample's own rule, given everything visible.
    """
    by_look = {
        (look.type, colour): number
        for number, category in enumerate(profile.categories)
        for look in looks_of(category)
        for colour in look.colours
    }
    ranks = tuple(_ranks(looks_of(category), noise) for category in profile.categories)
    return Likeness(profile, noise, ranks, by_look, title_plans(profile.titles) if profile.titles else {})


def looks_of(category: CategoryProfile) -> Sequence[Look]:
    """The silhouettes of a category; all of them where the table has no categories."""
    if category.match is not None:
        return category.match.looks
    return [Look(kind, tuple(COLOURS), 1 / len(TYPES)) for kind in TYPES]


def _choose(shares: Sequence[float], rng: np.random.Generator) -> int:
    return int(np.searchsorted(np.cumsum(shares)[:-1], rng.random(), side="right"))


def _ranks(looks: Sequence[Look], noise: float) -> _Ranks:
    """Distribution of rule values over everything that a category's products may be."""
    logs: list[float] = []
    weights: list[float] = []
    for look in looks:
        kind = TYPES[look.type]
        attributes = (
            [(name, 1 / len(kind.materials)) for name in kind.materials],
            list(zip(SIZES, SIZE_SHARES, strict=True)),
            list(choice_shares(kind.hardware, "none", BARE_SHARE).items()),
            list(choice_shares(kind.patterns, "plain", PLAIN_SHARE).items()),
        )
        for (material, p), (size, q), (hardware, r), (pattern, s) in combinations(*attributes):
            product = Product(look.type, "", pattern, material, size, hardware)
            logs.append(math.log(pricing.oracle_price(product)))
            weights.append(look.share * p * q * r * s)
    spread = max(noise, _MIN_NOISE)
    points = np.linspace(min(logs) - 4 * spread, max(logs) + 4 * spread, _GRID_POINTS)
    scale = spread * math.sqrt(2)
    shares = [
        math.fsum(w * 0.5 * math.erfc((v - point) / scale) for v, w in zip(logs, weights, strict=True))
        for point in points
    ]
    return _Ranks(points, np.array(shares))


def choice_shares(names: Sequence[str], usual: str, share: float) -> dict[str, float]:
    """How likely each value of an attribute is when the usual one has a share of its own."""
    others = [name for name in names if name != usual]
    if usual in names:
        share = share if others else 1.0
    else:
        share = 0.0
    shares = {usual: share} if share else {}
    for name in others:
        shares[name] = shares.get(name, 0.0) + (1.0 - share) / len(others)
    return shares
