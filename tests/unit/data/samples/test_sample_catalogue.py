"""The catalogue folder: schema, repeatability, truth, and what happens when it cannot be written."""

from __future__ import annotations

import csv
import errno
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from appraiser.data.samples import catalogue
from appraiser.data.samples.catalogue import COLUMNS, CatalogueSummary, make_catalogue
from appraiser.data.samples.items import CatalogueItem, draw_item, iter_products
from appraiser.errors import ConfigError, DataError

ROWS = 24
SMALL = 64


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CatalogueSummary]:
    out = tmp_path_factory.mktemp("made") / "shop"
    return out, make_catalogue(out, ROWS, 7, size=SMALL)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_table_has_the_seventeen_columns_and_the_picture(made: tuple[Path, CatalogueSummary]) -> None:
    rows = read(made[0] / "products.csv")
    assert len(rows) == ROWS
    assert tuple(rows[0]) == COLUMNS
    assert len(COLUMNS) == 18
    assert COLUMNS[-1] == "image"


def test_columns_have_the_types_of_the_real_table(made: tuple[Path, CatalogueSummary]) -> None:
    for row in read(made[0] / "products.csv"):
        assert len(row["product_code"]) == 8
        assert 34_500_000 <= int(row["product_code"]) <= 80_900_000
        assert row["flg_discount"] == "0"
        assert row["category1_code"] in ("WOMAN", "MAN", "KIDS")
        for name in ("full_price", "price", "full_price_eur", "price_eur"):
            assert "." in row[name]
            assert float(row[name]) > 0
        assert float(row["full_price"]) % 10 == 0
        assert float(row["price_eur"]) == pytest.approx(float(row["price"]) * 0.9225, abs=0.006)


def test_product_codes_and_pictures_are_unique(made: tuple[Path, CatalogueSummary]) -> None:
    rows = read(made[0] / "products.csv")
    assert len({row["product_code"] for row in rows}) == ROWS
    assert len({row["image"] for row in rows}) == ROWS


def test_every_row_has_its_picture_and_no_picture_is_left_over(made: tuple[Path, CatalogueSummary]) -> None:
    rows = read(made[0] / "products.csv")
    assert {row["image"] for row in rows} == {f"images/{path.name}" for path in (made[0] / "images").iterdir()}
    with Image.open(made[0] / rows[0]["image"]) as picture:
        assert picture.size == (SMALL, SMALL)


def test_truth_agrees_with_the_table(made: tuple[Path, CatalogueSummary]) -> None:
    for row, truth in zip(read(made[0] / "products.csv"), read(made[0] / "truth.csv"), strict=True):
        assert truth["image"] == row["image"]
        assert truth["title"] == row["title"]
        assert float(truth["price"]) == float(row["full_price"])
        assert row["title"].startswith(truth["visible_words"])
        levels = [row[f"category{level}_code"] for level in (3, 2, 1)]
        assert truth["category"] == next(level for level in levels if level != "N.A.")


def test_truth_json_repeats_the_summary(made: tuple[Path, CatalogueSummary]) -> None:
    facts = json.loads((made[0] / "truth.json").read_text(encoding="utf-8"))
    assert facts["oracle_median_ape"] == made[1].oracle_median_ape
    assert facts["rows"] == ROWS
    assert facts["generator_version"] == catalogue.GENERATOR_VERSION


def test_the_floors_of_title_and_category_are_those_of_the_rows(made: tuple[Path, CatalogueSummary]) -> None:
    rows = read(made[0] / "truth.csv")
    whole = [row["title"] == row["visible_words"] for row in rows]
    assert made[1].oracle_title_exact == pytest.approx(sum(whole) / len(rows), abs=1e-6)
    by_look: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        look = tuple(row[name] for name in ("type", "pattern", "material", "size", "hardware"))
        by_look.setdefault(look, set()).add(row["category"])
    assert all(len(found) == 1 for found in by_look.values())
    assert made[1].oracle_category_accuracy == 1.0


