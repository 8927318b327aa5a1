"""Small shops for tests: a table, a picture per row, and what a build made of them."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from appraiser.data.dataset import open_dataset
from appraiser.errors import AppraiserError


def jpeg(number: int = 0, side: int = 40) -> bytes:
    """A different picture for every number: a coarse random grid, so that no two look alike."""
    cells = np.random.default_rng(number).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(cells).resize((side, side), Image.Resampling.NEAREST).save(buffer, "JPEG")
    return buffer.getvalue()


def shop(folder: Path, rows: int = 20, **changed) -> list[dict]:
    """Rows of a small shop with a picture each; `changed` gives other values for a column, row by row."""
    folder.mkdir(parents=True, exist_ok=True)
    table = []
    for number in range(rows):
        (folder / f"{number}.jpg").write_bytes(jpeg(number))
        row = {
            "product_code": f"P{number:03d}",
            "title": f"Article {number}",
            "category": ("Bags", "Coats")[number % 2],
            "price": str(10 + number),
            "currency": "EUR",
            "image": f"{number}.jpg",
        }
        table.append(row | {name: values[number] for name, values in changed.items() if number in values})
    return table


def save(folder: Path, rows: list[dict], name: str = "products.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def error_of(action) -> AppraiserError:
    with pytest.raises(AppraiserError) as caught:
        action()
    assert caught.value.fix
    return caught.value


def records_of(out: Path) -> dict[str, object]:
    dataset = open_dataset(out)
    return {r.id: r for name, count in dataset.manifest.splits.items() if count for r in dataset.split(name)}


def quarantine_of(out: Path) -> dict[int, tuple[str, str]]:
    return {row["row"]: (row["reason"], row["detail"]) for row in pq.read_table(out / "quarantine.parquet").to_pylist()}
