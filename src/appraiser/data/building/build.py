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
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import numpy as np

from appraiser import __version__
from appraiser.data.building.card import card
from appraiser.data.building.collect import Collector, Elsewhere, Forecast
from appraiser.data.building.grouping import assign_splits, follow_given_splits, group_rows, split_leak
from appraiser.data.building.ledger import Ledger
from appraiser.data.building.previous import Previous
from appraiser.data.building.selection import BuildSettings, Dedupe, one_currency, records, select
from appraiser.data.building.shards import Layout, Record, ShardWriter, write_quarantine
from appraiser.data.cleaning import price_outliers
from appraiser.data.corrections import NO_CORRECTIONS, read_corrections
from appraiser.data.dataset import DATASET_FORMAT, SPLIT_NAMES, Manifest
from appraiser.data.fetch import FetchPolicy
from appraiser.data.prices import check_locale
from appraiser.data.reasons import check_reasons
from appraiser.data.records import FieldMap, guess_fields
from appraiser.data.sources import Source, open_source
from appraiser.data.twins import store_twins
from appraiser.errors import DataError

CROP_PX = 336
MAX_CROPS = 16
Where = Literal["here", "ray"]


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
    split_by: str | None = None,
    keep_placeholders: bool = False,
    several_currencies: bool = False,
    price_locale: str | None = None,
    corrections: str | Path | None = None,
    retry: Sequence[str] = (),
    fetch: FetchPolicy | None = None,
    progress: Callable[[int], None] | None = None,
    on_forecast: Callable[[Forecast], None] | None = None,
    on: Where = "here",
) -> Manifest:
    """Build a data set, or go on with one whose building was interrupted.

    Args:
        source: a table file, a folder holding one, or `hub:owner/name`.
        out: folder to make; must not exist or be empty, unless `retry` or `corrections` is given: then a data set
            there is replaced, and its pictures are not fetched again.
        mapping: field -> columns, over the guess; an empty list drops a field.
        price_locale: how price texts are written, such as `de`; None takes plain numbers only.
        corrections: a file of `appraiser check`: products to drop, rename or reprice.
        retry: reasons; rows that were left out for one of them are tried again.
        progress: called with the number of rows done.
        on_forecast: called once if pictures have URLs, after the first of them.
        on: where pictures are fetched and decoded; `ray` is the cluster this process is connected to, else that of
            RAY_ADDRESS, else one started for this build. The data set is the same.

    See `BuildSettings` for the others.

    Raises:
        DataError: nothing usable, too many bad rows, duplicate ids, several currencies, or no space.
    """
    settings = BuildSettings(
        currency, seed, num_crops, max_quarantined, shares, dedupe, split_by, keep_placeholders, several_currencies
    )
    target = Path(out) if Path(out).name not in ("", "..") else Path(out).resolve()
    staging = target.with_name(f".{target.name}.building")
    check_reasons(retry)
    _clear_published(staging)
    _check_target(target, may_replace=bool(retry or corrections))
    _check_shares(shares)
    table = open_source(str(source))
    fields = replace(
        guess_fields(table.columns, mapping or {}, Path(table.name).name),
        price_locale=check_locale(price_locale) if price_locale else None,
        corrections=read_corrections(corrections) if corrections else NO_CORRECTIONS,
    )
    _check_columns(table, fields, settings)
    previous = Previous.open(target, table, fields, retry, keep_placeholders) if _holds_dataset(target) else None
    policy = fetch or FetchPolicy()
    collector: Collector | None = None
    try:
        with _workers(on, policy) as elsewhere, Ledger(staging, f"{table.sha256} {fields.identity}") as ledger:
            # A build that was interrupted may have taken placeholders over from the data set that it was to replace.
            ledger.forget([*retry, "placeholder"] if keep_placeholders else retry)
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
    _publishing(staging).touch()
    try:
        if target.exists():
            target.rename(replaced)
        (staging / "dataset").rename(target)
    except OSError:
        if replaced.exists():
            replaced.rename(target)
        _publishing(staging).unlink()
        raise
    _clear_published(staging)


def _clear_published(staging: Path) -> None:
    """Remove what a build leaves beside its data set; also one that was killed before it could do so."""
    mark = _publishing(staging)
    if not mark.exists():
        return
    # Without the mark it could be a refused build, whose pictures are kept; with its data set it was not published.
    if not (staging / "dataset").exists():
        shutil.rmtree(staging, ignore_errors=True)
    mark.unlink(missing_ok=True)


def _publishing(staging: Path) -> Path:
    """A file that is there while a data set is moved to its place and until its build is cleared up.

    Beside the folder: in it, it could be the first thing that is removed.
    """
    return staging.with_suffix(".publishing")


def _holds_dataset(target: Path) -> bool:
    return (target / "manifest.json").is_file()


