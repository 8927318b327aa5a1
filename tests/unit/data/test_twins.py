"""Twins of a table come into the data set whole, or say what is wrong with them."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome

from appraiser import build_dataset, make_catalogue
from appraiser.data.dataset import open_dataset
from appraiser.data.pictures import decode
from appraiser.data.twins import read_twins
from appraiser.errors import DataError


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    make_catalogue(tmp_path / "catalogue", 12, seed=3, size=64, twins=5)
    return tmp_path / "catalogue"


def rewrite(catalogue: Path, **changed: str | None) -> None:
    """Change cells of the third pair; None takes the column away."""
    path = catalogue / "twins.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[2] |= {name: value for name, value in changed.items() if value is not None}
    names = [name for name in rows[0] if name not in changed or changed[name] is not None]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def test_twins_are_in_the_data_set_but_in_no_split(catalogue: Path, tmp_path: Path) -> None:
    manifest = build_dataset(catalogue, tmp_path / "dataset")
    assert manifest.twins == 5
    assert sum(manifest.splits.values()) == manifest.ok <= 12
    assert "twins.parquet" in manifest.files
    pairs = list(read_twins(tmp_path / "dataset"))
    with (catalogue / "twins.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [pair.attribute for pair in pairs] == [row["attribute"] for row in rows]
    assert [pair.log_price_change for pair in pairs] == [float(row["log_price_change"]) for row in rows]
    assert decode(pairs[0].first_image).size == (64, 64)
    assert pairs[0].first_image == (catalogue / rows[0]["first_image"]).read_bytes()


def test_a_data_set_without_twins_has_none(catalogue: Path, tmp_path: Path) -> None:
    (catalogue / "twins.csv").unlink()
    assert build_dataset(catalogue, tmp_path / "dataset").twins == 0
    assert list(read_twins(tmp_path / "dataset")) == []


def test_twins_go_along_when_a_data_set_is_built_from_another(catalogue: Path, tmp_path: Path) -> None:
    build_dataset(catalogue, tmp_path / "one")
    manifest = build_dataset(tmp_path / "one", tmp_path / "two", shares={"train": 1, "test": 1})
    assert manifest.twins == 5
    assert "twins.parquet" in manifest.files
    assert list(read_twins(tmp_path / "two")) == list(read_twins(tmp_path / "one"))


def test_lost_twins_of_a_source_are_an_error(catalogue: Path, tmp_path: Path) -> None:
    build_dataset(catalogue, tmp_path / "one")
    (tmp_path / "one/twins.parquet").unlink()
    with pytest.raises(DataError, match=r"twins\.parquet has 0 pairs, the manifest counts 5"):
        build_dataset(tmp_path / "one", tmp_path / "two")
    assert not (tmp_path / "two").exists()


def test_an_export_says_that_twins_are_not_in_it(
    catalogue: Path, tmp_path: Path, appraiser: Callable[..., Outcome], caplog: pytest.LogCaptureFixture
) -> None:
    said = appraiser("build", catalogue, tmp_path / "one").out
    assert "5 twin pairs, for evaluation alone." in said
    said = appraiser("export", tmp_path / "one", tmp_path / "csv", "--as", "csv").out
    assert "5 twin pairs were not exported" in said
    assert "5 twin pairs" in (tmp_path / "csv/README.md").read_text(encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        manifest = build_dataset(tmp_path / "csv", tmp_path / "two")
    assert manifest.twins == 0
    [note] = manifest.notes
    assert note.startswith("5 twin pairs of the exported data set are not in")
    assert caplog.messages == [note]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"first_image": "twins/none.jpg"}, "first_image cannot be read"),
        ({"second_image": "products.csv"}, "second_image cannot be read"),
        ({"first_image": "../../etc/passwd"}, "lies outside"),
        ({"log_price_change": "much"}, "log_price_change is 'much'"),
        ({"log_price_change": "nan"}, "log_price_change is 'nan'"),
        ({"attribute": None}, "no column attribute"),
    ],
)
def test_bad_twins_are_named(catalogue: Path, tmp_path: Path, changed: dict[str, str | None], said: str) -> None:
    rewrite(catalogue, **changed)
    with pytest.raises(DataError, match=said) as caught:
        build_dataset(catalogue, tmp_path / "dataset")
    assert "twins.csv" in str(caught.value)
    assert not (tmp_path / "dataset").exists()


def test_damaged_twins_are_named(catalogue: Path, tmp_path: Path) -> None:
    build_dataset(catalogue, tmp_path / "dataset")
    (tmp_path / "dataset/twins.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot read the twins"):
        list(read_twins(open_dataset(tmp_path / "dataset").folder))
