"""A table becomes a data set folder: every row in exactly one place, half-written results never seen."""

import asyncio
import errno
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import shared_folder
from shops import error_of, jpeg, quarantine_of, records_of, save, shop

from appraiser.data import pictures
from appraiser.data.building import build as build_module
from appraiser.data.building import shards
from appraiser.data.building.build import build_dataset, choose_num_crops
from appraiser.data.building.ledger import Ledger
from appraiser.data.dataset import open_dataset
from appraiser.data.fetch import Fetched, Fetcher, FetchPolicy
from appraiser.errors import DataError

BURBERRY_CATEGORIES = ("category1_code", "category2_code", "category3_code")


def test_every_good_row_is_in_one_split_with_its_values_and_its_picture(tmp_path):
    manifest = build_dataset(save(tmp_path, shop(tmp_path)), tmp_path / "out")
    assert (manifest.rows_in, manifest.ok, manifest.quarantined) == (20, 20, 0)
    assert sum(manifest.splits.values()) == 20
    assert min(manifest.splits.values()) >= 1
    assert manifest.currency == "EUR"
    records = records_of(tmp_path / "out")
    assert sorted(records) == [f"P{number:03d}" for number in range(20)]
    record = records["P007"]
    assert (record.title, record.category, record.price, record.currency) == ("Article 7", "Coats", 17.0, "EUR")
    assert record.images == (jpeg(7),)
    assert record.extra["product_code"] == "P007"
    assert open_dataset(tmp_path / "out").manifest == manifest
    assert not list(tmp_path.glob(".out*"))


def test_bad_rows_are_quarantined_by_reason_and_the_counts_add_up(tmp_path):
    bad = {"title": {2: ""}, "price": {3: "£12,99", 4: "nan"}, "category": {5: "N.A."}, "currency": {6: ""}}
    rows = shop(tmp_path, 30, **bad)
    (tmp_path / "7.jpg").unlink()
    (tmp_path / "8.jpg").write_bytes(jpeg(8)[:300])
    (tmp_path / "9.jpg").write_bytes(b"")
    (tmp_path / "10.jpg").write_bytes(b"<html>403</html>")
    (tmp_path / "11.jpg").write_bytes(b"BM" + b"\0" * 60)
    rows[12]["image"] = ""
    rows[13]["image"] = "../nowhere.jpg"
    rows[14]["image"] = "a\0b.jpg"
    manifest = build_dataset(save(tmp_path, rows), tmp_path / "out", max_quarantined=0.5)
    assert manifest.quarantined_by_reason == {
        "bad_price": 2, "empty": 1, "missing_file": 3, "no_category": 1, "no_currency": 1, "no_image": 1, "no_title": 1,
        "not_an_image": 1, "truncated": 1, "unsupported_format": 1,
    }  # fmt: skip
    assert manifest.rows_in == manifest.ok + manifest.quarantined == 30
    quarantine = quarantine_of(tmp_path / "out")
    assert {row: reason for row, (reason, _) in quarantine.items()} == {
        3: "no_title", 4: "bad_price", 5: "bad_price", 6: "no_category", 7: "no_currency", 8: "missing_file",
        9: "truncated", 10: "empty", 11: "not_an_image", 12: "unsupported_format", 13: "no_image", 14: "missing_file",
        15: "missing_file",
    }  # fmt: skip
    assert "'£12,99'" in quarantine[4][1]
    assert len(records_of(tmp_path / "out")) == manifest.ok


def test_a_picture_file_that_is_too_large_keeps_its_own_reason(tmp_path, monkeypatch):
    rows = shop(tmp_path, 4)
    monkeypatch.setattr(pictures, "MAX_BYTES", 5000)
    (tmp_path / "1.jpg").write_bytes(b"\xff\xd8" + b"x" * 6000)
    manifest = build_dataset(save(tmp_path, rows), tmp_path / "out", max_quarantined=0.5)
    assert manifest.quarantined_by_reason == {"too_large": 1}


