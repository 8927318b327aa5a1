"""Any product table -> a data set folder: Parquet splits with the pictures inside, a manifest, a quarantine.

Every row of the source ends in exactly one place: a split, or the quarantine with a reason code. A reader never sees
half a data set: everything is written to a folder beside the target and renamed at the end.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from appraiser import __version__
from appraiser.data.dataset import DATASET_FORMAT, RECORD_COLUMNS, SPLIT_NAMES, Manifest
from appraiser.data.fetch import FetchPolicy, fetch_all
from appraiser.data.grouping import assign_splits, group_rows
from appraiser.data.pictures import PictureError, decode, difference_hash, prepare, read_bytes
from appraiser.data.records import FieldMap, Source, guess_fields, is_missing, open_source, parse_price_cell
from appraiser.errors import DataError

ROWS_PER_SHARD = 4096
ROWS_AT_ONCE = 256
CROP_PX = 336
MAX_CROPS = 16
WHOLE_TEXT = re.compile(r"0|-?[1-9][0-9]{0,17}")  # fits an int64
# At most 15 digits and a point: what a float64 gives back as it was written.
NUMBER_TEXT = re.compile(r"-?(?=[0-9.]{1,16}$)(0|[1-9][0-9]{0,14})(\.[0-9]+)?")
CARD_SPLITS = {"train": "train", "val": "validation", "calib": "calibration", "test": "test"}


class RowProblem(Exception):
    """One row cannot be used; `reason` goes into the quarantine."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        # Half characters (lone surrogates) of a broken cell could not be written to the quarantine either.
        self.reason, self.detail = reason, detail.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class _Kept:
    """A good row while the data set is being made; its pictures lie in the staging file."""

    row: int
    values: dict[str, Any]
    extra: dict[str, Any]
    pictures: tuple[tuple[int, int], ...]  # (offset, length) in the staging file
    picture_hash: str
    look: np.ndarray
    size: tuple[int, int]


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
    fetch: FetchPolicy | None = None,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Build a data set.

    Args:
        source: a table file, a folder holding one, or `hub:owner/name`.
        out: folder to make; must not exist or be empty.
        mapping: field -> columns, over the guess; an empty list drops a field.
        currency: for tables without a currency column.
        num_crops: crop budget of the data set; None chooses it from the median picture.
        max_quarantined: share of rows that may be left out before the build is refused.
        progress: called with the number of rows done.

    Raises:
        DataError: nothing usable, too many bad rows, duplicate ids, several currencies, or no space.
    """
    target = Path(out) if Path(out).name not in ("", "..") else Path(out).resolve()
    _check_target(target)
    _check_shares(shares)
    table = open_source(str(source))
    fields = guess_fields(table.columns, mapping or {}, Path(table.name).name)
    staging = target.with_name(f".{target.name}.building")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        manifest = _build(
            table, fields, staging, currency, seed, num_crops, max_quarantined, shares, fetch or FetchPolicy(), progress
        )
        if target.exists():
            target.rmdir()  # it is empty, as checked
        staging.rename(target)
    except OSError as error:
        raise DataError(
            f"cannot write the data set: {error.strerror or error}",
            where=str(target),
            fix="check space and permissions",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return manifest


def _check_target(target: Path) -> None:
    if target.is_file():
        raise DataError(f"{target} is a file", fix="name a folder for the data set")
    if target.exists() and any(target.iterdir()):
        raise DataError(f"{target} exists and is not empty", fix="name another folder, or remove this one")


def _check_shares(shares: Mapping[str, float] | None) -> None:
    unknown = set(shares or ()) - set(SPLIT_NAMES)
    if unknown or (shares and not sum(shares.values()) > 0):
        raise DataError(
            f"cannot split by {dict(shares or {})}", fix=f"give shares above 0 for some of {', '.join(SPLIT_NAMES)}"
        )


def _build(
    source: Source,
    fields: FieldMap,
    folder: Path,
    currency: str | None,
    seed: int,
    num_crops: int | None,
    max_quarantined: float,
    shares: Mapping[str, float] | None,
    policy: FetchPolicy,
    progress: Callable[[int], None] | None,
) -> Manifest:
    staged = folder / "pictures.staging"
    with staged.open("wb+") as pictures:
        kept, quarantine = _collect(source, fields, pictures, policy, progress)
        rows_in = len(kept) + len(quarantine)
        _refuse_bad_sources(source, kept, quarantine, max_quarantined)
        _refuse_duplicate_ids(kept, source.name)
        money = _one_currency(kept, currency)
        groups, facts = group_rows(
            [row.values.get("title") for row in kept],
            [row.picture_hash for row in kept],
            np.stack([row.look for row in kept]),
            seed,
            [row.values.get("group") for row in kept] if "group" in fields.columns else None,
        )
        splits = assign_splits(groups, seed, dict(shares) if shares else None)
        layout = _layout(kept, money, fields)
        for name in SPLIT_NAMES:
            chosen = [index for index, split in enumerate(splits) if split == name]
            _write_split(folder, name, [kept[i] for i in chosen], [groups[i] for i in chosen], layout, pictures)
    staged.unlink()
    _write_quarantine(folder, quarantine)
    crops, median_picture = choose_num_crops([row.size for row in kept])
    manifest = Manifest(
        format=DATASET_FORMAT,
        appraiser=__version__,
        source=source.name,
        licence=source.licence,
        seed=seed,
        rows_in=rows_in,
        ok=len(kept),
        quarantined=len(quarantine),
        quarantined_by_reason=dict(sorted(Counter(reason for _, reason, _ in quarantine).items())),
        splits={name: splits.count(name) for name in SPLIT_NAMES},
        fields={name: list(columns) for name, columns in fields.columns.items()},
        currency=money,
        num_crops=num_crops or crops,
        median_picture=median_picture,
        grouping={key: float(value) for key, value in asdict(facts).items()},
        sample=dict(source.sample) if source.sample else None,
        content_sha256=_content_hash(kept, splits),
        files={file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob("*.parquet"))},
    )
    (folder / "README.md").write_text(_card(manifest), encoding="utf-8")
    (folder / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


def _collect(
    source: Source,
    fields: FieldMap,
    staged: BinaryIO,
    policy: FetchPolicy,
    progress: Callable[[int], None] | None,
) -> tuple[list[_Kept], list[tuple[int, str, str]]]:
    """Go through the source once; good rows, and (row, reason, detail) of the others."""
    kept: list[_Kept] = []
    quarantine: list[tuple[int, str, str]] = []
    done = 0
    with ThreadPoolExecutor() as pool:  # Pillow decodes without the interpreter's lock
        for chunk in _chunks(source.rows, ROWS_AT_ONCE):
            downloads = _download(chunk, fields, policy)

            def work(numbered: tuple[int, dict[str, Any]], downloads: Mapping[str, Any] = downloads) -> Any:
                number, row = numbered
                try:
                    return _read_row(number, row, source, fields, downloads)
                except RowProblem as problem:
                    return (number, problem.reason, problem.detail)

            for result in pool.map(work, chunk):
                if isinstance(result, tuple) and isinstance(result[0], int):
                    quarantine.append(result)
                else:
                    row, pictures = result
                    places = []
                    for data in pictures:
                        places.append((staged.tell(), len(data)))
                        staged.write(data)
                    kept.append(_Kept(**row, pictures=tuple(places)))
            done += len(chunk)
            if progress:
                progress(done)
    return kept, quarantine


def _chunks(rows: Iterator[tuple[int, dict[str, Any]]], size: int) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    while chunk := list(islice(rows, size)):
        yield chunk


def _locations(row: Mapping[str, Any], fields: FieldMap) -> list[Any]:
    """Where a row's pictures are: paths, URLs, or {"bytes": ...} of an image column."""
    value = fields.value(row, "image")
    if value is None:
        return []
    places = list(value) if isinstance(value, list | tuple) else [value]
    # An image column may hold addresses instead of bytes.
    is_address = [isinstance(place, Mapping) and not place.get("bytes") for place in places]
    return [
        place["path"] if found and "://" in str(place.get("path")) else place
        for place, found in zip(places, is_address, strict=True)
    ]


