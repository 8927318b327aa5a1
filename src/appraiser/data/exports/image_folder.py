"""Pictures in a folder per split with metadata.parquet beside them, as `load_dataset("imagefolder", ...)` reads them.

Not metadata.jsonl: `datasets` takes the types from a file's first lines then, makes timestamps of texts such as
2023-11-17, and refuses splits in which a column happens to be empty.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from appraiser.data.dataset import ProductDataset
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

METADATA = "metadata.parquet"
ROWS_PER_GROUP = 256


def write_image_folder(dataset: ProductDataset, folder: Path, progress: Callable[[int], None]) -> Written:
    """Write `train/`, `validation/`, `calibration/` and `test/`."""
    schema = dataset.schema()
    columns = value_columns(schema)
    # `datasets` takes every text column with such an ending for pictures.
    written = Written(
        new_names([column.name for column in columns], lambda name: name.endswith(("file_name", "file_names")))
    )
    names = {column.name: written.renamed.get(column.name, column.name) for column in columns}
    several = has_several_pictures(schema)
    file_column = pa.field("file_names", pa.list_(pa.string())) if several else pa.field("file_name", pa.string())
    table_schema = pa.schema([file_column, *(column.with_name(names[column.name]) for column in columns)])
    for split, rows in filled_splits(dataset):
        place = folder / split
        place.mkdir()
        waiting: list[Row] = []
        with pq.ParquetWriter(place / METADATA, table_schema) as table:
            for row in rows:
                files = write_pictures(row, place)
                entry = {other: row[name] for name, other in names.items()}
                waiting.append(entry | {file_column.name: files if several else files[0]})
                written.count(split, len(files))
                progress(written.num_rows)
                if len(waiting) == ROWS_PER_GROUP:
                    table.write_table(pa.Table.from_pylist(waiting, schema=table_schema))
                    waiting = []
            if waiting:
                table.write_table(pa.Table.from_pylist(waiting, schema=table_schema))
    return written


def count_image_folder(folder: Path) -> Counts:
    """Rows and picture files of every split, counted in the finished folder."""
    return {
        table.parent.name: (
            pq.read_metadata(table).num_rows,
            sum(1 for path in table.parent.iterdir() if path != table),
        )
        for table in folder.glob(f"*/{METADATA}")
    }
