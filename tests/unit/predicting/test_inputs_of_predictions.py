"""What is asked about: a row per picture of a folder or row of a table, in order, each with its name or its error."""

import base64
import csv
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shop_server import picture

from appraiser.data.building.build import build_dataset
from appraiser.data.exports.export import export_dataset
from appraiser.errors import ConfigError, DataError
from appraiser.predicting.inputs import Inputs, open_inputs


def opened(table: Path, rows: list[dict]) -> Inputs:
    """Rows as a JSONL file, opened."""
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return open_inputs(table)


def heads(inputs: Inputs) -> list[dict]:
    return [dict(row.head) for row in inputs.rows()]


def test_a_folder_gives_its_pictures_by_name_at_any_depth(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("z.jpg", "b/a.PNG", "notes.txt"):
        (tmp_path / name).write_bytes(picture(1))
    inputs = open_inputs(tmp_path)
    assert heads(inputs) == [{"picture": str(tmp_path / "b/a.PNG")}, {"picture": str(tmp_path / "z.jpg")}]
    assert [row.with_files(inputs.source).places for row in inputs.rows()] == [(picture(1),)] * 2
    assert inputs.total == 2


def test_a_path_is_taken_from_where_the_user_is(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(picture(1))
    monkeypatch.chdir(tmp_path)
    inputs = open_inputs(Path("a.jpg"))
    (row,) = inputs.rows()
    assert row.head == {"picture": "a.jpg"}
    assert row.with_files(inputs.source).places == (picture(1),)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_every_kind_of_table_gives_ids_and_places_in_order(tmp_path, suffix):
    rows = [{"sku": f"P{n}", "image": f"{n}.jpg"} for n in range(3)]
    table = tmp_path / f"shop.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), table)
    elif suffix == "jsonl":
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["sku", "image"], delimiter="\t" if suffix == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    inputs = open_inputs(table)
    assert heads(inputs) == [{"picture": f"{n}.jpg", "id": f"P{n}"} for n in range(3)]
    assert [row.position for row in inputs.rows()] == [0, 1, 2]
    assert inputs.total == 3


def test_a_table_without_ids_has_no_such_column_and_a_missing_one_is_empty(tmp_path):
    assert heads(opened(tmp_path / "a.jsonl", [{"image": "a.jpg"}])) == [{"picture": "a.jpg"}]
    found = heads(opened(tmp_path / "b.jsonl", [{"image": "a.jpg", "id": 7}, {"image": "b.jpg", "id": None}]))
    assert found == [{"picture": "a.jpg", "id": "7"}, {"picture": "b.jpg", "id": None}]


def test_several_pictures_of_one_row_stay_one_row(tmp_path):
    places = ["a.jpg", "http://shop.example/b.jpg"]
    (row,) = opened(tmp_path / "a.jsonl", [{"images": places}]).rows()
    assert row.places == tuple(places)
    assert json.loads(row.head["picture"]) == places


def test_pictures_inside_a_table_are_read_from_it(tmp_path):
    table = tmp_path / "shop.parquet"
    cells = [{"bytes": picture(1), "path": "one.jpg"}, {"bytes": picture(2), "path": None}]
    pq.write_table(pa.table({"image": cells}), table)
    inputs = open_inputs(table)
    assert [row.with_files(inputs.source).places for row in inputs.rows()] == [(picture(1),), (picture(2),)]
    assert heads(inputs) == [{"picture": "one.jpg"}, {"picture": "row 2"}]


@pytest.mark.parametrize("kind", ["dataset", "webdataset", "imagefolder", "csv"])
def test_what_appraiser_wrote_gives_a_row_per_product(tmp_path, kind):
    if kind == "webdataset":
        pytest.importorskip("webdataset")
    (tmp_path / "shop").mkdir()
    for number in range(12):
        (tmp_path / f"shop/{number}.jpg").write_bytes(picture(number))
    lines = "".join(f"P{n},Bag {n},{n}.jpg\n" for n in range(12))
    (tmp_path / "shop/products.csv").write_text(f"id,title,image\n{lines}")
    build_dataset(tmp_path / "shop", tmp_path / "dataset")
    if kind != "dataset":
        export_dataset(tmp_path / "dataset", tmp_path / kind, kind)
    inputs = open_inputs(tmp_path / kind / ("products.csv" if kind == "csv" else ""))
    rows = [row.with_files(inputs.source) for row in inputs.rows()]
    assert len(rows) == inputs.total == 12
    assert {row.error for row in rows} == {None}
    assert {row.places for row in rows} == {(picture(number),) for number in range(12)}
    if kind != "imagefolder":  # that one is a folder of pictures to anybody
        assert {row.head["id"] for row in rows} == {f"P{number}" for number in range(12)}


def test_rows_that_cannot_be_used_say_why(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    whole = base64.b64encode(picture(3)).decode()
    rows = [
        {"image": None},
        {"image": "nowhere.jpg"},
        {"image": "a\0b.jpg"},
        {"image": 5},
        {"image": "data:image/png;base64,!"},
        {"image": f"data:image/jpeg;base64,{whole}"},
        {"images": []},
    ]
    inputs = opened(tmp_path / "a.jsonl", rows)
    found = [row.with_files(inputs.source) if row.error is None else row for row in inputs.rows()]
    reasons = [row.error and row.error.partition(":")[0] for row in found]
    assert reasons == ["no_image", "missing_file", "missing_file", "no_image", "bad_url", None, "no_image"]
    assert found[5].places == (picture(3),)
    assert found[0].head == {"picture": "row 1"}


def test_names_that_are_no_unicode_can_be_written(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    (tmp_path / name).write_bytes(picture(1))
    inputs = open_inputs(tmp_path)
    (row,) = inputs.rows()
    assert row.with_files(inputs.source).places == (picture(1),)
    assert row.head["picture"].endswith("caf\\udce9.jpg")
    (row,) = opened(tmp_path / "a.jsonl", [{"image": "a.jpg", "id": "x\ud800"}]).rows()
    assert row.head["id"] == "x\\ud800"


def test_the_fingerprint_changes_with_the_source_and_with_nothing_else(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(picture(1))
    before = open_inputs(tmp_path).sha256
    (tmp_path / "notes.txt").write_text("no picture")
    assert open_inputs(tmp_path).sha256 == before
    (tmp_path / "b.jpg").write_bytes(picture(2))
    assert open_inputs(tmp_path).sha256 != before
    table = opened(tmp_path / "a.jsonl", [{"image": "a.jpg"}])
    assert opened(tmp_path / "a.jsonl", [{"image": "b.jpg"}]).sha256 != table.sha256


def test_a_column_can_be_named(tmp_path):
    table = tmp_path / "a.csv"
    table.write_text("foto,number\na.jpg,5\n")
    with pytest.raises(DataError, match="no column that looks like pictures") as caught:
        open_inputs(table)
    assert "--map image=COLUMN" in caught.value.fix
    inputs = open_inputs(table, {"image": ["foto"], "id": ["number"]})
    assert heads(inputs) == [{"picture": "a.jpg", "id": "5"}]
    with pytest.raises(ConfigError, match="no field 'images'; did you mean image"):
        open_inputs(table, {"images": ["foto"]})


def test_a_damaged_table_is_refused_before_anything_is_computed(tmp_path):
    table = tmp_path / "a.csv"
    table.write_text("image\n" + "a.jpg\n" * 500 + "a,b\n")
    with pytest.raises(DataError, match="row 501 has more cells"):
        open_inputs(table)
    table.write_text("image\n")
    with pytest.raises(DataError, match="has no rows"):
        open_inputs(table)
