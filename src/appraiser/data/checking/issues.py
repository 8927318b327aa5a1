"""What is wrong with a data set, by kind: which products, why it matters, and what to do.

Every kind has a measured threshold; docs/data_quality.md says how it was found and what it misses.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from appraiser.data.building.grouping import title_key
from appraiser.data.checking.findings import Findings
from appraiser.data.cleaning import price_outliers
from appraiser.data.looks import difference, near_duplicates
from appraiser.data.task import MAX_ANSWER_TOKENS

MIN_SIDE = 112
"""A third of the 336 px that the model sees of a crop."""
MAX_ASPECT = 3.0
MIN_LIGHT = 0.30
MIN_RANGE = 0.04
MAX_BLUR = 0.65
MAX_DIFFERENCE = 0.08
"""Copies saved again at 0.9 of their size differ by up to 0.03; like ties of two colours share a hash, not a colour."""
CONTROL_TOKEN = re.compile(r"<\|[^|<>\s]{1,40}\|>|</?s>")


@dataclass(frozen=True)
class Kind:
    """A kind of issue in words.

    Args:
        fix: what a person can do about it.
    """

    name: str
    meaning: str
    fix: str


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("broken_picture", "The stored picture cannot be decoded.", "Build the data set again."),
        Kind(
            "split_leak",
            "Look-alike pictures or one product group stand in training and in another split.",
            "Drop one side, or build without --split-by and without a group column.",
        ),
        Kind(
            "label_conflict",
            "One picture has several titles, categories or prices: at most one of them can be read off it.",
            "Keep the right one, drop the others.",
        ),
        Kind("same_picture", "The same product stands in several rows.", "Drop all but one."),
        Kind("near_duplicate", "Pictures that look alike.", "Drop what is the same product."),
        Kind(
            "price_outlier",
            "The price is far from those of its category.",
            "Correct it if digits, cents or the currency went wrong; keep it if it is true.",
        ),
        Kind(
            "special_token",
            "The title holds a control token of chat models. It is trained as plain text and does no harm here; other "
            "tools may take it for a command.",
            "Rename the product.",
        ),
        Kind("long_answer", "The answer is longer than predictions may get, so it can never be right.", "Shorten it."),
        Kind("small_picture", f"A side has less than {MIN_SIDE} px.", "Find a larger picture, or drop it."),
        Kind("odd_shape", f"One side is more than {MAX_ASPECT:g} times the other.", "Crop the picture."),
        Kind("blank_picture", "One even colour: nothing is shown.", "Find the picture, or drop the product."),
        Kind("dark_picture", "Even the brightest part is dark.", "Find a brighter picture, or drop it."),
        Kind("blurred_picture", "No sharp edge in the product's part of the picture.", "Find a sharper picture."),
    )
}


@dataclass(frozen=True)
class Issue:
    """One thing that is wrong: the products it is about, and what was seen.

    Args:
        places: places of the records in the findings, in order.
        picture: which picture of the only product, where a product has several; 0 otherwise.
    """

    kind: str
    places: tuple[int, ...]
    detail: str
    picture: int = 0


def find_issues(findings: Findings) -> list[Issue]:
    """All issues, in the order of `KINDS`."""
    alike = Likeness.of(findings)
    found = [
        *_broken(findings), *_leaks(findings, alike), *_duplicates(findings, alike), *_prices(findings),
        *_texts(findings), *_pictures(findings),
    ]  # fmt: skip
    order = {name: number for number, name in enumerate(KINDS)}
    return sorted(found, key=lambda issue: (order[issue.kind], issue.places, issue.picture))


def _broken(findings: Findings) -> Iterator[Issue]:
    for place, number, reason in findings.broken:
        yield Issue("broken_picture", (place,), reason, number)


def _pictures(findings: Findings) -> Iterator[Issue]:
    """Issues of single pictures; one that shows nothing is not called dark or blurred as well."""
    columns = (*(findings.picture_numbers(name) for name in ("width", "height", "light", "range", "blur")),)
    several = _records_with_several(findings)
    for row, (width, height, light, span, blur) in enumerate(zip(*columns, strict=True)):
        place = findings.record[row]
        number = findings.number[row] if place in several else 0

        def issue(kind: str, detail: str, place: int = place, number: int = number) -> Issue:
            return Issue(kind, (place,), detail, number)

        if min(width, height) < MIN_SIDE:
            yield issue("small_picture", f"{width:.0f} x {height:.0f} px")
        if max(width, height) > MAX_ASPECT * min(width, height):
            yield issue("odd_shape", f"{width:.0f} x {height:.0f} px")
        if span < MIN_RANGE:
            yield issue("blank_picture", f"brightness differs by {span:.1%} of its range")
        elif light < MIN_LIGHT:
            yield issue("dark_picture", f"the brightest part has {light:.0%} of full light")
        elif blur > MAX_BLUR:
            yield issue("blurred_picture", f"blur {blur:.2f}; sharp pictures have 0.2 to 0.5")


def _records_with_several(findings: Findings) -> set[int]:
    return {place for place, number in zip(findings.record, findings.number, strict=True) if number > 1}


def _texts(findings: Findings) -> Iterator[Issue]:
    for place, title in enumerate(findings.titles):
        token = CONTROL_TOKEN.search(title or "")
        if token:
            yield Issue("special_token", (place,), f"{token.group()} in the title")
        if findings.answer_tokens[place] > MAX_ANSWER_TOKENS:
            tokens = findings.answer_tokens[place]
            yield Issue("long_answer", (place,), f"{tokens} tokens; predictions end after {MAX_ANSWER_TOKENS}")


def _prices(findings: Findings) -> Iterator[Issue]:
    for outlier in price_outliers(findings.prices, findings.categories, findings.currencies):
        times = f"{outlier.times:.3g} times" if outlier.times >= 1 else f"1/{1 / outlier.times:.3g} of"
        price = findings.prices[outlier.place]
        yield Issue("price_outlier", (outlier.place,), f"{price:g}: {times} the typical {outlier.typical:.4g}")


@dataclass(frozen=True)
class Likeness:
    """Which pictures are equal and which look alike.

    Args:
        same: places of the records with one picture, a set per different picture.
        pairs: (place in `same`, place in `same`, differing bits) of different pictures that look alike.
    """

    same: list[set[int]]
    pairs: list[tuple[int, int, int]]

    @classmethod
    def of(cls, findings: Findings) -> Likeness:
        """Compare all pictures; equal ones count once, however many there are."""
        rows: dict[bytes, list[int]] = defaultdict(list)
        for row, digest in enumerate(findings.picture_hashes()):
            rows[digest].append(row)
        looks = findings.picture_looks()[[same[0] for same in rows.values()]]
        pairs = [
            (first, second, bits)
            for first, second, bits in near_duplicates(looks)
            if difference(looks[first], looks[second]) < MAX_DIFFERENCE
        ]
        return cls([{findings.record[row] for row in same} for same in rows.values()], pairs)


def _duplicates(findings: Findings, alike: Likeness) -> Iterator[Issue]:
    """Equal pictures of different records, and look-alike ones.

    Look-alike pictures whose titles differ in colour words alone are variants of one product and belong there.
    """
    for places in map(sorted, alike.same):
        if len(places) > 1:
            differing = _differing_labels(findings, places)
            kind = "label_conflict" if differing else "same_picture"
            detail = f"one picture for {len(places)} products: {', '.join(differing) or 'the same labels'}"
            yield Issue(kind, tuple(places), detail)
    for first, second, bits in alike.pairs:
        a, b = min(alike.same[first]), min(alike.same[second])
        if a != b and not _are_variants(findings, a, b):
            differing = _differing_labels(findings, [a, b])
            said = f": {', '.join(differing)}" if differing else ""
            yield Issue("near_duplicate", (min(a, b), max(a, b)), f"{bits} of 256 marks differ{said}")


def _are_variants(findings: Findings, first: int, second: int) -> bool:
    titles = findings.titles[first], findings.titles[second]
    return titles[0] != titles[1] and None not in titles and title_key(titles[0] or "") == title_key(titles[1] or "")


def _differing_labels(findings: Findings, places: Sequence[int]) -> list[str]:
    columns: dict[str, Sequence[Hashable]] = {
        "titles": findings.titles, "categories": findings.categories,
        "prices": list(zip(findings.prices, findings.currencies, strict=True)),
    }  # fmt: skip
    counts = {name: len({values[place] for place in places}) for name, values in columns.items()}
    return [f"{count} different {name}" for name, count in counts.items() if count > 1]


def _leaks(findings: Findings, alike: Likeness) -> Iterator[Issue]:
    """Groups, equal and look-alike pictures that stand in training and in another split."""
    groups: dict[str, set[int]] = defaultdict(set)
    for place, group in enumerate(findings.groups):
        groups[group].add(place)
    pairs = (alike.same[first] | alike.same[second] for first, second, _ in alike.pairs)
    seen: set[tuple[int, ...]] = set()
    for places in (*groups.values(), *alike.same, *pairs):
        splits = {findings.splits[place] for place in places}
        crossing = tuple(sorted(places))
        if "train" in splits and len(splits) > 1 and crossing not in seen:
            seen.add(crossing)
            yield Issue("split_leak", crossing, f"stands in {', '.join(sorted(splits))}")


def counts_by_kind(issues: Sequence[Issue]) -> dict[str, int]:
    """How many issues of each kind, in the order of `KINDS`; kinds without any are left out."""
    counts = {name: sum(issue.kind == name for issue in issues) for name in KINDS}
    return {name: count for name, count in counts.items() if count}


def share_of_records(issues: Sequence[Issue], num_records: int) -> float:
    """Share of the records that some issue is about."""
    return len({place for issue in issues for place in issue.places}) / num_records if num_records else 0.0