def _download(chunk: Sequence[tuple[int, dict[str, Any]]], fields: FieldMap, policy: FetchPolicy) -> dict[str, Any]:
    places = [place for _, row in chunk for place in _locations(row, fields)]
    urls = list(dict.fromkeys(place for place in places if isinstance(place, str) and "://" in place))
    return {result.url: result for result in fetch_all(urls, policy)} if urls else {}


def _read_row(
    number: int, row: dict[str, Any], source: Source, fields: FieldMap, downloads: Mapping[str, Any]
) -> tuple[dict[str, Any], list[bytes]]:
    """Values and picture bytes of one row.

    Raises:
        RowProblem: the first thing that is wrong with it.
    """
    identifier = fields.value(row, "id")
    values: dict[str, Any] = {"id": f"row-{number}" if identifier is None else str(identifier)}
    for field in ("title", "category", "currency", "group"):
        if field in fields.columns:
            value = fields.value(row, field)
            text = None if value is None else " ".join(str(value).split())
            if text is None and field in ("title", "category", "currency"):
                raise RowProblem(f"no_{field}", f"column {'|'.join(fields.columns[field])} is empty or N.A.")
            values[field] = text
    if "price" in fields.columns:
        cell = fields.value(row, "price")
        price = parse_price_cell(cell)
        if price is None:
            raise RowProblem("bad_price", f"{cell!r} is no plain positive number such as 1290 or 109.99")
        values["price"] = price
    places = _locations(row, fields)
    if not places:
        raise RowProblem("no_image", f"column {'|'.join(fields.columns['image'])} is empty or N.A.")
    try:
        prepared = [prepare(_picture_bytes(place, source, downloads)) for place in places]
        look = difference_hash(decode(prepared[0].data))
    except PictureError as problem:
        raise RowProblem(problem.reason, problem.what) from None
    image_columns = set(fields.columns["image"])
    extra = {
        (f"source_{name}" if name in RECORD_COLUMNS else name): value
        for name, value in row.items()
        if not (name in image_columns and not isinstance(value, str))
    }
    for name, value in (values | extra).items():
        if isinstance(value, str) and not _is_unicode(value):
            raise RowProblem("bad_text", f"{name} holds half characters (lone surrogates): {value[:100]!r}")
    truth = (source.truth or {}).get(number, {})
    kept = {
        "row": number,
        "values": values,
        "extra": extra | dict(truth),
        "picture_hash": ":".join(picture.sha256 for picture in prepared),
        "look": look,
        "size": (prepared[0].width, prepared[0].height),
    }
    return kept, [picture.data for picture in prepared]


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _picture_bytes(place: Any, source: Source, downloads: Mapping[str, Any]) -> bytes:
    is_hub_file = False
    if isinstance(place, Mapping):
        if place.get("bytes"):
            return bytes(place["bytes"])
        place = place.get("path")
        is_hub_file = source.folder is None and isinstance(place, str) and _is_in_hub_cache(Path(place))
    if not isinstance(place, str):
        raise RowProblem("no_image", f"{type(place).__name__} is no path, URL or picture")
    if "://" in place:
        result = downloads[place]
        if result.data is None:
            raise RowProblem(result.reason, f"{place[:200]}: {result.detail}")
        return bytes(result.data)
    if source.folder is None and not is_hub_file:
        # Otherwise a table from the Hub could put any picture of this machine into the data set.
        raise RowProblem("missing_file", f"a table of the Hub cannot name a file of this machine: {place[:200]}")
    path = Path(place) if source.folder is None else source.folder / place
    try:
        if not path.is_file():
            raise RowProblem("missing_file", f"no picture at {place[:200]}")
        return read_bytes(path)
    except PictureError:
        raise  # a ValueError too, with a reason of its own
    except (OSError, ValueError) as error:
        raise RowProblem("missing_file", f"cannot read {place[:200]!r}: {error}") from None


