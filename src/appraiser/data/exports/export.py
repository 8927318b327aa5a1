"""A data set folder -> the layout of another tool: written beside the target, counted again, then moved to its place.

Rows go through one at a time; memory does not grow with the data set.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from appraiser import __version__
from appraiser.data.building.card import CARD_SPLITS
from appraiser.data.dataset import ProductDataset, open_dataset
from appraiser.data.exports.card import card
from appraiser.data.exports.csv_table import count_csv_table, write_csv_table
from appraiser.data.exports.facts import EXPORT_FILE, EXPORT_FORMAT, ExportFacts, ExportKind
from appraiser.data.exports.image_folder import count_image_folder, write_image_folder
from appraiser.data.exports.publish import published
from appraiser.data.exports.rows import Counts, Written, value_columns
from appraiser.data.exports.web_dataset import SHARD_MIB, count_web_dataset, write_web_dataset
from appraiser.errors import ConfigError, DataError


def export_dataset(
    dataset: str | Path,
    out: str | Path,
    kind: ExportKind,
    *,
    shard_mib: int = SHARD_MIB,
    progress: Callable[[int], None] | None = None,
) -> ExportFacts:
    """Export a data set.

    Args:
        dataset: folder that `build_dataset` wrote.
        out: folder to make; must not exist or be empty.
        kind: `imagefolder`, `webdataset` or `csv`.
        shard_mib: webdataset: size of a tar shard.
        progress: called with the number of records written.

    Raises:
        ConfigError: no such layout.
        DataError: no data set there or a damaged one, a target that cannot be made, or no space.
        MissingDependencyError: webdataset: its library is not installed.
    """
    if kind not in get_args(ExportKind):
        raise ConfigError(f"there is no layout {kind!r}", fix=f"choose from {', '.join(get_args(ExportKind))}")
    opened = open_dataset(dataset)
    with published(out) as folder:
        written = _write(opened, folder, kind, shard_mib, progress or (lambda _: None))
        counts = _counted(folder, kind)
        _check(written, counts, opened)
        facts = _facts(opened, folder, kind, written, counts)
        own_card = opened.folder / "README.md"
        text = card(facts, opened.schema(), sorted(written.picture_fields), own_card)
        (folder / "README.md").write_text(text, encoding="utf-8")
        for licence in opened.folder.glob("LICEN[CS]E*"):
            shutil.copyfile(licence, folder / licence.name)
        (folder / EXPORT_FILE).write_text(facts.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return facts


def _write(
    dataset: ProductDataset, folder: Path, kind: ExportKind, shard_mib: int, progress: Callable[[int], None]
) -> Written:
    if kind == "imagefolder":
        return write_image_folder(dataset, folder, progress)
    if kind == "webdataset":
        return write_web_dataset(dataset, folder, progress, shard_mib)
    return write_csv_table(dataset, folder, progress)


def _counted(folder: Path, kind: ExportKind) -> Counts:
    counters = {"imagefolder": count_image_folder, "webdataset": count_web_dataset, "csv": count_csv_table}
    return counters[kind](folder)


def _check(written: Written, counts: Counts, dataset: ProductDataset) -> None:
    """Refuse an export in which other rows or pictures are found than the data set has."""
    rows = {CARD_SPLITS[split]: count for split, count in dataset.manifest.splits.items() if count}
    if counts != written.counts or {split: count for split, (count, _) in counts.items()} != rows:
        raise DataError(
            f"the finished files hold {counts} (rows, pictures), written were {written.counts}, "
            f"and the data set has {rows}",
            where=str(dataset.folder),
            fix="export again; if it stays so, report it",
        )


def _facts(dataset: ProductDataset, folder: Path, kind: ExportKind, written: Written, counts: Counts) -> ExportFacts:
    manifest = dataset.manifest
    tables = sorted(path for pattern in ("*.csv", "*.tar", "*/metadata.parquet") for path in folder.glob(pattern))
    return ExportFacts(
        format=EXPORT_FORMAT,
        appraiser=__version__,
        kind=kind,
        source=manifest.source,
        licence=manifest.licence,
        content_sha256=manifest.content_sha256,
        splits={split: counts[split][0] for split in CARD_SPLITS.values() if split in counts},
        num_pictures=sum(pictures for _, pictures in counts.values()),
        files={path.relative_to(folder).as_posix(): path.stat().st_size for path in tables},
        columns=[column.name for column in value_columns(dataset.schema())],
        renamed=written.renamed,
        num_escaped_cells=written.num_escaped_cells,
        currency=manifest.currency,
        has_currencies=manifest.has_currencies,
        sample=manifest.sample,
        num_twins_left_out=manifest.twins,
    )
