"""Any product table -> a data set folder: Parquet splits with the pictures inside, a manifest, a quarantine.

Every row of the source ends in exactly one place: a split, or the quarantine with a reason code. States of rows are
kept in a ledger beside the target, so an interrupted build goes on where it stopped. A reader never sees half a data
set: it is written in that folder too, and moved to its place when complete.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from appraiser import __version__
from appraiser.data.building.card import card
from appraiser.data.building.collect import Collector, Elsewhere, Forecast
from appraiser.data.building.grouping import assign_splits, group_rows
from appraiser.data.building.ledger import Kept, Ledger, Quarantined
from appraiser.data.building.previous import Previous
from appraiser.data.building.rows import RowProblem, RowValues, row_values
from appraiser.data.building.shards import ColumnTypes, Layout, Record, ShardWriter, write_quarantine
from appraiser.data.dataset import DATASET_FORMAT, SPLIT_NAMES, Manifest
from appraiser.data.fetch import FetchPolicy
from appraiser.data.reasons import check_reasons
from appraiser.data.records import FieldMap, guess_fields
from appraiser.data.sources import Source, open_source
from appraiser.errors import DataError

CROP_PX = 336
MAX_CROPS = 16
Dedupe = Literal["first", "last"]
Where = Literal["here", "ray"]


@dataclass(frozen=True)
class BuildSettings:
    """How a source becomes a data set.

    Args:
        currency: for tables without a currency column.
        num_crops: crop budget of the data set; None chooses it from the median picture.
        max_quarantined: share of rows that may be left out before the build is refused.
        shares: split -> share of the rows.
        dedupe: of rows with the same id, which one stays; None refuses them.
    """

    currency: str | None = None
    seed: int = 0
    num_crops: int | None = None
    max_quarantined: float = 0.05
    shares: Mapping[str, float] | None = None
    dedupe: Dedupe | None = None


def build_dataset(
    source: str | Path,
    out: str | Path,
    *,
    mapping: Mapping[str, Sequence[str]] | None = None,
    currency: str | None = None,
    seed: int = 0,
    num_crops: int | None = None,
    max_quarantined: float = 0.05,
    shares: Mapping[str, float] | None = None,
    dedupe: Dedupe | None = None,
    retry: Sequence[str] = (),
    fetch: FetchPolicy | None = None,
    progress: Callable[[int], None] | None = None,
    on_forecast: Callable[[Forecast], None] | None = None,
    on: Where = "here",
) -> Manifest:
    """Build a data set, or go on with one whose building was interrupted.

    Args:
        source: a table file, a folder holding one, or `hub:owner/name`.
        out: folder to make; must not exist or be empty, unless `retry` is given.
        mapping: field -> columns, over the guess; an empty list drops a field.
        retry: reasons; rows that were left out for one of them are tried again, also of a finished data set, which
            is then replaced.
        progress: called with the number of rows done.
        on_forecast: called once if pictures have URLs, after the first of them.
        on: where pictures are fetched and decoded; `ray` is the cluster this process is connected to, else that of
            RAY_ADDRESS, else one started for this build. The data set is the same.

    See `BuildSettings` for the others.

    Raises:
        DataError: nothing usable, too many bad rows, duplicate ids, several currencies, or no space.
    """
    settings = BuildSettings(currency, seed, num_crops, max_quarantined, shares, dedupe)
    target = Path(out) if Path(out).name not in ("", "..") else Path(out).resolve()
    check_reasons(retry)
    _check_target(target, retry)
    _check_shares(shares)
    table = open_source(str(source))
    fields = guess_fields(table.columns, mapping or {}, Path(table.name).name)
    staging = target.with_name(f".{target.name}.building")
    previous = Previous.open(target, table, fields, retry) if _holds_dataset(target) else None
    policy = fetch or FetchPolicy()
    collector: Collector | None = None
    try:
        with _workers(on, policy) as elsewhere, Ledger(staging, f"{table.sha256} {fields.describe()}") as ledger:
            ledger.forget(retry)
            collector = Collector(table, fields, ledger, policy, previous, progress, on_forecast, elsewhere)
            collector.run()
            manifest = _write(table, fields, ledger, staging / "dataset", settings)
        _publish(staging, target)
    except (OSError, DataError) as error:
        raise _failure(error, staging, target, collector) from error
    return manifest


def _workers(on: Where, policy: FetchPolicy) -> AbstractContextManager[Elsewhere | None]:
    if on == "here":
        return nullcontext()
    from appraiser.data.building.on_ray import finishing_on_ray

    return finishing_on_ray(policy)


def _failure(error: OSError | DataError, staging: Path, target: Path, collector: Collector | None) -> DataError:
    """What to tell the user; what was fetched stays for the next try, anything else is quickly made again."""
    has_fetched = collector is not None and collector.num_fetched + collector.num_resumed > 0
    # Without a collector the ledger was not ours: another build may be writing there.
    if collector is not None and not has_fetched:
        shutil.rmtree(staging, ignore_errors=True)
    kept = "; what was fetched is kept for the next try" if has_fetched else ""
    if isinstance(error, DataError):
        return DataError(error.what, where=error.where, fix=f"{error.fix}{kept}") if kept else error
    return DataError(
        f"cannot write the data set: {error.strerror or error}",
        where=str(target),
        fix=f"check space and permissions{kept}",
    )


def _publish(staging: Path, target: Path) -> None:
    """Move the finished data set to its place and clear up."""
    replaced = staging / "replaced"
    if target.exists():
        target.rename(replaced)
    try:
        (staging / "dataset").rename(target)
    except OSError:
        if replaced.exists():
            replaced.rename(target)
        raise
    shutil.rmtree(staging)


def _holds_dataset(target: Path) -> bool:
    return (target / "manifest.json").is_file()


def _check_target(target: Path, retry: Sequence[str]) -> None:
    if target.is_file():
        raise DataError(f"{target} is a file", fix="name a folder for the data set")
    if target.exists() and any(target.iterdir()) and not (retry and _holds_dataset(target)):
        again = ", or try left-out rows again: --retry REASON" if _holds_dataset(target) else ""
        raise DataError(f"{target} exists and is not empty", fix=f"name another folder, or remove this one{again}")


def _check_shares(shares: Mapping[str, float] | None) -> None:
    unknown = set(shares or ()) - set(SPLIT_NAMES)
    if unknown or (shares and not sum(shares.values()) > 0):
        raise DataError(
            f"cannot split by {dict(shares or {})}", fix=f"give shares above 0 for some of {', '.join(SPLIT_NAMES)}"
        )


@dataclass(frozen=True)
class _Overview:
    """What a first pass over the kept rows finds, one entry per row in each list."""

    ids: list[str]
    titles: list[str | None]
    groups: list[str | None]
    currencies: Counter[str]
    types: dict[str, pa.DataType]


def _overview(source: Source, fields: FieldMap, kept: Sequence[Kept]) -> _Overview:
    types = ColumnTypes()
    found = _Overview([], [], [], Counter(), {})
    for _, values in _records(source, fields, kept):
        types.see(values.extra)
        found.ids.append(values.fields["id"])
        found.titles.append(values.fields.get("title"))
        found.groups.append(values.fields.get("group"))
        if values.fields.get("currency"):
            found.currencies[values.fields["currency"]] += 1
    return replace(found, types=types.found())


def _records(source: Source, fields: FieldMap, kept: Sequence[Kept]) -> Iterator[tuple[Kept, RowValues]]:
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


def _write(source: Source, fields: FieldMap, ledger: Ledger, folder: Path, settings: BuildSettings) -> Manifest:
    """Write the data set of a complete ledger into a new folder."""
    kept, quarantine = ledger.kept(), ledger.quarantined()
    rows_in = len(kept) + len(quarantine)
    _refuse_bad_sources(source, len(kept), quarantine, settings.max_quarantined)
    overview = _overview(source, fields, kept)
    repeated = _repeated(overview.ids, source.name, settings.dedupe)
    if repeated:
        quarantine += [
            Quarantined(kept[place].row, "duplicate_id", f"id {overview.ids[place]!r} stands in several rows")
            for place in sorted(repeated)
        ]
        quarantine.sort(key=lambda state: state.row)
        kept = [row for place, row in enumerate(kept) if place not in repeated]
        overview = _overview(source, fields, kept)
    currency = _one_currency(overview.currencies, settings.currency)
    groups, facts = group_rows(
        overview.titles,
        [row.picture_hash for row in kept],
        np.stack([row.look for row in kept]),
        settings.seed,
        overview.groups if "group" in fields.columns else None,
    )
    splits = assign_splits(groups, settings.seed, dict(settings.shares) if settings.shares else None)
    sizes: dict[str, int] = {name: splits.count(name) for name in SPLIT_NAMES}
    layout = Layout(frozenset(fields.columns), currency, any(len(row.pictures) > 1 for row in kept), overview.types)
    shutil.rmtree(folder, ignore_errors=True)  # of a build that was killed while it wrote
    folder.mkdir()
    content = hashlib.sha256()
    with ShardWriter(folder, layout, sizes, ledger.picture) as shards:
        for (row, values), group, split in zip(_records(source, fields, kept), groups, splits, strict=True):
            shards.write(split, Record(row, values, group))
            line = [split, row.picture_hash, *(f"{key}={values.fields[key]}" for key in sorted(values.fields))]
            content.update(("\x1f".join(line) + "\n").encode("utf-8", "surrogatepass"))
    write_quarantine(folder / "quarantine.parquet", quarantine)
    crops, median_picture = choose_num_crops([row.size for row in kept])
    manifest = Manifest(
        format=DATASET_FORMAT,
        appraiser=__version__,
        source=source.name,
        source_sha256=source.sha256,
        licence=source.licence,
        seed=settings.seed,
        rows_in=rows_in,
        ok=len(kept),
        quarantined=len(quarantine),
        quarantined_by_reason=dict(sorted(Counter(state.reason for state in quarantine).items())),
        splits=sizes,
        fields={name: list(columns) for name, columns in fields.columns.items()},
        currency=currency,
        num_crops=settings.num_crops or crops,
        median_picture=median_picture,
        grouping={key: float(value) for key, value in asdict(facts).items()},
        sample=dict(source.sample) if source.sample else None,
        content_sha256=content.hexdigest(),
        files={file.name: _sha256(file) for file in sorted(folder.glob("*.parquet"))},
    )
    (folder / "README.md").write_text(card(manifest), encoding="utf-8")
    (folder / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_bad_sources(source: Source, num_kept: int, quarantine: Sequence[Quarantined], allowed: float) -> None:
    total = num_kept + len(quarantine)
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


def _one_currency(found: Counter[str], given: str | None) -> str | None:
    if len(found) > 1:
        raise DataError(
            f"prices are in several currencies: {', '.join(f'{code} ({n})' for code, n in found.most_common())}",
            fix="build one data set per currency",
        )
    return next(iter(found), given)


def choose_num_crops(sizes: Sequence[tuple[int, int]]) -> tuple[int, tuple[int, int]]:
    """Crop budget of a data set: the whole grid of 336 px squares that covers the median picture, at most 16.

    Returns:
        the budget, and the median (width, height) in pixels.
    """
    width = round(statistics.median(size[0] for size in sizes))
    height = round(statistics.median(size[1] for size in sizes))
    return min(MAX_CROPS, math.ceil(width / CROP_PX) * math.ceil(height / CROP_PX)), (width, height)