def test_too_many_bad_rows_refuse_the_build_and_the_message_names_rows_and_the_option(tmp_path):
    rows = shop(tmp_path, 20, price={1: "x", 2: "1,290", 3: ""})
    path = save(tmp_path, rows)
    error = error_of(lambda: build_dataset(path, tmp_path / "out"))
    assert error.what == "3 of 20 rows cannot be used: 3 bad_price"
    assert "row 3: bad_price: '1,290' is no plain positive number" in error.where
    assert error.fix.endswith("--max-quarantined 0.15")
    assert not (tmp_path / "out").exists()
    assert build_dataset(path, tmp_path / "out", max_quarantined=0.15).quarantined == 3


def test_a_table_of_bad_rows_alone_is_refused_whatever_share_is_allowed(tmp_path):
    path = save(tmp_path, shop(tmp_path, 3, price={0: "a", 1: "b", 2: "c"}))
    error = error_of(lambda: build_dataset(path, tmp_path / "out", max_quarantined=1.0))
    assert error.fix == "mend the table"


def test_a_table_without_rows_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("image,title\n")
    assert "has no rows" in error_of(lambda: build_dataset(path, tmp_path / "out")).what


def test_ids_that_stand_twice_are_an_error_that_lists_them(tmp_path):
    path = save(tmp_path, shop(tmp_path, 6, product_code={1: "P000", 3: "P002"}))
    error = error_of(lambda: build_dataset(path, tmp_path / "out"))
    assert error.what == "2 ids stand in several rows: P000, P002"
    assert "--map id=" in error.fix
    manifest = build_dataset(path, tmp_path / "out", mapping={"id": []})
    assert manifest.ok == 6
    assert "row-1" in records_of(tmp_path / "out")


def test_several_currencies_are_an_error_that_counts_them(tmp_path):
    path = save(tmp_path, shop(tmp_path, 6, currency={1: "USD", 3: "USD"}))
    error = error_of(lambda: build_dataset(path, tmp_path / "out"))
    assert error.what == "prices are in several currencies: EUR (4), USD (2)"


def test_a_currency_can_be_given_for_a_table_that_names_none(tmp_path):
    rows = [{key: value for key, value in row.items() if key != "currency"} for row in shop(tmp_path, 6)]
    manifest = build_dataset(save(tmp_path, rows), tmp_path / "out", currency="NOK")
    assert manifest.currency == "NOK"
    assert {record.currency for record in records_of(tmp_path / "out").values()} == {"NOK"}


def test_missing_categories_fall_back_row_by_row(tmp_path):
    rows = shop(tmp_path, 4)
    levels = [("A", "B", "C"), ("A", "B", "N.A."), ("A", "N.A.", "N.A."), ("A", "", "C")]
    rows = [
        {key: value for key, value in row.items() if key != "category"}
        | dict(zip(BURBERRY_CATEGORIES, level, strict=True))
        for row, level in zip(rows, levels, strict=True)
    ]
    build_dataset(save(tmp_path, rows), tmp_path / "out")
    records = records_of(tmp_path / "out")
    assert [records[f"P00{i}"].category for i in range(4)] == ["C", "B", "A", "C"]


@pytest.mark.parametrize("kind", ["file", "full folder", "parent is a file"])
def test_a_target_that_cannot_be_made_is_refused_and_left_alone(tmp_path, kind):
    path = save(tmp_path / "shop", shop(tmp_path / "shop", 4))
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif kind == "full folder":
        out.mkdir()
        (out / "mine.txt").write_text("mine")
    else:
        (tmp_path / "parent").write_text("mine")
        out = tmp_path / "parent" / "out"
    error = error_of(lambda: build_dataset(path, out))
    assert isinstance(error, DataError)
    assert "mine" in {
        file.read_text() for file in tmp_path.rglob("*") if file.is_file() and file.suffix in ("", ".txt")
    }
    assert not list(tmp_path.rglob("*.building"))


def test_an_empty_folder_is_a_good_target_and_parents_are_made(tmp_path):
    path = save(tmp_path / "shop", shop(tmp_path / "shop", 4))
    (tmp_path / "out").mkdir()
    assert build_dataset(path, tmp_path / "out").ok == 4
    assert build_dataset(path, tmp_path / "new" / "er" / "out").ok == 4


def test_the_current_folder_can_be_the_target(tmp_path, monkeypatch):
    path = save(tmp_path / "shop", shop(tmp_path / "shop", 4))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    build_dataset(path, ".")
    assert (tmp_path / "here" / "manifest.json").is_file()


