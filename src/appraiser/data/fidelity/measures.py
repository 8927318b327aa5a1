"""Likeness and privacy of two tables, as plain functions; formulas and names as in SDMetrics 0.32.

SDMetrics itself is not used: it needs pandas below 3 and imports copulas (BUSL-1.1) and plotly for measures that take a
page of numpy. The numbers it gives for twelve tables are kept in the tests.

Scores go from 0, nothing in common, to 1, the same. A table here is a mapping of columns: numbers are arrays of
integers or floats, everything else is compared as text.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = NDArray[Any]
Columns = Mapping[str, Column]
_BLOCK = 256
_KOLMOGOROV_MEAN = math.sqrt(math.pi / 2) * math.log(2)


def ks_complement(real: Column, sample: Column) -> float:
    """1 - sup |F_real(x) - F_sample(x)|, for numbers. Both have at least one value."""
    both = np.concatenate([real, sample])
    f_real = np.searchsorted(np.sort(real), both, side="right") / len(real)
    f_sample = np.searchsorted(np.sort(sample), both, side="right") / len(sample)
    return 1.0 - float(np.abs(f_real - f_sample).max())


def ks_by_chance(num_real: int, num_sample: int) -> float:
    """What `ks_complement` is on average for two draws from one continuous distribution: 1 - 0.869 sqrt(1/n + 1/m).

    Source: mean of the Kolmogorov distribution, sqrt(pi / 2) ln 2. Columns with ties come out higher.
    """
    return max(0.0, 1.0 - _KOLMOGOROV_MEAN * math.sqrt(1 / num_real + 1 / num_sample))


def tv_complement(real: Sequence[Hashable], sample: Sequence[Hashable]) -> float:
    """1 - 1/2 sum |share_real(value) - share_sample(value)|, for categories. Both have at least one value."""
    r, s = Counter(real), Counter(sample)
    return 1.0 - 0.5 * math.fsum(abs(r[key] / len(real) - s[key] / len(sample)) for key in r.keys() | s.keys())


def tv_by_chance(real: Sequence[Hashable], sample: Sequence[Hashable]) -> float:
    """What `tv_complement` is on average for two draws of these sizes from the shares of both together.

    The mean of |difference| of a share p is that of a normal variable, sqrt(2 / pi) sd, and never above its mean of
    2p (1 - p)^n for values so rare that most draws of n lack them.
    """
    n, m = len(real), len(sample)
    pooled = Counter(real) + Counter(sample)
    # Shares in the middle between both tables, so that the larger one does not decide alone what the shop is like.
    r, s = Counter(real), Counter(sample)
    total = 0.0
    for key in pooled:
        p = 0.5 * (r[key] / n + s[key] / m)
        total += min(math.sqrt(2 / math.pi * p * (1 - p) * (1 / n + 1 / m)), 2 * p)
    return max(0.0, 1.0 - 0.5 * total)


def correlation_similarity(real: tuple[Column, Column], sample: tuple[Column, Column]) -> float | None:
    """1 - |rho_real - rho_sample| / 2 with Pearson's rho; None where a column has one value only."""
    if any(len(np.unique(column)) < 2 for column in (*real, *sample)):
        return None
    rho_real, rho_sample = (float(np.corrcoef(*pair)[0, 1]) for pair in (real, sample))
    return 1.0 - abs(rho_real - rho_sample) / 2


def correlation_by_chance(real: tuple[Column, Column], num_sample: int) -> float:
    """What `correlation_similarity` is on average for another draw from the same shop.

    A correlation of n rows is off by (1 - rho^2) / sqrt(n) (standard error); half the mean of the difference of two.
    """
    rho, num_real = float(np.corrcoef(*real)[0, 1]), len(real[0])
    return 1.0 - 0.5 * math.sqrt(2 / math.pi * (1 / num_real + 1 / num_sample)) * (1 - rho**2)


def contingency_similarity(
    real: tuple[Sequence[Hashable], Sequence[Hashable]], sample: tuple[Sequence[Hashable], Sequence[Hashable]]
) -> float:
    """`tv_complement` of pairs of values; numbers are put into bins before, see `in_bins`."""
    return tv_complement(list(zip(*real, strict=True)), list(zip(*sample, strict=True)))


def in_bins(real: Column, sample: Column, num_bins: int = 10) -> tuple[list[int], list[int]]:
    """The bin of every number: bins of equal width over the real ones, the outermost open."""
    edges = np.histogram_bin_edges(real, bins=num_bins)[1:-1]
    return np.digitize(real, edges).tolist(), np.digitize(sample, edges).tolist()


def category_coverage(real: Sequence[Hashable], sample: Sequence[Hashable]) -> float:
    """Share of the real values that the sample has."""
    return len(set(real) & set(sample)) / len(set(real))


