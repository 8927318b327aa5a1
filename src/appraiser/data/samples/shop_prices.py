"""How a shop prices, as numbers behind which never fewer than five of its rows stand.

prices ─▶ PriceShape     how they spread: means of ln price over groups of rows, over normal scores
       ─▶ PriceEndings   how they are rounded: whole tens, .99, cents
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

MIN_GROUP = 5
"""No number is taken from fewer rows than this: a mean of five prices is nobody's price."""
MAX_GROUPS = 20
_NORMAL = NormalDist()
_MIN_SLOPE_ROWS = 2 * MIN_GROUP
_MAX_ENDINGS = 20
MIN_HABIT = 0.20
"""Twice what an ending has by chance where all last digits are alike."""


@dataclass(frozen=True, slots=True)
class PriceShape:
    """The spread of prices: ln price, piecewise linear over normal scores.

    Args:
        scores, logs: mean normal score and mean ln price of each group of neighbouring rows; two at least.
        rows: how many rows it was taken from; draws reach no further out than the outermost of so many would.
    """

    scores: tuple[float, ...]
    logs: tuple[float, ...]
    rows: int

    def price(self, share: float) -> float:
        """The price below which this share of the shop's prices lies."""
        inside = 0.5 / self.rows + share * (1.0 - 1.0 / self.rows)
        score = _NORMAL.inv_cdf(inside)
        last = len(self.scores) - 2
        left = next((i for i in range(last) if score < self.scores[i + 1]), last)
        rise = (self.logs[left + 1] - self.logs[left]) / (self.scores[left + 1] - self.scores[left])
        return math.exp(self.logs[left] + rise * (score - self.scores[left]))


def price_shape(prices: Sequence[float], usual_slope: float | None = None) -> PriceShape | None:
    """The spread of these prices; None from fewer than five, which could only repeat them.

    Args:
        usual_slope: change of ln price per normal score, for fewer than ten prices: these give one mean and no slope.
    """
    logs = np.sort(np.log(np.asarray(prices, dtype=np.float64)))
    count = len(logs)
    if count < MIN_GROUP or (count < _MIN_SLOPE_ROWS and usual_slope is None):
        return None
    if count < _MIN_SLOPE_ROWS:
        middle, slope = float(logs.mean()), usual_slope or 0.0
        return PriceShape((-1.0, 1.0), (middle - slope, middle + slope), count)
    scores = np.array([_NORMAL.inv_cdf((rank + 0.5) / count) for rank in range(count)])
    groups = min(count // MIN_GROUP, MAX_GROUPS)
    return PriceShape(
        tuple(float(part.mean()) for part in np.array_split(scores, groups)),
        tuple(float(part.mean()) for part in np.array_split(logs, groups)),
        count,
    )


def slope_of(prices: Sequence[float]) -> float:
    """Change of ln price per normal score over all of these prices, by least squares."""
    logs = np.sort(np.log(np.asarray(prices, dtype=np.float64)))
    scores = np.array([_NORMAL.inv_cdf((rank + 0.5) / len(logs)) for rank in range(len(logs))])
    return float(scores @ logs / (scores @ scores))


@dataclass(frozen=True, slots=True)
class PriceEndings:
    """How the shop's prices end.

    Args:
        endings: (modulus, ending, share of the prices), in cents: an ending is what is left of a price above the
            multiples of its modulus. 129.99 ends in 999 of 1000, 2,290 in 9000 of 10000.
    """

    endings: tuple[tuple[int, int, float], ...]

    def snap(self, price: float, place: float) -> float:
        """The nearest price that ends as the shop's do.

        Args:
            place: in [0, 1): chooses the ending.
        """
        places = np.cumsum([share for *_, share in self.endings])[:-1]
        modulus, ending, _ = self.endings[int(np.searchsorted(places, place, side="right"))]
        nearest = ending + modulus * round((price * 100.0 - ending) / modulus)
        return (nearest if nearest > 0 else ending or modulus) / 100


def price_endings(prices: Sequence[float]) -> PriceEndings:
    """How these prices end, as far as five or more agree.

    Coarsely at first, then finer, down to the cents: 9.99 of tens is a habit where a fifth of the prices have it. Where
    the last whole digit is anything, only what stands behind the point is. What agrees with nothing is left out.
    """
    left = [round(price * 100) for price in prices]
    median = sorted(left)[len(left) // 2]
    # A price moves by half a modulus at most: by a sixteenth of the median.
    power = max(2, math.floor(math.log10(max(1.0, median / 8))))
    found: list[tuple[int, int, int]] = []
    for modulus in (10**k for k in range(power, 1, -1)):
        counts = Counter(value % modulus for value in left)
        needed = MIN_GROUP if modulus == 100 else max(MIN_GROUP, MIN_HABIT * len(left))
        common = sorted((ending for ending in counts if counts[ending] >= needed), key=lambda e: (-counts[e], e))
        kept = common[:_MAX_ENDINGS]
        found += [(modulus, ending, counts[ending]) for ending in kept]
        left = [value for value in left if value % modulus not in kept]
    total = sum(count for *_, count in found)
    return PriceEndings(tuple((modulus, ending, count / total) for modulus, ending, count in found) or ((1, 0, 1.0),))
