"""Which rows belong to one product, and which split each product goes to.

Colour variants of a product share a photo and a title up to its colour words. Were they split by row, the model would
be tested on what it has seen: on real product photos that turned 44 % into 73 %. So rows are joined into groups - the
same title up to colour words, the same bytes, or a near-duplicate picture - and a group never stands on two sides.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from appraiser.data.looks import near_duplicates
from appraiser.errors import DataError

SPLITS: dict[str, float] = {"train": 0.80, "val": 0.05, "calib": 0.05, "test": 0.10}

COLOUR_WORDS = frozenset(
    """black white grey gray silver gold beige brown tan camel cream ivory navy blue sky azure teal turquoise green
    olive khaki lime yellow mustard orange coral red burgundy maroon pink rose fuchsia purple violet lilac lavender
    charcoal taupe sand stone noir blanc bleu rouge vert gris""".split()
)
# A chain of look-alikes must not swallow the catalogue: links that would grow a group beyond this share are not made.
MAX_GROUP_SHARE = 0.05
MIN_GROUP_CAP = 10


@dataclass(frozen=True)
class GroupFacts:
    """What grouping found; counted in rows unless said."""

    num_groups: int
    largest_group: int
    num_exact_duplicates: int
    num_near_duplicate_links: int
    num_links_over_cap: int
    row_split_leak: float
    """Share of test rows whose product would also be in training, had the rows been split one by one."""


class _Union:
    def __init__(self, size: int) -> None:
        self.parent = list(range(size))
        self.size = [1] * size

    def find(self, item: int) -> int:
        while self.parent[item] != item:
            self.parent[item] = self.parent[self.parent[item]]
            item = self.parent[item]
        return item

    def join(self, first: int, second: int, cap: int | None = None) -> bool:
        """Join two groups; False if they were one already or would exceed `cap` together."""
        a, b = self.find(first), self.find(second)
        if a == b or (cap is not None and self.size[a] + self.size[b] > cap):
            return False
        a, b = min(a, b), max(a, b)
        self.parent[b] = a
        self.size[a] += self.size[b]
        return True


def title_key(title: str) -> str:
    """A title without its colour words, case and punctuation."""
    words = re.findall(r"\w+", title.lower())
    return " ".join(word for word in words if word not in COLOUR_WORDS)


def group_rows(
    titles: Sequence[str | None],
    picture_hashes: Sequence[str],
    looks: np.ndarray,
    seed: int,
    given: Sequence[str | None] | None = None,
) -> tuple[list[str], GroupFacts]:
    """Join rows into product groups.

    Args:
        picture_hashes: content hash of each row's pictures.
        looks: [n, 800] uint8, the look of each row's first picture.
        given: group names from the user's own column, which then replace title and picture evidence.

    Returns:
        A group name per row, and the facts.
    """
    num_rows = len(picture_hashes)
    union = _Union(num_rows)
    for keys in [given] if given is not None else [picture_hashes, [t and title_key(t) for t in titles]]:
        first: dict[str, int] = {}
        for row, key in enumerate(keys):
            if key:
                union.join(first.setdefault(key, row), row)
    duplicates = sum(count - 1 for count in Counter(picture_hashes).values())
    # Each different picture once: 2,000 rows with one picture are two million pairs, and took minutes.
    once = np.unique(np.asarray(picture_hashes), return_index=True)[1]
    once.sort()
    links = near_duplicates(looks[once]) if given is None else []
    cap = max(MIN_GROUP_CAP, round(MAX_GROUP_SHARE * num_rows))
    num_links = num_over_cap = 0
    for first_row, second_row in ((int(once[first]), int(once[second])) for first, second, _ in links):
        if union.find(first_row) == union.find(second_row):
            continue
        joined = union.join(first_row, second_row, cap)
        num_links += joined
        num_over_cap += not joined
    roots = [union.find(row) for row in range(num_rows)]
    sizes = Counter(roots)
    facts = GroupFacts(
        num_groups=len(sizes),
        largest_group=max(sizes.values(), default=0),
        num_exact_duplicates=duplicates,
        num_near_duplicate_links=num_links,
        num_links_over_cap=num_over_cap,
        row_split_leak=_row_split_leak(roots, seed),
    )
    return [f"g{root:06d}" for root in roots], facts


def assign_splits(groups: Sequence[str], seed: int, shares: dict[str, float] | None = None) -> list[str]:
    """A split per row, whole groups together, row counts as close to the shares as groups allow.

    Order of groups comes from a hash of the seed and the group's rows, not from the rows' order alone.
    """
    shares = shares or SPLITS
    sizes = Counter(groups)
    order = sorted(sizes, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
    # Large groups first: the small splits would otherwise be overrun by one that comes late.
    order.sort(key=lambda group: -sizes[group] if sizes[group] > 0.01 * len(groups) else 0)
    wanted = {name: share * len(groups) for name, share in shares.items()}
    filled = dict.fromkeys(shares, 0)
    chosen: dict[str, str] = {}
    for group in order:
        split = max(shares, key=lambda name: (wanted[name] - filled[name]) / max(wanted[name], 1e-9))
        chosen[group] = split
        filled[split] += sizes[group]
    return [chosen[group] for group in groups]


GIVEN_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "calib": "calib", "calibration": "calib", "test": "test",
}  # fmt: skip


def follow_given_splits(given: Sequence[str], groups: Sequence[str], seed: int) -> list[str]:
    """A split per row as the source names it; validation and calibration come out of training where it has none.

    Raises:
        DataError: a value that names no split.
    """
    unknown = Counter(value for value in given if value.strip().lower() not in GIVEN_NAMES)
    if unknown:
        raise DataError(
            f"these name no split: {', '.join(f'{value!r} ({count})' for value, count in unknown.most_common(5))}",
            fix=f"use {', '.join(GIVEN_NAMES)}",
        )
    splits = [GIVEN_NAMES[value.strip().lower()] for value in given]
    missing = [name for name in ("val", "calib") if name not in splits]
    places = [place for place, split in enumerate(splits) if split == "train"]
    if missing and places:
        shares = {"train": SPLITS["train"]} | {name: SPLITS[name] for name in missing}
        for place, split in zip(places, assign_splits([groups[place] for place in places], seed, shares), strict=True):
            splits[place] = split
    return splits


def split_leak(splits: Sequence[str], groups: Sequence[str]) -> float:
    """Share of test rows whose product group is in training too: above zero only where a column gave the splits."""
    trained = {group for split, group in zip(splits, groups, strict=True) if split == "train"}
    tested = [group for split, group in zip(splits, groups, strict=True) if split == "test"]
    return sum(group in trained for group in tested) / len(tested) if tested else 0.0


def _row_split_leak(roots: Sequence[int], seed: int) -> float:
    """Leak of a plain 80/20 split by row, averaged over ten draws."""
    if len(roots) < 2:
        return 0.0
    rng = np.random.default_rng(seed)
    array = np.asarray(roots)
    leaks = []
    for _ in range(10):
        is_test = np.zeros(len(array), dtype=bool)
        is_test[rng.permutation(len(array))[: max(1, len(array) // 5)]] = True
        leaks.append(np.isin(array[is_test], array[~is_test]).mean())
    return float(np.mean(leaks))