def range_coverage(real: Column, sample: Column) -> float | None:
    """Share of the real range that lies between the sample's smallest and largest value; None for one real value."""
    low, high = float(real.min()), float(real.max())
    if low == high:
        return None
    below = max((float(sample.min()) - low) / (high - low), 0.0)
    above = max((high - float(sample.max())) / (high - low), 0.0)
    return max(1.0 - below - above, 0.0)


def boundary_adherence(real: Column, sample: Column) -> float:
    """Share of the sample's numbers that lie between the smallest and the largest real one."""
    return float(np.mean((sample >= real.min()) & (sample <= real.max())))


def key_uniqueness(keys: Sequence[Hashable]) -> float:
    """Share of the keys that are there and no repetition."""
    return len({key for key in keys if key is not None}) / len(keys)


def referential_integrity(references: Sequence[Hashable], keys: Sequence[Hashable]) -> float:
    """Share of the references that point at a key."""
    known = set(keys)
    return sum(reference in known for reference in references) / len(references)


def new_row_synthesis(real: Columns, sample: Columns, tolerance: float = 0.01) -> float:
    """Share of the sample's rows that match no real row: texts equal, numbers within the tolerance of the sample's."""
    num_rows = len(next(iter(sample.values())))
    num_matched = 0
    encoded = {name: _codes(real[name], sample[name]) for name in sample if not is_numeric(sample[name])}
    for start in range(0, num_rows, _BLOCK):
        rows = slice(start, start + _BLOCK)
        match: NDArray[np.bool_] | None = None
        for name, column in sample.items():
            if name in encoded:
                found = encoded[name][1][rows, None] == encoded[name][0][None, :]
            else:
                numbers = column[rows, None].astype(np.float64)
                found = np.abs(real[name][None, :] - numbers) <= np.abs(tolerance * numbers)
            match = found if match is None else match & found
        num_matched += 0 if match is None else int(match.any(axis=1).sum())
    return 1.0 - num_matched / num_rows


def distances_to_closest(rows: Columns, reference: Columns, *, is_same: bool = False) -> NDArray[np.float64]:
    """Distance of every row to the closest record of the reference, 0 to 1.

    The mean over columns of: for numbers |difference| over the reference's range, at most 1; for texts 0 if equal,
    else 1.

    Args:
        is_same: both are one table, and a row is not its own closest record.
    """
    num_rows = len(next(iter(rows.values())))
    closest = np.empty(num_rows)
    encoded = {name: _codes(reference[name], rows[name]) for name in rows if not is_numeric(rows[name])}
    for start in range(0, num_rows, _BLOCK):
        part = slice(start, start + _BLOCK)
        total: Any = 0.0
        for name, column in rows.items():
            if name in encoded:
                total = total + (encoded[name][1][part, None] != encoded[name][0][None, :])
                continue
            width = float(reference[name].max() - reference[name].min())
            gap = np.abs(column[part, None].astype(np.float64) - reference[name][None, :])
            total = total + (np.minimum(gap / width, 1.0) if width else gap > 0)
        distances = np.asarray(total) / len(rows)
        if is_same:
            own = np.arange(len(distances))
            distances[own, start + own] = np.inf
        closest[part] = distances.min(axis=1)
    return closest


def random_rows(real: Columns, num_rows: int, seed: int) -> dict[str, Column]:
    """Rows that know only each column's range or values: the baseline of `dcr_baseline_protection`."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, Column] = {}
    for name, column in real.items():
        if np.issubdtype(column.dtype, np.integer):
            drawn[name] = rng.integers(int(column.min()), int(column.max()) + 1, num_rows)
        elif is_numeric(column):
            drawn[name] = rng.uniform(float(column.min()), float(column.max()), num_rows)
        else:
            drawn[name] = rng.choice(np.array(list(dict.fromkeys(column.tolist()))), num_rows)
    return drawn


def dcr_baseline_protection(real: Columns, sample: Columns, seed: int = 0) -> float | None:
    """min(1, median distance of the sample's rows to the real ones / that of random rows); None where that is 0."""
    random = float(np.median(distances_to_closest(random_rows(real, _num_rows(sample), seed), real)))
    return min(1.0, float(np.median(distances_to_closest(sample, real))) / random) if random else None


def dcr_overfitting_protection(training: Columns, sample: Columns, holdout: Columns) -> float:
    """min(1, 2 (1 - share of the sample's rows that are closer to the training rows than to the holdout)).

    1 where at most half are: rows from the same shop that the sample was not made from are just as close.
    """
    closer = distances_to_closest(sample, training) < distances_to_closest(sample, holdout)
    return min(1.0, 2.0 * (1.0 - float(closer.mean())))


def is_numeric(column: Column) -> bool:
    """Whether a column holds numbers."""
    return np.issubdtype(column.dtype, np.number)


def _num_rows(columns: Columns) -> int:
    return len(next(iter(columns.values())))


def _codes(real: Column, sample: Column) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """A number for every text, the same in both."""
    known: dict[object, int] = {}
    codes = [np.array([known.setdefault(value, len(known)) for value in column.tolist()]) for column in (real, sample)]
    return codes[0], codes[1]