def _check_target(target: Path, *, may_replace: bool) -> None:
    if target.is_file():
        raise DataError(f"{target} is a file", fix="name a folder for the data set")
    if target.exists() and any(target.iterdir()) and not (may_replace and _holds_dataset(target)):
        again = ", or go on with it: --retry REASON, --corrections FILE" if _holds_dataset(target) else ""
        raise DataError(f"{target} exists and is not empty", fix=f"name another folder, or remove this one{again}")


def _check_shares(shares: Mapping[str, float] | None) -> None:
    unknown = set(shares or ()) - set(SPLIT_NAMES)
    if unknown or (shares and not sum(shares.values()) > 0):
        raise DataError(
            f"cannot split by {dict(shares or {})}", fix=f"give shares above 0 for some of {', '.join(SPLIT_NAMES)}"
        )


def _check_columns(source: Source, fields: FieldMap, settings: BuildSettings) -> None:
    if settings.split_by and settings.split_by not in source.columns:
        raise DataError(
            f"{source.name} has no column {settings.split_by!r}",
            where="--split-by",
            fix=f"choose from its columns: {', '.join(source.columns)}",
        )
    if settings.split_by and settings.shares:
        raise DataError("a column gives the splits, and shares as well", fix="give --split-by or --share, not both")
    if fields.price_locale and "price" not in fields.columns:
        raise DataError(f"{source.name} has no prices to read", where="--price-locale", fix="map one, or leave it out")


def _write(source: Source, fields: FieldMap, ledger: Ledger, folder: Path, settings: BuildSettings) -> Manifest:
    """Write the data set of a complete ledger into a new folder."""
    selection = select(source, fields, ledger, settings)
    kept, overview = selection.kept, selection.overview
    currency = one_currency(overview.currencies, settings.currency, may_be_several=settings.several_currencies)
    groups, facts = group_rows(
        overview.titles,
        [row.picture_hash for row in kept],
        np.stack([row.look for row in kept]),
        settings.seed,
        overview.groups if "group" in fields.columns else None,
    )
    if settings.split_by:
        splits = follow_given_splits(overview.splits, groups, settings.seed)
    else:
        splits = assign_splits(groups, settings.seed, dict(settings.shares) if settings.shares else None)
    sizes: dict[str, int] = {name: splits.count(name) for name in SPLIT_NAMES}
    layout = Layout(
        frozenset(fields.columns), currency, any(len(row.pictures) > 1 for row in kept), overview.types.found()
    )
    shutil.rmtree(folder, ignore_errors=True)  # of a build that was killed while it wrote
    folder.mkdir()
    content = hashlib.sha256()
    with ShardWriter(folder, layout, sizes, ledger.picture) as shards:
        for (row, values), group, split in zip(records(source, fields, kept), groups, splits, strict=True):
            shards.write(split, Record(row, values, group))
            line = [split, row.picture_hash, *(f"{key}={values.fields[key]}" for key in sorted(values.fields))]
            content.update(("\x1f".join(line) + "\n").encode("utf-8", "surrogatepass"))
    write_quarantine(folder / "quarantine.parquet", selection.quarantine)
    num_twins = store_twins(source.folder, folder)
    crops, median_picture = choose_num_crops([row.size for row in kept])
    manifest = Manifest(
        format=DATASET_FORMAT,
        appraiser=__version__,
        source=source.name,
        source_sha256=source.sha256,
        licence=source.licence,
        seed=settings.seed,
        rows_in=len(kept) + len(selection.quarantine),
        ok=len(kept),
        quarantined=len(selection.quarantine),
        quarantined_by_reason=dict(sorted(Counter(state.reason for state in selection.quarantine).items())),
        splits=sizes,
        fields={name: list(columns) for name, columns in fields.columns.items()},
        currency=currency,
        num_crops=settings.num_crops or crops,
        median_picture=median_picture,
        grouping={key: float(value) for key, value in asdict(facts).items()}
        | {"split_leak": split_leak(splits, groups)},
        sample=dict(source.sample) if source.sample else None,
        price_locale=fields.price_locale,
        corrections_sha256=fields.corrections.sha256,
        split_by=settings.split_by,
        cleaning={
            "html_entities": overview.cleaned["html_entities"],
            "corrected": overview.cleaned["corrected"],
            "price_outliers": len(price_outliers(overview.prices, overview.categories, overview.currencies)),
        },
        notes=list(source.notes),
        twins=num_twins,
        content_sha256=content.hexdigest(),
        files={file.name: _sha256(file) for file in sorted(folder.glob("*.parquet"))},
    )
    (folder / "README.md").write_text(card(manifest), encoding="utf-8")
    (folder / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def choose_num_crops(sizes: Sequence[tuple[int, int]]) -> tuple[int, tuple[int, int]]:
    """Crop budget of a data set: the whole grid of 336 px squares that covers the median picture, at most 16.

    Returns:
        the budget, and the median (width, height) in pixels.
    """
    width = round(statistics.median(size[0] for size in sizes))
    height = round(statistics.median(size[1] for size in sizes))
    return min(MAX_CROPS, math.ceil(width / CROP_PX) * math.ceil(height / CROP_PX)), (width, height)