@pytest.mark.parametrize("moment", ["staging", "split", "manifest", "rename"])
def test_a_full_disk_leaves_neither_a_data_set_nor_a_half_one(tmp_path, monkeypatch, moment):
    path = save(tmp_path / "shop", shop(tmp_path / "shop", 12))
    calls = Counter()

    def failing(original, first_good=0):
        def call(*args, **kwargs):
            calls["n"] += 1
            if calls["n"] > first_good:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*args, **kwargs)

        return call

    if moment == "staging":
        monkeypatch.setattr(Ledger, "write", failing(Ledger.write))
    elif moment == "split":
        monkeypatch.setattr(pq.ParquetWriter, "write_table", failing(pq.ParquetWriter.write_table, first_good=2))
    elif moment == "manifest":
        monkeypatch.setattr(Path, "write_text", failing(Path.write_text, first_good=1))
    else:
        monkeypatch.setattr(Path, "rename", failing(Path.rename))
    error = error_of(lambda: build_dataset(path, tmp_path / "out"))
    assert error.what == "cannot write the data set: No space left on device"
    assert error.where == str(tmp_path / "out")
    assert calls["n"] >= 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["shop"]
    monkeypatch.undo()
    assert build_dataset(path, tmp_path / "out").ok == 12


def test_what_an_earlier_crash_left_is_swept_away(tmp_path):
    path = save(tmp_path / "shop", shop(tmp_path / "shop", 4))
    left = tmp_path / ".out.building"
    left.mkdir()
    (left / "train-00000-of-00001.parquet").write_bytes(b"half")
    build_dataset(path, tmp_path / "out")
    assert not left.exists()
    assert len(records_of(tmp_path / "out")) == 4


def test_two_builds_are_equal_to_the_byte_and_another_seed_splits_otherwise(tmp_path):
    path = save(tmp_path / "shop", shop(tmp_path / "shop", 40))
    first, again = build_dataset(path, tmp_path / "a"), build_dataset(path, tmp_path / "b")
    assert first == again
    assert first.files == again.files
    other = build_dataset(path, tmp_path / "c", seed=1)
    assert other.content_sha256 != first.content_sha256
    assert {r.id for r in open_dataset(tmp_path / "c").split("test")} != {
        r.id for r in open_dataset(tmp_path / "a").split("test")
    }


def test_the_content_hash_changes_with_a_price_a_title_or_a_pixel(tmp_path):
    rows = shop(tmp_path, 8)
    hashes = {build_dataset(save(tmp_path, rows), tmp_path / "0").content_sha256}
    hashes.add(build_dataset(save(tmp_path, [rows[0] | {"price": "11"}, *rows[1:]]), tmp_path / "1").content_sha256)
    hashes.add(build_dataset(save(tmp_path, [rows[0] | {"title": "B"}, *rows[1:]]), tmp_path / "2").content_sha256)
    (tmp_path / "0.jpg").write_bytes(jpeg(99))
    hashes.add(build_dataset(save(tmp_path, rows), tmp_path / "3").content_sha256)
    assert len(hashes) == 4


def test_files_are_listed_with_their_hashes_and_the_card_counts_what_was_left_out(tmp_path):
    manifest = build_dataset(save(tmp_path, shop(tmp_path, 20, price={3: "x"})), tmp_path / "out", max_quarantined=0.1)
    assert set(manifest.files) == {file.name for file in (tmp_path / "out").glob("*.parquet")}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "20 rows read, 19 kept, 1 left out (1 bad_price; see quarantine.parquet)" in card


def opened_with_datasets(out: Path, cache: Path):
    from datasets import load_dataset

    return load_dataset(str(out), cache_dir=str(cache))


def test_load_dataset_sees_four_splits_with_pictures(tmp_path):
    from datasets import Image as ImageFeature

    build_dataset(save(tmp_path, shop(tmp_path, 20)), tmp_path / "out")
    loaded = opened_with_datasets(tmp_path / "out", tmp_path / "cache")
    assert list(loaded) == ["train", "validation", "calibration", "test"]
    assert sum(len(split) for split in loaded.values()) == 20
    for split in loaded.values():
        assert isinstance(split.features["image"], ImageFeature)
        assert split[0]["image"].size == (40, 40)
        assert split[0]["price"] >= 10


