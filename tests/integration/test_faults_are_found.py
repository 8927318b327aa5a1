"""A catalogue with faults: build and check find exactly what was put in, and nothing else."""

import csv
from collections import defaultdict

import pyarrow.parquet as pq
import pytest

from appraiser import build_dataset, make_catalogue
from appraiser.data.checking.check import check_dataset
from appraiser.data.dataset import open_dataset
from appraiser.data.samples.faults import KINDS

ROWS, SEED = 700, 5


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    """The catalogue's folder and the data set built from it."""
    root = tmp_path_factory.mktemp("spoilt")
    make_catalogue(root / "catalogue", ROWS, SEED, faults=True)
    build_dataset(root / "catalogue", root / "dataset", dedupe="first", max_quarantined=0.25)
    return root


@pytest.fixture(scope="module")
def faults(spoilt):
    with (spoilt / "catalogue" / "faults.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_kind_of_fault_is_there(faults):
    assert {row["kind"] for row in faults} == set(KINDS)
    assert 0.15 * ROWS < len(faults) < 0.25 * ROWS


def test_build_leaves_out_exactly_the_rows_that_it_should_for_exactly_their_reasons(spoilt, faults):
    expected = {int(row["row"]): row["code"] for row in faults if row["outcome"] == "left_out"}
    quarantine = pq.read_table(spoilt / "dataset" / "quarantine.parquet").to_pylist()
    assert {row["row"]: row["reason"] for row in quarantine} == expected
    manifest = open_dataset(spoilt / "dataset").manifest
    assert manifest.rows_in == ROWS == manifest.ok + len(expected)


def test_check_names_exactly_the_products_that_it_should(spoilt, faults):
    expected, found = defaultdict(set), defaultdict(set)
    for row in faults:
        if row["outcome"] == "issue":
            expected[row["code"]].add(frozenset(filter(None, (row["product_code"], row["partner"]))))
    result = check_dataset(spoilt / "dataset")
    for entry in result.as_json()["found"]:
        found[entry["kind"]].add(frozenset(entry["ids"]))
    assert found == expected
    assert not any(probe.warns for probe in result.probes)


def test_what_can_be_kept_is_kept_whole(spoilt, faults):
    with (spoilt / "catalogue" / "truth.csv").open(encoding="utf-8", newline="") as file:
        titles = {row["item"]: row["title"] for row in csv.DictReader(file)}
    dataset = open_dataset(spoilt / "dataset")
    records = {r.id: r for split, count in dataset.manifest.splits.items() if count for r in dataset.split(split)}
    kept = [row for row in faults if row["outcome"] == "kept"]
    assert {row["kind"] for row in kept} >= {"transparent", "cmyk", "turned_by_exif", "html_entity"}
    for row in kept:
        title, plain = records[row["product_code"]].title, titles[str(int(row["row"]) - 1)]
        match row["kind"]:
            case "html_entity":
                assert title == plain.replace(" ", " & ", 1)
            case "foreign_letters":
                assert title.startswith(plain + " ")
            case _:
                assert title == plain
