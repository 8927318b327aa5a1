"""README.md of an export: how `datasets` opens it, what was counted, and the data set's own card."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from appraiser.data.exports.csv_table import TABLE
from appraiser.data.exports.facts import ExportFacts
from appraiser.data.exports.rows import value_columns

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_DTYPES = {"double": "float64"}


def card(facts: ExportFacts, schema: pa.Schema, picture_fields: Sequence[str], own_card: Path) -> str:
    """Data set card.

    Args:
        schema: of the data set.
        picture_fields: WebDataset: names of a sample's pictures.
        own_card: README.md of the data set, which is repeated below.
    """
    head: dict[str, Any] = {"configs": [{"config_name": "default", "data_files": _data_files(facts)}]}
    if facts.kind == "webdataset":
        head["dataset_info"] = {"features": _features(schema, picture_fields)}
    counts = "".join(f"| {split} | {count} |\n" for split, count in facts.splits.items())
    own = _FRONT_MATTER.sub("", own_card.read_text(encoding="utf-8")) if own_card.is_file() else ""
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False, width=1000)}---\n\n"
        f"# Product pictures as {facts.kind}\n\n"
        f"Exported by appraiser {facts.appraiser} from a data set that was built from `{facts.source}` "
        f"(licence: {facts.licence or 'not stated by the source'}).\n\n"
        f"| split | records |\n| --- | --- |\n{counts}\n"
        f"{facts.num_pictures} pictures. {_how_to_read(facts)}{_left_out(facts)}\n\n{own.strip()}\n"
    )


def _data_files(facts: ExportFacts) -> str | list[dict[str, str]]:
    if facts.kind == "csv":
        return TABLE
    pattern = "{}/**" if facts.kind == "imagefolder" else "{}-*.tar"
    return [{"split": split, "path": pattern.format(split)} for split in facts.splits]


def _features(schema: pa.Schema, picture_fields: Sequence[str]) -> list[dict[str, Any]]:
    """Stated because `datasets` would take them from the first five records: a column may be empty there."""
    values = [
        {"name": column.name, "dtype": _DTYPES.get(str(column.type), str(column.type))}
        for column in value_columns(schema)
    ]
    return [
        *({"name": name, "dtype": "image"} for name in picture_fields),
        {"name": "json", "struct": values},
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
    ]


def _left_out(facts: ExportFacts) -> str:
    pairs = facts.num_twins_left_out
    return f" The data set's {pairs} twin pairs, which only evaluation reads, are not in this export." if pairs else ""


def _how_to_read(facts: ExportFacts) -> str:
    if facts.kind == "imagefolder":
        return (
            '`load_dataset` with this folder\'s path sees all splits; `load_dataset("imagefolder", data_dir=...)` '
            "knows no folder called calibration and leaves that split out."
        )
    if facts.kind == "webdataset":
        return "`load_dataset` with this folder's path sees all splits; `webdataset.WebDataset` takes the shards."
    return (
        f"{TABLE} has the columns of the data set, its split, and `local_image_path`, relative to this folder. "
        f"{facts.num_escaped_cells} texts are marked with a ' in front, as a spreadsheet would run them."
    )