@pytest.mark.parametrize("name", ["products.jsonl", "products.parquet"])
def test_rows_with_several_pictures_keep_them_in_order_in_every_split(tmp_path, name):
    from datasets import Image as ImageFeature

    rows = shop(tmp_path, 20)
    table = [
        {
            "id": row["product_code"],
            "title": row["title"],
            "images": [f"{i}.jpg", f"{(i + 1) % 20}.jpg"][: 1 + (i == 0)],
        }
        for i, row in enumerate(rows)
    ]
    build_dataset(save(tmp_path, table, name), tmp_path / "out")
    records = records_of(tmp_path / "out")
    assert records["P000"].images == (jpeg(0), jpeg(1))
    assert records["P005"].images == (jpeg(5),)
    loaded = opened_with_datasets(tmp_path / "out", tmp_path / "cache")
    # One row of one split has two pictures; all splits have the same columns.
    assert {tuple(split.column_names) for split in loaded.values()} == {tuple(loaded["train"].column_names)}
    assert isinstance(loaded["test"].features["images"].feature, ImageFeature)
    assert loaded["test"][0]["images"][0].size == (40, 40)


def test_pictures_inside_the_table_are_used(tmp_path):
    rows = [{"title": f"Article {i}", "image": {"bytes": jpeg(i), "path": None}} for i in range(6)]
    build_dataset(save(tmp_path, rows, "products.parquet"), tmp_path / "out")
    assert {record.images[0] for record in records_of(tmp_path / "out").values()} == {jpeg(i) for i in range(6)}


def fetching(monkeypatch, answer: Callable[[str], bytes | None]) -> list[str]:
    """Let every fetch be answered by a function (None: no such host); returns the list of URLs asked for."""
    asked = []

    async def fetch(self, url):
        asked.append(url)
        data = answer(url)
        return Fetched(url, reason="dns", detail="no such host") if data is None else Fetched(url, data)

    monkeypatch.setattr(Fetcher, "fetch", fetch)
    return asked


def test_addresses_inside_an_image_column_are_fetched(tmp_path, monkeypatch):
    asked = fetching(monkeypatch, lambda url: jpeg(int(url[-1])) if url[-1] != "3" else None)
    rows = [{"title": f"Article {i}", "image": {"bytes": None, "path": f"https://shop.example/{i}"}} for i in range(4)]
    manifest = build_dataset(save(tmp_path, rows, "products.parquet"), tmp_path / "out", max_quarantined=0.5)
    assert sorted(asked) == [f"https://shop.example/{i}" for i in range(4)]
    assert (manifest.ok, manifest.quarantined_by_reason) == (3, {"dns": 1})


def test_control_tokens_and_odd_characters_in_titles_are_kept_as_text(tmp_path):
    titles = [
        "Bag <|end|> <|image_1|>",
        "Naïve 北京 👜 \u202eRTL",
        'She said "no", twice',
        "Tab\tand\nbreak",
        "N\u0301o\u0308el",
    ]
    rows = shop(tmp_path, 5, title=dict(enumerate(titles)))
    build_dataset(save(tmp_path, rows), tmp_path / "out")
    kept = {record.id: record.title for record in records_of(tmp_path / "out").values()}
    assert [kept[f"P00{i}"] for i in range(5)] == [" ".join(title.split()) for title in titles]


def test_half_characters_are_quarantined_wherever_they_stand(tmp_path):
    rows = [
        {
            "title": "Bag" + "\ud800" * (i == 1),
            "image": f"{i}.jpg" + "\udc00" * (i == 2),
            "note": "x" + "\ud83d" * (i == 3),
        }
        for i, _ in enumerate(shop(tmp_path, 6))
    ]
    manifest = build_dataset(save(tmp_path, rows, "products.jsonl"), tmp_path / "out", max_quarantined=0.6)
    assert manifest.rows_in == manifest.ok + manifest.quarantined == 6
    assert {row: reason for row, (reason, _) in quarantine_of(tmp_path / "out").items()} == {
        2: "bad_text", 3: "bad_text", 4: "bad_text",
    }  # fmt: skip