def _is_in_hub_cache(path: Path) -> bool:
    """Whether a file lies where `datasets` puts what it downloads."""
    from datasets import config
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = (config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, HF_HUB_CACHE)
    return any(path.resolve().is_relative_to(Path(folder).resolve()) for folder in folders)


def _refuse_bad_sources(
    source: Source, kept: Sequence[_Kept], quarantine: Sequence[tuple[int, str, str]], allowed: float
) -> None:
    total = len(kept) + len(quarantine)
    if total == 0:
        raise DataError(f"{source.name} has no rows", fix="the table needs one row per product")
    if len(quarantine) <= allowed * total and kept:
        return
    causes = Counter(reason for _, reason, _ in quarantine).most_common()
    share = math.ceil(100 * len(quarantine) / total) / 100
    examples = "\n".join(f"         row {row}: {reason}: {detail}" for row, reason, detail in quarantine[:5])
    raise DataError(
        f"{len(quarantine)} of {total} rows cannot be used: "
        + ", ".join(f"{count} {reason}" for reason, count in causes),
        where=f"{source.name}\n{examples}",
        fix=f"mend these rows, or accept the loss: --max-quarantined {share:g}" if kept else "mend the table",
    )


def _refuse_duplicate_ids(kept: Sequence[_Kept], name: str) -> None:
    counts = Counter(row.values["id"] for row in kept)
    twice = [identifier for identifier, count in counts.items() if count > 1]
    if twice:
        raise DataError(
            f"{len(twice)} ids stand in several rows: {', '.join(twice[:10])}",
            where=name,
            fix="make them unique, or let rows be numbered: --map id=",
        )


