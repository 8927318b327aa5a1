"""What a comparison found: measures with their meaning, categories, leaks; as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from appraiser import __version__
from appraiser.data.fidelity.leaks import LeakCheck
from appraiser.data.tables import ProductTable

FORMAT = 1
Better = Literal["higher", "lower", "nearer"]


@dataclass(frozen=True)
class Measure:
    """One number.

    Args:
        path: where it stands in the JSON: `columns.price.ks_complement`.
        better: `nearer` for numbers of the sample that should be like `real`.
        real: the same number of the real table.
        by_chance: what two tables of these sizes from one shop have on average.
        limit: beyond it (below where higher is better) it is a warning.
        is_bits: it counts bits of 256, not shares.
    """

    path: str
    label: str
    value: float
    meaning: str
    better: Better
    limit: float | None = None
    by_chance: float | None = None
    real: float | None = None
    unit: Literal["share", "bits", "plain"] = "share"

    @property
    def warns(self) -> bool:
        """Whether it is bad enough to say so."""
        if self.limit is None:
            return False
        if self.better == "nearer":
            return abs(self.value - (self.real or 0.0)) > self.limit
        return self.value < self.limit if self.better == "higher" else self.value > self.limit

    def to_json(self) -> dict[str, Any]:
        """The number and what it means; what it does not have is left out."""
        limit_name = {"higher": "warn_below", "lower": "warn_above", "nearer": "warn_if_further"}[self.better]
        numbers = {"value": self.value, "real": self.real, "by_chance": self.by_chance, limit_name: self.limit}
        rounded = {key: round(value, 6) for key, value in numbers.items() if value is not None}
        return rounded | {"better": self.better, "warns": self.warns, "meaning": self.meaning}


@dataclass(frozen=True)
class CategoryFidelity:
    """One category on both sides.

    Args:
        groups: (real, sample): geometric means of price over groups of five or more rows, ascending; none for
            categories of fewer than ten priced rows.
    """

    name: str
    rows: tuple[int, int]
    shares: tuple[float, float]
    ks_complement: float | None
    by_chance: float | None
    groups: tuple[tuple[float, ...], tuple[float, ...]]

    def to_json(self) -> dict[str, Any]:
        """What there is."""
        document: dict[str, Any] = {
            "category": self.name,
            "real": {"rows": self.rows[0], "share": round(self.shares[0], 6)},
            "sample": {"rows": self.rows[1], "share": round(self.shares[1], 6)},
        }
        if self.ks_complement is not None and self.by_chance is not None:
            document |= {"price_ks_complement": round(self.ks_complement, 6), "by_chance": round(self.by_chance, 6)}
        return document


@dataclass(frozen=True)
class Fidelity:
    """What a comparison found."""

    real: ProductTable
    sample: ProductTable
    measures: tuple[Measure, ...]
    leaks: tuple[LeakCheck, ...]
    categories: tuple[CategoryFidelity, ...]
    notes: tuple[str, ...]
    picture_distances: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    """Bits to the nearest real picture: of each drawn picture, and of each real one to another."""

    @property
    def passes(self) -> bool:
        """Whether nothing of the real table was found in the sample."""
        return not any(check.hits for check in self.leaks)

    @property
    def warnings(self) -> list[str]:
        """Sentences about what is bad, leaks first."""
        leaks = [
            f"LEAK: {len({row for row, _ in check.hits})} {check.kind.replace('_', ' ')}: {check.meaning}"
            for check in self.leaks
            if check.hits
        ]
        return leaks + [f"{m.label} is {shown(m, m.value)}: {_bound(m)}" for m in self.measures if m.warns]

    def measure(self, path: str) -> Measure | None:
        """The measure with this path, if it could be computed."""
        return next((measure for measure in self.measures if measure.path == path), None)

    def to_json(self) -> dict[str, Any]:
        """The whole document; parts that could not be computed are absent."""
        document: dict[str, Any] = {
            "format": FORMAT,
            "appraiser": __version__,
            "real": {"name": self.real.name, "rows": len(self.real)},
            "sample": {"name": self.sample.name, "rows": len(self.sample)},
            "passes": self.passes,
            "warnings": self.warnings,
            "leaks": {check.kind: check.to_json() for check in self.leaks},
        }
        for measure in self.measures:
            *parents, last = measure.path.split(".")
            place = document
            for name in parents:
                place = place.setdefault(name, {})
            place[last] = measure.to_json()
        if self.categories:
            document["price_per_category"] = [category.to_json() for category in self.categories]
        return document | {"notes": list(self.notes)}


def shown(measure: Measure, value: float) -> str:
    """A number as people write it."""
    match measure.unit:
        case "share":
            return f"{value:.1%}"
        case "bits":
            return f"{value:.0f} bits"
        case "plain":
            return f"{value:.2f}"


def _bound(measure: Measure) -> str:
    """What the number should have been."""
    if measure.better == "nearer" and measure.real is not None:
        return f"{shown(measure, measure.real)} in the real table. {measure.meaning}"
    limit = shown(measure, measure.limit or 0.0)
    return f"{'at least' if measure.better == 'higher' else 'at most'} {limit} is expected. {measure.meaning}"
