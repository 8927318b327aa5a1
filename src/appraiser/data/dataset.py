"""The data set folder: what `build` writes, and what training and evaluation read.

train-*.parquet  val-*.parquet  calib-*.parquet  test-*.parquet     one row per product record, pictures inside
quarantine.parquet                                                  row, reason, detail of what was left out
twins.parquet                                                       pairs that differ in one attribute, if there are any
manifest.json    README.md                                          counts that add up, hashes, data set card
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from appraiser.data.records import ProductRecord
from appraiser.errors import DataError

DATASET_FORMAT = 1
STREAM_ROWS = 64
SplitName = Literal["train", "val", "calib", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = ("train", "val", "calib", "test")
RECORD_COLUMNS = ("id", "image", "images", "title", "category", "price", "currency", "group")


class Manifest(BaseModel):
    """Facts of a data set; `rows_in == ok + quarantined` always holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    appraiser: str
    source: str
    source_sha256: str | None = None
    """Of the table; of a Hub set, of its name and version. None in data sets of earlier builds."""
    licence: str | None
    seed: int
    rows_in: int
    ok: int
    quarantined: int
    quarantined_by_reason: dict[str, int]
    splits: dict[str, int]
    fields: dict[str, list[str]]
    currency: str | None
    """Of all prices; None if no row names one, or if they name several."""
    num_crops: int
    median_picture: tuple[int, int]
    grouping: dict[str, float]
    sample: dict[str, Any] | None
    price_locale: str | None = None
    corrections_sha256: str | None = None
    split_by: str | None = None
    """Column that gave the splits; None: by product group."""
    cleaning: dict[str, int] = {}
    """What was put right or is worth a look, in rows kept. Empty in data sets of earlier builds."""
    notes: list[str] = []
    """What was said of the source when it was opened, such as splits and files that were left aside."""
    twins: int = 0
    """Pairs of pictures in twins.parquet, for evaluation alone."""
    content_sha256: str
    """Over every record's id, split, values and picture hashes: equal for two builds of the same data."""
    files: dict[str, str]

    @property
    def has_currencies(self) -> bool:
        """Whether each record names a currency of its own, as there are several."""
        return self.currency is None and "currency" in self.fields

    @property
    def task_fields(self) -> tuple[str, ...]:
        """Which of title, category and price the data set has."""
        return tuple(name for name in ("title", "category", "price") if name in self.fields)