def _one_currency(kept: Sequence[_Kept], given: str | None) -> str | None:
    found = Counter(row.values["currency"] for row in kept if row.values.get("currency"))
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


@dataclass(frozen=True)
class _Layout:
    """Columns that all splits share: `datasets` opens them as one table."""

    fields: frozenset[str]
    currency: str | None
    has_several_pictures: bool
    extra: dict[str, pa.DataType]


def _layout(kept: Sequence[_Kept], currency: str | None, fields: FieldMap) -> _Layout:
    names = dict.fromkeys(name for row in kept for name in row.extra)
    return _Layout(
        fields=frozenset(fields.columns),
        currency=currency,
        has_several_pictures=any(len(row.pictures) > 1 for row in kept),
        extra={name: _type_of([row.extra.get(name) for row in kept]) for name in names},
    )


def _write_split(
    folder: Path,
    name: str,
    rows: Sequence[_Kept],
    groups: Sequence[str],
    layout: _Layout,
    staged: BinaryIO,
) -> None:
    """Write one split in shards, pictures inside, with the Image feature that `datasets` shows."""
    num_shards = math.ceil(len(rows) / ROWS_PER_SHARD)
    for shard in range(num_shards):
        part = slice(shard * ROWS_PER_SHARD, (shard + 1) * ROWS_PER_SHARD)
        table = _table(rows[part], groups[part], layout, staged)
        pq.write_table(table, folder / f"{name}-{shard:05d}-of-{num_shards:05d}.parquet", row_group_size=256)


