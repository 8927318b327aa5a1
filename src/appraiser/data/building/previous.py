"""The data set that `--retry` or `--corrections` replaces: its pictures are taken over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pyarrow.parquet as pq

from appraiser.data.building.ledger import Quarantined
from appraiser.data.dataset import SPLIT_NAMES, Records, open_dataset
from appraiser.data.reasons import RowReason
from appraiser.data.records import FieldMap
from appraiser.data.sources import Source
from appraiser.errors import DataError


@dataclass(frozen=True)
class Previous:
    """States of the rows of an earlier build of the same source."""

    quarantined: dict[int, Quarantined]
    _places: dict[str, tuple[Records, int]]

    @classmethod
    def open(
        cls, folder: Path, source: Source, fields: FieldMap, retry: Sequence[str], keep_placeholders: bool
    ) -> Previous:
        """Read a data set folder; rows left out for a reason in `retry` have no state.

        Args:
            keep_placeholders: rows left out as placeholders have no state either.

        Raises:
            DataError: it was built from something else, or no row was left out for these reasons.
        """
        dataset = open_dataset(folder)
        if dataset.manifest.source_sha256 != source.sha256:
            raise DataError(
                f"{folder} was built from another {source.name}",
                fix="build into another folder: rows of a changed table cannot be told from those of the old one",
            )
        manifest = dataset.manifest
        if manifest.fields != {name: list(columns) for name, columns in fields.columns.items()}:
            raise DataError(
                f"{folder} was built with other columns: {FieldMap(_tuples(dataset.manifest.fields)).describe()}",
                fix="give the same --map, or build into another folder",
            )
        if "duplicate_id" in retry:
            raise DataError("duplicate_id cannot be tried again", fix="build into another folder with --dedupe")
        if "placeholder" in retry and not keep_placeholders:
            raise DataError("placeholders that are tried again would be left out again", fix="add --keep-placeholders")
        rows = pq.read_table(folder / "quarantine.parquet").to_pylist()
        if retry and not any(row["reason"] in retry for row in rows):
            found = ", ".join(f"{reason} ({count})" for reason, count in dataset.manifest.quarantined_by_reason.items())
            raise DataError(
                f"no row of {folder} was left out for {', '.join(retry)}", fix=f"reasons there: {found or 'none'}"
            )
        places: dict[str, tuple[Records, int]] = {}
        for name in (name for name in SPLIT_NAMES if manifest.splits[name]):
            records = dataset.split(name)
            places |= {identifier: (records, index) for index, identifier in enumerate(records.column("id"))}
        # Values are read again: corrections and the prices' locale may have changed, and that costs nothing.
        again = {*retry, *get_args(RowReason)} - ({"missing_file"} - set(retry))
        again |= {"placeholder"} if keep_placeholders else set()
        left_out = [Quarantined(**row) for row in rows if row["reason"] not in again]
        return cls({state.row: state for state in left_out}, places)

    def pictures(self, record_id: str) -> tuple[bytes, ...] | None:
        """Stored pictures of a row that was kept."""
        if record_id not in self._places:
            return None
        records, index = self._places[record_id]
        return records[index].images


def _tuples(fields: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(columns) for name, columns in fields.items()}
