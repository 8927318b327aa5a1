"""export.json: what an export holds and how its columns are called, so that `appraiser build` can read it back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from appraiser.errors import DataError

EXPORT_FORMAT = 1
EXPORT_FILE = "export.json"
ExportKind = Literal["imagefolder", "webdataset", "csv"]


class ExportFacts(BaseModel):
    """Facts of an export; rows and pictures are as counted in the finished files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    appraiser: str
    kind: ExportKind
    source: str
    """What the data set was built from."""
    licence: str | None
    content_sha256: str
    """Of the data set."""
    splits: dict[str, int]
    num_pictures: int
    files: dict[str, int]
    """Tables and shards with their sizes in bytes; single pictures are not listed."""
    columns: list[str]
    """Of the data set, without its pictures."""
    renamed: dict[str, str]
    """Columns of the data set -> their names here, where those mean something else in this layout."""
    num_escaped_cells: int
    """CSV: texts marked with a ' so that no spreadsheet runs them."""
    currency: str | None
    has_currencies: bool = False
    """Whether each record names a currency of its own; False in exports of earlier versions."""
    sample: dict[str, Any] | None
    num_twins_left_out: int = 0
    """Pairs of twins of the data set: no layout has a place for them."""


def is_export(folder: Path) -> bool:
    """Whether a folder was written by `appraiser export`."""
    return (folder / EXPORT_FILE).is_file()


def read_facts(folder: Path) -> ExportFacts:
    """Read the facts of an export.

    Raises:
        DataError: damaged, or of a newer format.
    """
    path = folder / EXPORT_FILE
    try:
        facts = ExportFacts.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise DataError(f"{path} is damaged or of another version: {error}", fix="export the data set again") from None
    if facts.format > EXPORT_FORMAT:
        raise DataError(
            f"{folder} has export format {facts.format}, this appraiser reads up to {EXPORT_FORMAT}",
            fix="update appraiser, or export the data set again",
        )
    return facts