def test_product_codes_are_never_paths(tmp_path):
    codes = ["../../x", "/etc/passwd", "C:\\x", "a\0b", "x" * 4096, "CON", "\u202eabc", "é", "e\u0301", " "]
    rows = shop(tmp_path / "shop", 10, product_code=dict(enumerate(codes)))
    build_dataset(save(tmp_path / "shop", rows), tmp_path / "out")
    assert set(codes[:-1]) | {"row-10"} == set(records_of(tmp_path / "out"))
    assert {path.name for path in tmp_path.iterdir()} == {"shop", "out"}


def test_the_id_zero_is_an_id(tmp_path):
    rows = [{"id": i, "title": row["title"], "image": row["image"]} for i, row in enumerate(shop(tmp_path, 4))]
    build_dataset(save(tmp_path, rows, "products.jsonl"), tmp_path / "out")
    assert set(records_of(tmp_path / "out")) == {"0", "1", "2", "3"}


def test_own_columns_keep_their_type_and_no_number_is_rounded(tmp_path):
    columns = {
        "weight": [1.5, 2, 3.25, 4],
        "stock": [1, 2, None, 4],
        "sku": ["007", "008", "009", "010"],
        "code": ["1e5", "2e5", "3e5", "4e5"],
        "long": ["12345678901234567890"] * 4,
        "grouped": ["1_000"] * 4,
        "width": ["1.5", "2", "N.A.", "4"],
        "colour": ["red", "1", "", None],
        "tags": [["a"], ["b", "c"], [], None],
        "empty": [None] * 4,
        "price": [1, 2, 3, 4],
    }
    rows = [
        {"title": row["title"], "image": row["image"]} | {name: values[i] for name, values in columns.items()}
        for i, row in enumerate(shop(tmp_path, 4))
    ]
    build_dataset(save(tmp_path, rows, "products.jsonl"), tmp_path / "out")
    records = sorted(records_of(tmp_path / "out").values(), key=lambda record: record.title)
    kept = {name: [record.extra[name if name != "price" else "source_price"] for record in records] for name in columns}
    assert kept == columns | {
        "weight": [1.5, 2.0, 3.25, 4.0],
        "width": [1.5, 2.0, None, 4.0],
        "tags": ["['a']", "['b', 'c']", "[]", None],
    }


def test_a_column_that_is_numbers_in_one_split_and_text_in_another_is_text_in_all(tmp_path):
    rows = [
        {"title": row["title"], "image": row["image"], "size": "38" if i else "M"}
        for i, row in enumerate(shop(tmp_path, 20))
    ]
    rows[3]["only_here"] = "yes"
    build_dataset(save(tmp_path, rows, "products.jsonl"), tmp_path / "out")
    loaded = opened_with_datasets(tmp_path / "out", tmp_path / "cache")
    assert {str(split.features["size"].dtype) for split in loaded.values()} == {"string"}
    assert {str(split.features["only_here"].dtype) for split in loaded.values()} == {"string"}


