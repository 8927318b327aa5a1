"""Whether anything of the real table stands in the sample: exact checks, and one hit is one too many.

A hit is told by its two row numbers, counted from 1; what stands in the rows is not repeated.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from appraiser.data.fidelity.picture_sets import PictureSet, near_copies
from appraiser.data.looks import NEAR_DUPLICATE_BITS
from appraiser.data.tables import ProductTable, plain_title

MAX_NAMED = 20


@dataclass(frozen=True)
class LeakCheck:
    """One check.

    Args:
        kind: titles, rows, ids, pictures or look_alikes.
        meaning: what it looks for.
        num_checked: rows or pictures of the sample.
        hits: (row of the sample, row of the real table), counted from 1.
    """

    kind: str
    meaning: str
    num_checked: int
    hits: tuple[tuple[int, int], ...]

    def to_json(self) -> dict[str, Any]:
        """Count, meaning, and where the first hits are."""
        hits = [{"sample_row": sample, "real_row": real} for sample, real in self.hits[:MAX_NAMED]]
        found = {"value": len({sample for sample, _ in self.hits}), "checked": self.num_checked}
        return found | {"meaning": self.meaning, "better": "lower", "warn_above": 0} | ({"hits": hits} if hits else {})


def find_leaks(
    real: ProductTable,
    sample: ProductTable,
    real_pictures: PictureSet | None = None,
    sample_pictures: PictureSet | None = None,
    *,
    is_drawn: bool = False,
) -> list[LeakCheck]:
    """Every check that both sides have what it needs for.

    Args:
        is_drawn: the real table is a sample itself: its pictures look like ours without being copied.
    """
    titles = [[None if title is None else plain_title(title) for title in table.titles] for table in (real, sample)]
    rows = [
        [None if None in row else row for row in zip(found, table.prices, strict=True)]
        for found, table in zip(titles, (real, sample), strict=True)
    ]
    checks = [
        _same("titles", "Rows whose title, case and spaces aside, is a title of the real table.", titles[0], titles[1]),
        _same("rows", "Rows with title and price of one real row.", rows[0], rows[1]),
        _same("ids", "Rows with the id of a real row.", real.ids, sample.ids),
    ]
    if real_pictures and sample_pictures and real_pictures.digests and sample_pictures.digests:
        first: dict[str, int] = {}
        for row, digest in zip(real_pictures.rows, real_pictures.digests, strict=True):
            first.setdefault(digest, row)
        same = [
            (row, first[digest])
            for row, digest in zip(sample_pictures.rows, sample_pictures.digests, strict=True)
            if digest in first
        ]
        count = len(sample_pictures.rows)
        checks.append(_check("pictures", "Pictures that are a real picture, byte for byte.", count, same))
        if not is_drawn:
            meaning = (
                f"Pictures that look like a real one: at most {NEAR_DUPLICATE_BITS} of the 256 bits of their "
                "difference hashes apart, and alike when shrunk to 16 x 16 pixels."
            )
            checks.append(_check("look_alikes", meaning, count, near_copies(sample_pictures, real_pictures)))
    return [check for check in checks if check.num_checked]


def _same(kind: str, meaning: str, real: Sequence[Hashable | None], sample: Sequence[Hashable | None]) -> LeakCheck:
    first: dict[Hashable, int] = {}
    for row, value in enumerate(real):
        if value is not None:
            first.setdefault(value, row)
    hits = [(row, first[value]) for row, value in enumerate(sample) if value is not None and value in first]
    return _check(kind, meaning, sum(value is not None for value in sample) if first else 0, hits)


def _check(kind: str, meaning: str, num_checked: int, hits: Sequence[tuple[int, int]]) -> LeakCheck:
    return LeakCheck(kind, meaning, num_checked, tuple((sample + 1, real + 1) for sample, real in hits))
