"""`corrections.csv`: what a person decided about single products, applied when the data set is built again.

    id,action,title,category,price
    80740821,drop,,,
    80740822,relabel,Navy Wool Coat,COATS,
    80740823,reprice,,,1290

The page of `appraiser check` writes this file; a spreadsheet does as well.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from appraiser.errors import DataError

COLUMNS = ("id", "action", "title", "category", "price")
Action = Literal["drop", "relabel", "reprice"]


@dataclass(frozen=True)
class Correction:
    """What to do with one product; None leaves a value as the table has it."""

    action: Action
    title: str | None = None
    category: str | None = None
    price: str | None = None


@dataclass(frozen=True)
class Corrections:
    """Corrections by id; `sha256` is that of the file."""

    by_id: Mapping[str, Correction] = field(default_factory=dict)
    sha256: str | None = None


NO_CORRECTIONS = Corrections()


def read_corrections(path: str | Path) -> Corrections:
    """Read a file of corrections.

    Raises:
        DataError: no such file, other columns, or a line that cannot be followed; the message names the line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read the corrections: {error.strerror}", where=str(path), fix="name a file") from None
    except UnicodeDecodeError:
        raise DataError("the corrections are not UTF-8", where=str(path), fix="save them as UTF-8") from None
    reader = csv.DictReader(text.splitlines())
    columns = reader.fieldnames or []
    if not {"id", "action"} <= set(columns) or not set(columns) <= set(COLUMNS):
        raise DataError(
            f"the columns are {', '.join(columns) or 'missing'}", where=str(path), fix=f"use {', '.join(COLUMNS)}"
        )
    found: dict[str, Correction] = {}
    for number, row in enumerate(reader, start=2):
        identifier = (row["id"] or "").strip()
        if not identifier or identifier in found:
            what = f"id {identifier} is corrected twice" if identifier else "the id is missing"
            raise DataError(what, where=f"{path}, line {number}", fix="one line per product")
        found[identifier] = _correction(row, f"{path}, line {number}")
    return Corrections(found, hashlib.sha256(text.encode()).hexdigest())


def _correction(row: Mapping[str, str | None], where: str) -> Correction:
    values = {name: (row.get(name) or "").strip() or None for name in ("title", "category", "price")}
    action = (row["action"] or "").strip().lower()
    wanted = {"drop": (), "relabel": ("title", "category"), "reprice": ("price",)}
    if action not in get_args(Action):
        raise DataError(f"there is no action {action!r}", where=where, fix=f"use {', '.join(get_args(Action))}")
    if action != "drop" and not any(values[name] for name in wanted[action]):
        raise DataError(f"{action} without a {' or '.join(wanted[action])}", where=where, fix="fill that column")
    # A relabelled product may get a new price in the same line, and the other way round.
    return Correction(action, **values) if action != "drop" else Correction("drop")  # type: ignore[arg-type]