def test_shards_of_a_split_have_one_schema(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ROWS_PER_SHARD", 4)
    build_dataset(save(tmp_path, shop(tmp_path, 20)), tmp_path / "out")
    files = sorted((tmp_path / "out").glob("train-*.parquet"))
    assert len(files) >= 4
    assert len({str(pq.read_schema(file)) for file in files}) == 1
    assert len(open_dataset(tmp_path / "out").split("train")) == sum(pq.read_metadata(file).num_rows for file in files)


def test_other_shares_are_kept_and_unknown_splits_refused(tmp_path):
    path = save(tmp_path, shop(tmp_path, 20))
    manifest = build_dataset(path, tmp_path / "out", shares={"train": 0.5, "test": 0.5})
    assert manifest.splits == {"train": 10, "val": 0, "calib": 0, "test": 10}
    assert "train, val, calib, test" in error_of(lambda: build_dataset(path, tmp_path / "b", shares={"dev": 1.0})).fix


def test_progress_counts_every_row(tmp_path):
    done = []
    build_dataset(
        save(tmp_path, shop(tmp_path, 5, price={1: "x"})), tmp_path / "o", max_quarantined=1, progress=done.append
    )
    assert done[-1] == 5


def test_the_crop_budget_covers_the_median_picture():
    assert choose_num_crops([(336, 336)]) == (1, (336, 336))
    assert choose_num_crops([(337, 336), (337, 336), (5000, 5000)]) == (2, (337, 336))
    assert choose_num_crops([(5000, 5000)]) == (16, (5000, 5000))


def test_a_number_of_crops_can_be_given(tmp_path):
    assert build_dataset(save(tmp_path, shop(tmp_path, 4)), tmp_path / "out", num_crops=9).num_crops == 9


def test_a_folder_without_a_data_set_a_damaged_and_a_newer_one_are_told_apart(tmp_path):
    assert "manifest.json is missing" in error_of(lambda: open_dataset(tmp_path)).what
    build_dataset(save(tmp_path / "shop", shop(tmp_path / "shop", 20)), tmp_path / "out")
    manifest = tmp_path / "out" / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"format": 1', '"format": 9'))
    assert "has format 9" in error_of(lambda: open_dataset(tmp_path / "out")).what
    manifest.write_text(text[:100])
    assert "damaged" in error_of(lambda: open_dataset(tmp_path / "out")).what
    manifest.write_text(text)
    next((tmp_path / "out").glob("test-*.parquet")).write_bytes(b"PAR1")
    assert "cannot read split 'test'" in error_of(lambda: open_dataset(tmp_path / "out").split("test")).what
    assert "no split 'validation'" in error_of(lambda: open_dataset(tmp_path / "out").split("validation")).what


def test_a_table_of_the_hub_cannot_name_files_of_this_machine(tmp_path, monkeypatch):
    from appraiser.data.sources import Source

    (tmp_path / "private.jpg").write_bytes(jpeg())
    places = [str(tmp_path / "private.jpg"), "private.jpg", {"bytes": None, "path": str(tmp_path / "private.jpg")}]
    places += [{"bytes": jpeg(1), "path": "private.jpg"}]
    rows = [(number, {"image": place, "title": f"t{number}"}) for number, place in enumerate(places, start=1)]
    source = Source("hub:somebody/table", ("image", "title"), lambda: iter(rows), None, "version")
    monkeypatch.setattr(build_module, "open_source", lambda name: source)
    monkeypatch.chdir(tmp_path)
    manifest = build_dataset("hub:somebody/table", tmp_path / "out", max_quarantined=0.9)
    assert (manifest.ok, manifest.quarantined_by_reason) == (1, {"missing_file": 3})


def test_picture_problems_of_any_kind_never_end_the_build(tmp_path):
    rng = random.Random(3)
    rows = shop(tmp_path, 40)
    for number in range(1, 40):
        data = bytearray(jpeg(number))
        for _ in range(rng.choice((1, 4))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / f"{number}.jpg").write_bytes(data)
    manifest = build_dataset(save(tmp_path, rows), tmp_path / "out", max_quarantined=1)
    assert manifest.rows_in == manifest.ok + manifest.quarantined == 40


def test_the_outdoor_shop_builds_with_all_three_fields(tmp_path):
    manifest = build_dataset(shared_folder("real/outdoor_shop"), tmp_path / "out")
    assert (manifest.rows_in, manifest.ok, manifest.currency) == (101, 101, "USD")
    assert manifest.task_fields == ("title", "category", "price")
    assert manifest.licence == "LICENSE"
    assert manifest.median_picture == (448, 448)
    assert min(manifest.splits.values()) >= 4


def test_worn_clothes_build_with_a_category_alone(tmp_path):
    manifest = build_dataset(shared_folder("real/worn_clothes"), tmp_path / "out")
    assert (manifest.rows_in, manifest.ok, manifest.currency) == (372, 372, None)
    assert manifest.task_fields == ("category",)
    assert len({record.category for record in records_of(tmp_path / "out").values()}) == 10


def test_no_fetch_is_made_where_all_pictures_are_files(tmp_path, monkeypatch):
    fetching(monkeypatch, lambda url: pytest.fail("nothing to fetch"))
    build_dataset(save(tmp_path, shop(tmp_path, 4)), tmp_path / "out", fetch=FetchPolicy())


def test_a_build_runs_inside_a_running_event_loop_as_notebooks_have_one(tmp_path):
    source = save(tmp_path, shop(tmp_path))

    async def cell():
        return build_dataset(source, tmp_path / "out")

    assert asyncio.run(cell()).ok == 20
