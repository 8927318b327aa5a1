"""What appraiser wrote itself: data set folders, and exports of them in any layout.

Fields are taken from the data set's own columns. The source's columns stay, but none of them is taken for a field: its
`full_price` must not come back in the place of a price that was corrected.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from appraiser.data.dataset import RECORD_COLUMNS, SPLIT_NAMES, open_dataset
from appraiser.data.exports.cells import unescape
from appraiser.data.exports.csv_table import PATH_COLUMN, PATHS_COLUMN, SPLIT_COLUMN, TABLE
from appraiser.data.exports.facts import ExportFacts, read_facts
from appraiser.data.exports.image_folder import METADATA
from appraiser.data.records import GUESSES
from appraiser.data.sources.source import Source, numbered, sha256_of
from appraiser.data.sources.tables import open_table
from appraiser.errors import DataError

Row = dict[str, Any]
_GUESSED = {name for candidates in GUESSES.values() for names in candidates for name in names}


def open_built(folder: Path) -> Source:
    """Open a data set folder: its records, with the split that they were in as `source_split`."""
    dataset = open_dataset(folder)
    manifest = dataset.manifest

    def rows() -> Iterator[Row]:
        for split in SPLIT_NAMES:
            if manifest.splits[split]:
                yield from (row | {"source_split": split} for row in dataset.stream_rows(split))

    left_out = f"{manifest.quarantined} row(s) left out when {folder} was built are not in it"
    return Source(
        name=str(folder),
        columns=_for_fields(dataset.schema().names, bool(manifest.currency) or manifest.has_currencies),
        rows=numbered(rows),
        folder=folder,
        sha256=sha256_of(sorted(folder.glob("*.parquet"))),
        licence=manifest.licence,
        sample=manifest.sample,
        notes=(left_out,) if manifest.quarantined else (),
    )


def open_export(folder: Path) -> Source:
    """Open a folder that `appraiser export` wrote: the records of the data set, as `open_built` gives them."""
    facts = read_facts(folder)
    readers = {"csv": _csv_rows, "imagefolder": _image_folder_rows, "webdataset": _web_dataset_rows}
    patterns = {"csv": TABLE, "imagefolder": f"*/{METADATA}", "webdataset": "*.tar"}
    files = sorted(folder.glob(patterns[facts.kind]))
    pairs = facts.num_twins_left_out
    missing = [name for name in facts.files if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{missing[0]} is missing", where=str(folder), fix="export the data set again")
    return Source(
        name=str(folder),
        columns=_for_fields([*facts.columns, "image"], bool(facts.currency) or facts.has_currencies),
        rows=numbered(lambda: readers[facts.kind](folder, facts)),
        folder=folder,
        sha256=sha256_of(files),
        licence=facts.licence,
        sample=facts.sample,
        notes=(f"{pairs} twin pairs of the exported data set are not in {folder}",) if pairs else (),
    )


def _for_fields(columns: list[str], has_currency: bool) -> tuple[str, ...]:
    """Columns of a data set that fields may be taken from: its own ones, and what nobody would take for a field."""
    own = [name for name in columns if name in RECORD_COLUMNS and (name != "currency" or has_currency)]
    return (*own, *(name for name in columns if name not in RECORD_COLUMNS and name.lower() not in _GUESSED))


def _csv_rows(folder: Path, facts: ExportFacts) -> Iterator[Row]:
    own_names = {other: name for name, other in facts.renamed.items()}
    for _, cells in open_table(folder / TABLE).rows():
        row = {unescape(name): cell and unescape(cell) for name, cell in cells.items()}
        first, several = row.pop(PATH_COLUMN, None), row.pop(PATHS_COLUMN, None)
        split = row.pop(SPLIT_COLUMN, None)
        row = {own_names.get(name, name): value for name, value in row.items()}
        paths = json.loads(several) if several else [first]
        yield row | {"image": _one_or_all([{"path": path} for path in paths]), "source_split": split}


def _image_folder_rows(folder: Path, facts: ExportFacts) -> Iterator[Row]:
    own_names = {other: name for name, other in facts.renamed.items()}
    for split in facts.splits:
        for _, values in open_table(folder / split / METADATA).rows():
            files = values.pop("file_names", None) or [values.pop("file_name")]
            row = {own_names.get(name, name): value for name, value in values.items()}
            image = _one_or_all([{"path": f"{split}/{name}"} for name in files])
            yield row | {"image": image, "source_split": split}


def _web_dataset_rows(folder: Path, facts: ExportFacts) -> Iterator[Row]:
    for split in facts.splits:
        for path in sorted(folder.glob(f"{split}-*.tar")):
            try:
                with tarfile.open(path, "r|") as shard:
                    for _, members in groupby(shard, key=lambda member: member.name.partition(".")[0]):
                        fields = {member.name.partition(".")[2]: _bytes(shard, member) for member in members}
                        row: Row = json.loads(fields.pop("json"))
                        # 10.jpg comes after 9.jpg.
                        names = sorted(fields, key=lambda name: (len(name), name))
                        image = _one_or_all([{"bytes": fields[name]} for name in names])
                        yield row | {"image": image, "source_split": split}
            except (tarfile.TarError, OSError, ValueError, KeyError) as error:
                raise DataError(
                    f"cannot read on in {path.name}: {error}", where=str(folder), fix="export the data set again"
                ) from None


def _one_or_all(pictures: list[Row]) -> Row | list[Row]:
    return pictures[0] if len(pictures) == 1 else pictures


def _bytes(shard: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = shard.extractfile(member)
    return file.read() if file else b""
