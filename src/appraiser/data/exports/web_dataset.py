"""Tar shards as the `webdataset` library writes and reads them: KEY.jpg and KEY.json of a record side by side.

Shards of a split are numbered without gaps, and none is empty. Where records may have several pictures, these are
KEY.0.jpg, KEY.1.jpg and so on. All pictures of an export have one ending: readers want one name for one field, so where
JPEG and PNG are mixed it is jpg for both; what decodes pictures goes by their bytes.
"""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from appraiser.data.dataset import ProductDataset
from appraiser.data.exports.names import picture_stem, picture_suffix
from appraiser.data.exports.rows import (
    Counts,
    Row,
    Written,
    filled_splits,
    has_several_pictures,
    pictures_of,
    value_columns,
)
from appraiser.errors import MissingDependencyError

SHARD_MIB = 512
"""Hundreds of megabytes: few files to open, and still enough shards to hand out to workers."""
SHARD_RECORDS = 10_000
"""However small the pictures: `tarfile` remembers every member of a shard while it writes or reads it."""


def write_web_dataset(
    dataset: ProductDataset, folder: Path, progress: Callable[[int], None], shard_mib: int = SHARD_MIB
) -> Written:
    """Write `train-000000.tar`, `train-000001.tar`, ..., `validation-000000.tar`, ...

    Args:
        shard_mib: a shard ends with the first record that brings it to this size, or with its 10,000th.

    Raises:
        MissingDependencyError: the `webdataset` library is not installed.
    """
    library = _library()
    schema = dataset.schema()
    names = [column.name for column in value_columns(schema)]
    several = has_several_pictures(schema)
    suffix = _one_suffix(dataset)
    written = Written(renamed={})
    for split, rows in filled_splits(dataset):
        with _shards(library, folder / split, shard_mib) as shards:
            for row in rows:
                pictures = pictures_of(row)
                fields = {f"{number}.{suffix}" if several else suffix: data for number, data in enumerate(pictures)}
                shards.write({"__key__": picture_stem(row["id"]), "json": _as_json(row, names)} | fields)
                written.picture_fields |= set(fields)
                written.count(split, len(pictures))
                progress(written.num_rows)
    return written


def _one_suffix(dataset: ProductDataset) -> str:
    is_png = all(
        picture_suffix(data) == "png" for _, rows in filled_splits(dataset) for row in rows for data in pictures_of(row)
    )
    return "png" if is_png else "jpg"


def _as_json(row: Row, names: list[str]) -> bytes:
    return json.dumps({name: row[name] for name in names}, ensure_ascii=False, allow_nan=False).encode("utf-8")


def _library() -> ModuleType:
    try:
        import webdataset
    except ImportError:
        raise MissingDependencyError(
            "the webdataset library is not installed", fix='pip install "appraiser[webdataset]"'
        ) from None
    library: ModuleType = webdataset
    return library


@contextmanager
def _shards(library: ModuleType, split: Path, shard_mib: int) -> Iterator[Any]:
    """The library's writer of `<split>-000000.tar`. It opens no file itself: pipe:... would be a command to it."""
    opened: list[BinaryIO] = []

    def open_shard(path: str) -> BinaryIO:
        opened.append(Path(path).open("xb"))
        return opened[-1]

    try:
        with library.ShardWriter(
            str(split).replace("%", "%%") + "-%06d.tar",
            maxcount=SHARD_RECORDS,
            maxsize=shard_mib * 2**20,
            mtime=0,  # the same data set gives the same bytes
            encoder=False,
            verbose=0,
            opener=open_shard,
            post=lambda _: opened.pop().close(),
        ) as shards:
            yield shards
    finally:
        for file in opened:  # of a shard that could not be finished
            file.close()


def count_web_dataset(folder: Path) -> Counts:
    """Records and pictures of every split, counted in the finished shards."""
    rows: Counter[str] = Counter()
    pictures: Counter[str] = Counter()
    for path in folder.glob("*.tar"):
        split = path.name.rpartition("-")[0]
        with tarfile.open(path, "r|") as shard:
            for member in shard:
                (rows if member.name.endswith(".json") else pictures)[split] += 1
    return {split: (rows[split], pictures[split]) for split in rows}
