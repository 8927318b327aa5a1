"""Which of the readable rows become the data set: what only shows when all of them are seen together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from appraiser.data.building.grouping import title_key
from appraiser.data.building.ledger import Kept, Ledger, Quarantined
from appraiser.data.building.rows import RowProblem, RowValues, record_id, row_values
from appraiser.data.building.shards import ColumnTypes
from appraiser.data.cleaning import placeholders
from appraiser.data.reasons import Reason
from appraiser.data.records import FieldMap
from appraiser.data.sources import Source
from appraiser.errors import DataError

Dedupe = Literal["first", "last"]
CHOSEN: tuple[Reason, ...] = ("duplicate_id", "dropped")
"""Left out because the user said so: no sign of a bad source."""


@dataclass(frozen=True)
class BuildSettings:
    """How a source becomes a data set.

    Args:
        currency: for tables without a currency column.
        num_crops: crop budget of the data set; None chooses it from the median picture.
        max_quarantined: share of rows that may be left out before the build is refused.
        shares: split -> share of the rows.
        dedupe: of rows with the same id, which one stays; None refuses them.
        split_by: column of the source that names the splits, over grouping.
        keep_placeholders: keep rows whose picture stands for many products.
        several_currencies: keep prices in several currencies, each row with its own; otherwise they are refused.
    """

    currency: str | None = None
    seed: int = 0
    num_crops: int | None = None
    max_quarantined: float = 0.05
    shares: Mapping[str, float] | None = None
    dedupe: Dedupe | None = None
    split_by: str | None = None
    keep_placeholders: bool = False
    several_currencies: bool = False


@dataclass
class Overview:
    """What a pass over the kept rows finds, one entry per row in each list."""

    ids: list[str] = field(default_factory=list)
    titles: list[str | None] = field(default_factory=list)
    categories: list[str | None] = field(default_factory=list)
    prices: list[float | None] = field(default_factory=list)
    groups: list[str | None] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    currencies: list[str | None] = field(default_factory=list)
    cleaned: Counter[str] = field(default_factory=Counter)
    types: ColumnTypes = field(default_factory=ColumnTypes)

    @property
    def labels(self) -> list[Hashable]:
        """What makes two rows different products, whatever fields there are."""
        rows = zip(self.titles, self.categories, self.prices, strict=True)
        return [title_key(title) if title else (category, price) for title, category, price in rows]


def _overview(source: Source, fields: FieldMap, kept: Sequence[Kept], split_by: str | None) -> Overview:
    found = Overview()
    for _, values in records(source, fields, kept):
        found.types.see(values.extra)
        found.ids.append(values.fields["id"])
        found.titles.append(values.fields.get("title"))
        found.categories.append(values.fields.get("category"))
        found.prices.append(values.fields.get("price"))
        found.groups.append(values.fields.get("group"))
        found.splits.append(_given_split(values, split_by))
        found.cleaned.update(values.cleaned)
        found.currencies.append(values.fields.get("currency"))
    return found


def _given_split(values: RowValues, column: str | None) -> str:
    if column is None:
        return ""
    # A column that a data set has itself is kept under another name.
    return str(values.extra.get(column, values.extra.get(f"source_{column}", "")))


def records(source: Source, fields: FieldMap, kept: Sequence[Kept]) -> Iterator[tuple[Kept, RowValues]]:
    """The kept rows with their values, which are read from the source again."""
    waiting = iter(kept)
    wanted = next(waiting, None)
    for number, row in source.rows():
        if wanted is not None and number == wanted.row:
            try:
                yield wanted, row_values(number, row, source, fields)
            except RowProblem:
                break
            wanted = next(waiting, None)
    if wanted is not None:
        raise DataError(f"row {wanted.row} is gone: {source.name} changed while it was read", fix="build again")


@dataclass(frozen=True)
class Selection:
    """The rows that stay, by number, and those that do not."""

    kept: list[Kept]
    quarantine: list[Quarantined]
    overview: Overview


def select(source: Source, fields: FieldMap, ledger: Ledger, settings: BuildSettings) -> Selection:
    """Choose among the rows of a complete ledger.

    Raises:
        DataError: no rows, too many bad ones, duplicate ids, or corrections of products that do not exist.
    """
    kept, quarantine = ledger.kept(), ledger.quarantined()
    _refuse_bad_sources(source, len(kept), quarantine, settings.max_quarantined)
    _refuse_unknown_corrections(source, fields)
    overview = _overview(source, fields, kept, settings.split_by)
    left_out = _left_out_together(source, kept, overview, settings)
    if left_out:
        quarantine = sorted([*quarantine, *left_out.values()], key=lambda state: state.row)
        kept = [row for place, row in enumerate(kept) if place not in left_out]
        _refuse_bad_sources(source, len(kept), quarantine, settings.max_quarantined)
        overview = _overview(source, fields, kept, settings.split_by)
    return Selection(kept, quarantine, overview)


def _refuse_bad_sources(source: Source, num_kept: int, quarantine: Sequence[Quarantined], allowed: float) -> None:
    total = num_kept + len(quarantine)
    quarantine = [state for state in quarantine if state.reason not in CHOSEN] if num_kept else quarantine
    if total == 0:
        raise DataError(f"{source.name} has no rows", fix="the table needs one row per product")
    if len(quarantine) <= allowed * total and num_kept:
        return
    causes = Counter(state.reason for state in quarantine).most_common()
    share = math.ceil(100 * len(quarantine) / total) / 100
    examples = "\n".join(f"         row {state.row}: {state.reason}: {state.detail}" for state in quarantine[:5])
    raise DataError(
        f"{len(quarantine)} of {total} rows cannot be used: "
        + ", ".join(f"{count} {reason}" for reason, count in causes),
        where=f"{source.name}\n{examples}",
        fix=f"mend these rows, or accept the loss: --max-quarantined {share:g}" if num_kept else "mend the table",
    )


def _refuse_unknown_corrections(source: Source, fields: FieldMap) -> None:
    if not fields.corrections.by_id:
        return
    unknown = set(fields.corrections.by_id) - {record_id(number, row, fields) for number, row in source.rows()}
    if unknown:
        raise DataError(
            f"{len(unknown)} corrections are of products that the source does not have: "
            + ", ".join(sorted(unknown)[:10]),
            where=source.name,
            fix="take these lines out, or write the ids as the data set has them",
        )


def _left_out_together(
    source: Source, kept: Sequence[Kept], overview: Overview, settings: BuildSettings
) -> dict[int, Quarantined]:
    """Rows that cannot stay beside others, by place: repeated ids, and pictures that stand for many products."""
    left_out = {
        place: Quarantined(kept[place].row, "duplicate_id", f"id {overview.ids[place]!r} stands in several rows")
        for place in _repeated(overview.ids, source.name, settings.dedupe)
    }
    if not settings.keep_placeholders:
        for place, count in placeholders([row.picture_hash for row in kept], overview.labels).items():
            detail = f"one picture for {count} different products; --keep-placeholders keeps it"
            left_out.setdefault(place, Quarantined(kept[place].row, "placeholder", detail))
    return left_out


def _repeated(ids: Sequence[str], name: str, dedupe: Dedupe | None) -> set[int]:
    """Places of rows whose id another row keeps.

    Raises:
        DataError: there are any, and nobody said which row counts.
    """
    places: dict[str, list[int]] = {}
    for place, identifier in enumerate(ids):
        places.setdefault(identifier, []).append(place)
    twice = {identifier: found for identifier, found in places.items() if len(found) > 1}
    if twice and dedupe is None:
        raise DataError(
            f"{len(twice)} ids stand in several rows: {', '.join(list(twice)[:10])}",
            where=name,
            fix="make them unique, say which row counts (--dedupe first or last), or let rows be numbered: --map id=",
        )
    return {place for found in twice.values() for place in (found[1:] if dedupe == "first" else found[:-1])}


def one_currency(currencies: Sequence[str | None], given: str | None, *, may_be_several: bool = False) -> str | None:
    """The currency of all prices; None if nobody says it, or if there are several and that is wanted.

    Raises:
        DataError: there are several, and that is not wanted.
    """
    found = Counter(filter(None, currencies))
    if len(found) > 1 and may_be_several:
        return None
    if len(found) > 1:
        raise DataError(
            f"prices are in several currencies: {', '.join(f'{code} ({n})' for code, n in found.most_common())}",
            fix="build one data set per currency, or keep them all for a model that names each: --several-currencies",
        )
    return next(iter(found), given)
