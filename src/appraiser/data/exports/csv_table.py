"""One CSV and a folder of pictures, as the cookbook's `burberry_dataset.csv` has them: columns and `local_image_path`.

Columns are those of the data set: its own fields first, then the source's columns under their names. `split` is added.
Files are called after the product where its code is a plain one, see names.py.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from appraiser.data.dataset import ProductDataset
from appraiser.data.exports.cells import escape
from appraiser.data.exports.rows import (
    Counts,
    Row,
    Written,
    filled_splits,
    has_several_pictures,
    new_names,
    value_columns,
    write_pictures,
)

TABLE = "products.csv"
PICTURES = "images"
PATH_COLUMN = "local_image_path"
PATHS_COLUMN = "local_image_paths"
"""JSON list of all pictures of a record, where records may have several; `local_image_path` is the first."""
SPLIT_COLUMN = "split"


def write_csv_table(dataset: ProductDataset, folder: Path, progress: Callable[[int], None]) -> Written:
    """Write products.csv and images/."""
    schema = dataset.schema()
    columns = [column.name for column in value_columns(schema)]
    several = has_several_pictures(schema)
    written = Written(new_names(columns, lambda name: name in (PATH_COLUMN, PATHS_COLUMN, SPLIT_COLUMN)))
    header = [written.renamed.get(name, name) for name in columns]
    header += [SPLIT_COLUMN, PATH_COLUMN] + ([PATHS_COLUMN] if several else [])
    (folder / PICTURES).mkdir()
    with (folder / TABLE).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow([_escaped(name, written) for name in header])
        for split, rows in filled_splits(dataset):
            for row in rows:
                paths = [f"{PICTURES}/{name}" for name in write_pictures(row, folder / PICTURES)]
                cells = [_cell(row, name, written) for name in columns] + [split, paths[0]]
                table.writerow(cells + ([json.dumps(paths)] if several else []))
                written.count(split, len(paths))
                progress(written.num_rows)
    return written


def _cell(row: Row, name: str, written: Written) -> str:
    value: Any = row[name]
    if value is None:
        return ""
    if isinstance(value, str):
        return _escaped(value, written)
    return number_text(value, is_price=name == "price")


def _escaped(text: str, written: Written) -> str:
    cell = escape(text)
    written.num_escaped_cells += cell != text
    return cell


def number_text(value: int | float, *, is_price: bool = False) -> str:
    """A number in plain digits that gives the same number back.

    Prices: whole ones without decimals, and 1.125 as 1.1250, which nobody takes for a thousand.
    """
    if isinstance(value, int):
        return str(value)
    if is_price and value.is_integer():
        return f"{value:.0f}"
    text = np.format_float_positional(value, trim="0")
    return f"{text}0" if is_price and re.fullmatch(r"\d{1,3}\.\d{3}", text) else text


def count_csv_table(folder: Path) -> Counts:
    """Rows of the finished table, and how many of their pictures there are."""
    rows: Counter[str] = Counter()
    pictures: Counter[str] = Counter()
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with (folder / TABLE).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                paths = json.loads(row[PATHS_COLUMN]) if PATHS_COLUMN in row else [row[PATH_COLUMN]]
                rows[row[SPLIT_COLUMN]] += 1
                pictures[row[SPLIT_COLUMN]] += sum((folder / path).is_file() for path in paths)
    finally:
        csv.field_size_limit(limit)
    return {split: (rows[split], pictures[split]) for split in rows}