class ProductDataset:
    """An opened data set folder. Splits are read when first asked for and kept."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._splits: dict[str, Records] = {}

    def split(self, name: str) -> Records:
        """The records of a split.

        Raises:
            DataError: no such split, or a file that is missing or damaged.
        """
        if name not in SPLIT_NAMES:
            raise DataError(f"no split {name!r}", fix=f"choose from {', '.join(SPLIT_NAMES)}")
        if name not in self._splits:
            self._splits[name] = Records(self._read(name))
        return self._splits[name]

    def stream_rows(self, name: str) -> Iterator[dict[str, Any]]:
        """Rows of a split, column -> value, some at a time: memory does not grow with the split.

        Raises:
            DataError: a file that is missing or damaged, or other rows than the manifest counts.
        """
        count = 0
        try:
            for path in self._files(name):
                # By default the whole file would be read ahead.
                with pq.ParquetFile(path, pre_buffer=False) as file:
                    for batch in file.iter_batches(batch_size=STREAM_ROWS):
                        count += batch.num_rows
                        yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(name, error) from None
        if count != self.manifest.splits[name]:
            raise self._damaged(name, f"it has {count} rows, the manifest counts {self.manifest.splits[name]}")

    def stream(self, name: str) -> Iterator[ProductRecord]:
        """Records of a split, some at a time; see `stream_rows`."""
        return map(_record, self.stream_rows(name))

    def schema(self) -> pa.Schema:
        """Columns of every split, in order."""
        path = next(iter(sorted(self.folder.glob("*-00000-of-*.parquet"))), None)
        if path is None:
            raise DataError(f"{self.folder} has no rows", fix="build it again")
        try:
            return pq.read_schema(path)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(path.name.partition("-")[0], error) from None

    def _files(self, name: str) -> list[Path]:
        files = sorted(self.folder.glob(f"{name}-*.parquet"))
        if not files:
            raise DataError(f"{self.folder} has no rows in split {name!r}", fix="build it from more products")
        return files

    def _read(self, name: str) -> pa.Table:
        files = self._files(name)
        try:
            return pa.concat_tables([pq.read_table(file) for file in files])
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(name, error) from None

    def _damaged(self, name: str, error: object) -> DataError:
        return DataError(f"cannot read split {name!r} of {self.folder}: {error}", fix="build it again")


class Records:
    """Records of one split, by position; decoded to `ProductRecord` on access."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[ProductRecord]:
        return (self[position] for position in range(len(self)))

    def __getitem__(self, position: int) -> ProductRecord:
        return _record(self._table.slice(position, 1).to_pylist()[0])

    @property
    def column_names(self) -> list[str]:
        names: list[str] = self._table.column_names
        return names

    def take(self, positions: Sequence[int]) -> Records:
        """Some of the records, in this order."""
        return Records(self._table.take(pa.array(positions, pa.int64())))

    def column(self, name: str) -> list[Any]:
        """All values of one column, without touching the pictures."""
        values: list[Any] = self._table.column(name).to_pylist()
        return values


def share_of(records: Records, share: float, seed: int) -> Records:
    """About a share of the records: whole product groups in an order that the seed gives, so a larger share holds a
    smaller one."""
    if share >= 1.0:
        return records
    members: dict[str, list[int]] = {}
    for position, group in enumerate(records.column("group")):
        members.setdefault(group, []).append(position)
    groups = sorted(members)
    chosen: list[int] = []
    for place in np.random.default_rng(seed).permutation(len(groups)):
        chosen += members[groups[place]]
        if len(chosen) >= share * len(records):
            break
    return records.take(sorted(chosen))


def is_dataset(folder: Path) -> bool:
    """Whether a folder claims to be a data set of ours: other tools have files called manifest.json too."""
    try:
        facts = json.loads((folder / "manifest.json").read_bytes())
    except OSError:
        return False
    except ValueError:  # opening it will say that it is damaged
        return True
    return isinstance(facts, dict) and {"format", "appraiser", "content_sha256"} <= facts.keys()


def _record(row: dict[str, Any]) -> ProductRecord:
    pictures = row["images"] if "images" in row else [row["image"]]
    return ProductRecord(
        id=row["id"],
        images=tuple(picture["bytes"] for picture in pictures),
        group=row["group"],
        title=row.get("title"),
        category=row.get("category"),
        price=row.get("price"),
        currency=row.get("currency"),
        extra={name: value for name, value in row.items() if name not in RECORD_COLUMNS},
    )


def open_dataset(folder: str | Path) -> ProductDataset:
    """Open a folder written by `build_dataset`.

    Raises:
        DataError: no data set there, or one of a newer format.
    """
    path = Path(folder)
    manifest = path / "manifest.json"
    if not manifest.is_file():
        raise DataError(
            f"no data set at {path}: manifest.json is missing", fix=f"make one: appraiser build products.csv {path}"
        )
    try:
        loaded = Manifest.model_validate(json.loads(manifest.read_text(encoding="utf-8")))
    except (ValueError, ValidationError) as error:
        raise DataError(
            f"{manifest} is damaged or of another version: {error}", fix="build the data set again"
        ) from None
    if loaded.format > DATASET_FORMAT:
        raise DataError(
            f"{path} has format {loaded.format}, this appraiser reads up to {DATASET_FORMAT}",
            fix="update appraiser, or build the data set again",
        )
    return ProductDataset(path, loaded)
