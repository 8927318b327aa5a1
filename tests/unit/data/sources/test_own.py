"""A data set folder is a source too: its own columns are its fields, whatever else it holds."""

import csv
import json
import logging
from pathlib import Path

import pytest

from appraiser.data.building.build import build_dataset
from appraiser.data.dataset import SPLIT_NAMES, open_dataset
from appraiser.data.exports.export import export_dataset
from appraiser.data.pictures import encode
from appraiser.data.sources import open_source
from appraiser.errors import DataError
from appraiser.predicting.inputs import open_inputs
from tests.tiny import formula_picture


def shop(folder: Path, rows: int = 12, **columns: list) -> Path:
    folder.mkdir()
    for number in range(rows):
        (folder / f"{number}.jpg").write_bytes(encode(formula_picture(40 + number, 30, number)))
    table = [
        {"product_code": f"P{n}", "title": f"Bag {n}", "image": f"{n}.jpg"} | {k: v[n] for k, v in columns.items()}
        for n in range(rows)
    ]
    with (folder / "products.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    return folder


def content(folder: Path) -> dict[str, tuple]:
    dataset = open_dataset(folder)
    return {
        r.id: (r.title, r.category, r.price, r.currency, r.images)
        for name in SPLIT_NAMES
        if dataset.manifest.splits[name]
        for r in dataset.split(name)
    }


def test_a_data_set_builds_again_into_the_same_content(tmp_path, caplog):
    columns = {"full_price": [str(n + 1) for n in range(12)], "price": ["9"] * 12, "category": ["Bags"] * 12}
    mapping = {"price": ["price"], "id": [], "category": []}
    source = shop(tmp_path / "shop", **columns)
    before = build_dataset(source, tmp_path / "one", mapping=mapping, currency="EUR")
    with caplog.at_level(logging.WARNING):
        manifest = build_dataset(tmp_path / "one", tmp_path / "two", max_quarantined=0)
    assert content(tmp_path / "two") == content(tmp_path / "one")
    assert manifest.task_fields == before.task_fields == ("title", "price")
    assert (manifest.currency, manifest.rows_in) == ("EUR", 12)
    dataset = open_dataset(tmp_path / "two")
    record = next(iter(dataset.split("train")))
    assert record.extra["source_split"] in SPLIT_NAMES
    assert record.extra["full_price"] == int(record.extra["product_code"][1:]) + 1
    assert caplog.messages == []


def test_a_data_set_without_currency_builds_again_without_one(tmp_path):
    build_dataset(shop(tmp_path / "shop"), tmp_path / "one")
    assert build_dataset(tmp_path / "one", tmp_path / "two", max_quarantined=0).currency is None


def test_rows_that_are_not_in_a_data_set_are_said(tmp_path, caplog):
    source = shop(tmp_path / "shop", full_price=["x", "y", *["5"] * 10])
    build_dataset(source, tmp_path / "one", max_quarantined=0.5)
    with caplog.at_level(logging.WARNING):
        manifest = build_dataset(tmp_path / "one", tmp_path / "two")
    assert manifest.rows_in == 10
    assert "2 row(s) left out" in caplog.messages[0]


def test_groups_stay_together_when_a_data_set_is_built_again(tmp_path):
    group = ["a", "a", "a", "b", "b", "c", "c", "c", "d", "d", "d", "d"]
    build_dataset(shop(tmp_path / "shop", group=group), tmp_path / "one")
    build_dataset(tmp_path / "one", tmp_path / "two", seed=5)
    dataset = open_dataset(tmp_path / "two")
    groups: dict[str, set[str]] = {}
    for name in SPLIT_NAMES:
        for record in dataset.split(name) if dataset.manifest.splits[name] else ():
            groups.setdefault(group[int(record.id[1:])], set()).add(f"{name} {record.group}")
    assert all(len(places) == 1 for places in groups.values())
    assert len(set.union(*groups.values())) == 4


def test_facts_of_sample_data_come_with_it(tmp_path):
    from appraiser.data.samples.catalogue import make_catalogue

    make_catalogue(tmp_path / "catalogue", 12, 3, size=64)
    build_dataset(tmp_path / "catalogue", tmp_path / "one")
    sample = build_dataset(tmp_path / "one", tmp_path / "two").sample
    assert sample == open_dataset(tmp_path / "one").manifest.sample
    assert sample is not None
    assert "truth_oracle_price" in next(iter(open_dataset(tmp_path / "two").split("train"))).extra
    export_dataset(tmp_path / "one", tmp_path / "out", "csv")
    assert build_dataset(tmp_path / "out", tmp_path / "three").sample == sample


def test_another_manifest_json_makes_no_data_set(tmp_path):
    source = shop(tmp_path / "shop")
    (source / "manifest.json").write_text(json.dumps({"name": "A web application"}))
    assert open_source(str(source)).name.endswith("products.csv")
    (source / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        open_source(str(source))


def test_an_exported_table_is_read_by_its_own_name_and_its_pictures_can_be_predicted(tmp_path):
    titles = ["=1+1", *[f"Bag {n}" for n in range(11)]]
    build_dataset(shop(tmp_path / "shop", title=titles), tmp_path / "one")
    export_dataset(tmp_path / "one", tmp_path / "out", "csv")
    table = tmp_path / "out" / "products.csv"
    assert {row["title"] for _, row in open_source(str(table)).rows()} == set(titles)
    build_dataset(table, tmp_path / "two")
    assert content(tmp_path / "two") == content(tmp_path / "one")
    inputs = open_inputs(table)
    rows = [row.with_files(inputs.source) for row in inputs.rows()]
    assert {row.error for row in rows} == {None}
    pictures = {row.head["picture"]: row.places for row in rows}
    assert pictures["images/P0.jpg"] == (content(tmp_path / "one")["P0"][-1][0],)


def test_a_table_that_was_changed_after_the_export_is_read_as_it_is(tmp_path):
    build_dataset(shop(tmp_path / "shop"), tmp_path / "one")
    export_dataset(tmp_path / "one", tmp_path / "out", "csv")
    table = tmp_path / "out" / "products.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], *lines[2:]]).replace("Bag", "Sac") + "\n")
    manifest = build_dataset(tmp_path / "out", tmp_path / "two")
    assert manifest.rows_in == 11
    assert {title[:4] for title, *_ in content(tmp_path / "two").values()} == {"Sac "}
