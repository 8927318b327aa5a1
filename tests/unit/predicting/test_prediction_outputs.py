"""The files of predictions: all columns of all rows, each of one kind, whole or not at all."""

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from appraiser.errors import DataError
from appraiser.predicting import outputs
from appraiser.predicting.outputs import write_rows

ROWS = [
    {"picture": "a.jpg", "error": "truncated: cut off"},
    {"picture": "b.jpg", "title": 'Bag, "red"\nline', "price": 12.0, "parsed": True, "count": 1, "mixed": 1},
    {"picture": "é.jpg", "title": None, "price": 9, "parsed": False, "count": 2, "mixed": "two"},
]
COLUMNS = ["picture", "error", "title", "price", "parsed", "count", "mixed"]


def test_json_lines_are_the_rows(tmp_path):
    write_rows(lambda: ROWS, tmp_path / "out.jsonl")
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()] == ROWS
    assert "é.jpg" in (tmp_path / "out.jsonl").read_text("utf-8")


def test_csv_names_every_column_once_in_order_of_appearance(tmp_path):
    write_rows(lambda: ROWS, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert reader.fieldnames == COLUMNS
    assert rows[1] | {"error": ""} == rows[1]
    assert (rows[1]["title"], rows[1]["price"], rows[2]["title"]) == ('Bag, "red"\nline', "12.0", "")


@pytest.mark.parametrize("per_group", [1, 4096])
def test_parquet_has_one_kind_per_column_over_all_groups(tmp_path, monkeypatch, per_group):
    monkeypatch.setattr(outputs, "ROWS_PER_GROUP", per_group)
    write_rows(lambda: [*ROWS, {"picture": "d", "nothing": None}], tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == [*COLUMNS, "nothing"]
    kinds = [str(table.schema.field(name).type) for name in table.column_names]
    assert kinds == ["string", "string", "string", "double", "bool", "int64", "string", "null"]
    assert table["price"].to_pylist() == [None, 12.0, 9.0, None]
    assert table["mixed"].to_pylist() == [None, "1", "two", None]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_what_was_there_stays_until_the_new_file_is_whole(tmp_path: Path, suffix):
    out = tmp_path / f"out.{suffix}"
    out.write_text("mine")

    def rows():
        yield ROWS[0]
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="No space left"):
        write_rows(rows, out)
    assert out.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [out]
    write_rows(lambda: ROWS, out)
    assert out.read_bytes() != b"mine"