def test_an_item_does_not_depend_on_the_number_of_rows_or_the_start() -> None:
    some = list(iter_products(40, 3))
    assert list(iter_products(13, 3)) == some[:13]
    assert list(iter_products(9, 3, start=18)) == some[18:27]
    assert list(iter_products(40, 4)) != some


def test_pictures_do_not_depend_on_the_number_of_rows(made: tuple[Path, CatalogueSummary], tmp_path: Path) -> None:
    make_catalogue(tmp_path / "fewer", 5, 7, size=SMALL)
    for name in ("000000.jpg", "000004.jpg"):
        assert (tmp_path / "fewer" / "images" / name).read_bytes() == (made[0] / "images" / name).read_bytes()


def test_labels_are_the_same_on_every_machine() -> None:
    # Written down once: a change here needs a new GENERATOR_VERSION.
    titles = [entry.labels.title for entry in iter_products(3, 7)]
    assert titles == [
        "Beige Houndstooth Wool Bucket Hat",
        "Red Houndstooth Wool Bucket Hat",
        "Blue Striped Silk Buckle Dress",
    ]
    assert [entry.price for entry in iter_products(3, 7)] == [460, 460, 2330]


def test_colour_variants_share_everything_but_the_colour() -> None:
    groups: dict[int, list[CatalogueItem]] = {}
    for entry in iter_products(400, 7):
        groups.setdefault(entry.product_id, []).append(entry)
    assert max(map(len, groups.values())) == 4
    for entries in groups.values():
        first = entries[0]
        assert len({entry.product.colour for entry in entries}) == len(entries)
        assert all(entry.product.in_colour(first.product.colour) == first.product for entry in entries)
        assert {entry.price for entry in entries} == {first.price}


def test_about_four_items_in_ten_have_a_colour_variant() -> None:
    ids = np.array([entry.product_id for entry in iter_products(4000, 1)])
    _, index, counts = np.unique(ids, return_inverse=True, return_counts=True)
    assert 0.36 < np.mean(counts[index] > 1) < 0.44


def test_the_oracles_error_is_near_the_theory() -> None:
    entries = list(iter_products(4000, 2))
    errors = [abs(catalogue.pricing.oracle_price(entry.product) / entry.price - 1) for entry in entries]
    assert np.median(errors) == pytest.approx(catalogue.pricing.theoretical_error(0.12), rel=0.12)


def test_without_noise_only_rounding_is_left() -> None:
    entries = list(iter_products(200, 2, price_noise=0.0))
    assert all(abs(catalogue.pricing.oracle_price(entry.product) - entry.price) <= 5.0001 for entry in entries)


def test_progress_counts_up_to_the_rows(tmp_path: Path) -> None:
    seen: list[int] = []
    make_catalogue(tmp_path / "shop", 40, 1, size=32, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 40


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    make_catalogue(tmp_path, 2, 1, size=32)
    assert (tmp_path / "images" / "000001.jpg").is_file()


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty") as caught:
        make_catalogue(tmp_path, 2, 1)
    assert "fix:   name a new folder" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "shop").write_text("mine")
    with pytest.raises(DataError, match="this is a file"):
        make_catalogue(tmp_path / "shop", 2, 1)


def test_a_full_disk_is_named_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(catalogue, "_draw_chunk", full)
    with pytest.raises(DataError, match="No space left") as caught:
        make_catalogue(tmp_path / "shop", 2, 1)
    assert "free about" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_catalogue(tmp_path / "shop", 2, 1, size=32, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_all_wrong_settings_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rows is 0; seed is -1"):
        make_catalogue(tmp_path / "shop", 0, -1)


def test_workers_write_the_same_pictures(tmp_path: Path) -> None:
    for workers in (1, 2):
        make_catalogue(tmp_path / str(workers), 33, 5, size=32, num_workers=workers)
    for path in sorted((tmp_path / "1" / "images").iterdir()):
        assert path.read_bytes() == (tmp_path / "2" / "images" / path.name).read_bytes()


def test_an_item_can_be_drawn_on_its_own() -> None:
    entry = next(iter_products(1, 7))
    assert draw_item(entry, 7, 48).size == (48, 48)