def _table(rows: Sequence[_Kept], groups: Sequence[str], layout: _Layout, staged: BinaryIO) -> pa.Table:
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pictures = [[{"bytes": _staged_bytes(staged, place), "path": None} for place in row.pictures] for row in rows]
    columns: dict[str, pa.Array] = {"id": pa.array([row.values["id"] for row in rows], pa.string())}
    features: dict[str, Any] = {"id": _value_feature("string")}
    if layout.has_several_pictures:
        columns["images"] = pa.array(pictures, pa.list_(image_type))
        features["images"] = {"feature": {"_type": "Image"}, "_type": "List"}
    else:
        columns["image"] = pa.array([row[0] for row in pictures], image_type)
        features["image"] = {"_type": "Image"}
    for field in ("title", "category"):
        if field in layout.fields:
            columns[field] = pa.array([row.values[field] for row in rows], pa.string())
    if "price" in layout.fields:
        columns["price"] = pa.array([row.values["price"] for row in rows], pa.float64())
    columns["currency"] = pa.array([layout.currency] * len(rows), pa.string())
    columns["group"] = pa.array(list(groups), pa.string())
    for name, kind in layout.extra.items():
        columns[name] = _column([row.extra.get(name) for row in rows], kind)
    for name, column in columns.items():
        features.setdefault(name, _value_feature(str(column.type).replace("double", "float64")))
    table = pa.table(columns)
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _staged_bytes(staged: BinaryIO, place: tuple[int, int]) -> bytes:
    staged.seek(place[0])
    return staged.read(place[1])


def _value_feature(dtype: str) -> dict[str, str]:
    return {"dtype": dtype, "_type": "Value"}


def _type_of(values: Sequence[Any]) -> pa.DataType:
    """Whole numbers, numbers, or text. Text like 007, 1e5 or 1_000 stays text, a number is never rounded."""
    present = [value for value in values if not is_missing(value)]
    if present and all(_is_whole(value) for value in present):
        return pa.int64()
    return pa.float64() if present and all(_is_number(value) for value in present) else pa.string()


def _is_whole(value: Any) -> bool:
    if isinstance(value, str):
        return WHOLE_TEXT.fullmatch(value) is not None
    return isinstance(value, int) and abs(value) < 2**63


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return NUMBER_TEXT.fullmatch(value) is not None
    return isinstance(value, int | float | Decimal) and -(2**53) < value < 2**53


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        return pa.array([None if value is None else str(value) for value in values], kind)
    convert = int if pa.types.is_integer(kind) else float
    return pa.array([None if is_missing(value) else convert(value) for value in values], kind)


def _write_quarantine(folder: Path, quarantine: Sequence[tuple[int, str, str]]) -> None:
    rows, reasons, details = zip(*quarantine, strict=True) if quarantine else ((), (), ())
    table = pa.table(
        {
            "row": pa.array(rows, pa.int64()),
            "reason": pa.array(reasons, pa.string()),
            "detail": pa.array(details, pa.string()),
        }
    )
    pq.write_table(table, folder / "quarantine.parquet")


def _content_hash(kept: Sequence[_Kept], splits: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for row, split in zip(kept, splits, strict=True):
        line = [split, row.picture_hash, *(f"{key}={row.values[key]}" for key in sorted(row.values))]
        digest.update(("\x1f".join(line) + "\n").encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _card(manifest: Manifest) -> str:
    """Data set card; its `configs` name the splits for `load_dataset`."""
    files = "".join(
        f"  - split: {CARD_SPLITS[name]}\n    path: {name}-*.parquet\n" for name in SPLIT_NAMES if manifest.splits[name]
    )
    counts = "\n".join(f"| {name} | {manifest.splits[name]} |" for name in SPLIT_NAMES)
    reasons = ", ".join(f"{count} {reason}" for reason, count in manifest.quarantined_by_reason.items()) or "none"
    return (
        f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n\n"
        f"# Product data set\n\nBuilt by appraiser {manifest.appraiser} from `{manifest.source}` "
        f"(licence: {manifest.licence or 'not stated by the source'}).\n\n"
        f"{manifest.rows_in} rows read, {manifest.ok} kept, {manifest.quarantined} left out ({reasons}; see "
        f"quarantine.parquet).\n\n| split | records |\n| --- | --- |\n{counts}\n\n"
        f"Split by product group: {manifest.grouping['num_groups']:.0f} groups, the largest of "
        f"{manifest.grouping['largest_group']:.0f} records. A split by row would have put "
        f"{manifest.grouping['row_split_leak']:.0%} of the test products into training.\n"
    )
