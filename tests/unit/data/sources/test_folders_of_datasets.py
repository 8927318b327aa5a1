"""Folders as the `datasets` library lays them out: split folders, saved data sets, copies of Hub repositories."""

import csv
import io
import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from appraiser.data.building.build import build_dataset
from appraiser.data.dataset import SPLIT_NAMES, open_dataset
from appraiser.data.sources import open_source
from appraiser.errors import DataError


def picture(number: int) -> bytes:
    cells = np.random.default_rng(number).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(cells).resize((45, 45), Image.Resampling.NEAREST).save(buffer, "JPEG")
    return buffer.getvalue()


def rows_of(path: Path) -> list[dict]:
    return [row for _, row in open_source(str(path)).rows()]


def records_of(folder: Path) -> dict[str, object]:
    dataset = open_dataset(folder)
    return {r.id: r for name in SPLIT_NAMES if dataset.manifest.splits[name] for r in dataset.split(name)}


def split_folder(place: Path, numbers: range, name: str, column: str = "file_name") -> None:
    place.mkdir(parents=True)
    rows = [{column: f"pics/{number}.jpg", "sku": f"{number:04d}", "title": f"Bag {number}"} for number in numbers]
    (place / "pics").mkdir()
    for number in numbers:
        (place / "pics" / f"{number}.jpg").write_bytes(picture(number))
    if name.endswith(".csv"):
        with (place / name).open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    elif name.endswith(".jsonl"):
        (place / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), place / name)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_tables_in_split_folders_are_one_table(tmp_path, name):
    split_folder(tmp_path / "shop" / "train", range(8), name)
    split_folder(tmp_path / "shop" / "Validation", range(8, 10), name)
    split_folder(tmp_path / "shop" / "test", range(10, 12), name)
    source = open_source(str(tmp_path / "shop"))
    assert source.columns == ("file_name", "sku", "title", "source_split")
    manifest = build_dataset(tmp_path / "shop", tmp_path / "out")
    assert (manifest.rows_in, manifest.ok) == (12, 12)
    records = records_of(tmp_path / "out")
    assert {code: r.images[0] for code, r in records.items()} == {f"{n:04d}": picture(n) for n in range(12)}
    assert {r.extra["source_split"] for r in records.values()} == {"train", "Validation", "test"}
    assert records["0009"].extra["file_name"] == "Validation/pics/9.jpg"


def test_several_pictures_and_addresses_in_split_folders_keep_their_places(tmp_path):
    place = tmp_path / "train"
    place.mkdir()
    row = {"file_names": ["a.jpg", "https://shop.example/b"], "mask_file_name": "/abs/m.png", "title": "Bag"}
    (place / "metadata.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"file_names": None}) + "\n")
    first, second = rows_of(tmp_path)
    assert first["file_names"] == ["train/a.jpg", "https://shop.example/b"]
    assert (first["mask_file_name"], second["file_names"]) == ("/abs/m.png", None)


def test_a_split_folder_that_would_be_lost_is_an_error(tmp_path):
    split_folder(tmp_path / "train", range(2), "metadata.csv")
    (tmp_path / "test").mkdir()
    open_source(str(tmp_path))
    (tmp_path / "test" / "a.jpg").write_bytes(picture(1))
    with pytest.raises(DataError, match="test has pictures but no table") as caught:
        open_source(str(tmp_path))
    assert "metadata.csv" in caught.value.fix
    (tmp_path / "test" / "a.jpg").unlink()
    (tmp_path / "train" / "metadata.jsonl").write_text("{}")
    with pytest.raises(DataError, match="train has two tables"):
        open_source(str(tmp_path))
    (tmp_path / "train" / "metadata.jsonl").unlink()
    (tmp_path / "train" / "metadata.csv").write_text("path,title\na,b\n")
    with pytest.raises(DataError, match="no column file_name"):
        open_source(str(tmp_path))


def table(numbers: range):
    from datasets import ClassLabel, Dataset, Features, Value
    from datasets import Image as ImageFeature

    features = Features(
        {"image": ImageFeature(), "label": ClassLabel(names=["bags", "coats"]), "title": Value("string")}
    )
    rows = {
        "image": [{"bytes": picture(number), "path": None} for number in numbers],
        "label": [number % 2 for number in numbers],
        "title": [f"Bag {number}" for number in numbers],
    }
    return Dataset.from_dict(rows, features=features)


def expected(numbers: range) -> set:
    return {(f"Bag {number}", ("bags", "coats")[number % 2], picture(number)) for number in numbers}


def found(folder: Path) -> set:
    return {(r.title, r.category, r.images[0]) for r in records_of(folder).values()}


def test_what_save_to_disk_wrote_is_read_with_the_names_of_its_classes(tmp_path):
    table(range(10)).save_to_disk(tmp_path / "saved")
    manifest = build_dataset(tmp_path / "saved", tmp_path / "out")
    assert (manifest.ok, manifest.quarantined) == (10, 0)
    assert found(tmp_path / "out") == expected(range(10))
    assert "source_split" not in next(iter(records_of(tmp_path / "out").values())).extra


def test_all_splits_that_save_to_disk_wrote_are_read_and_named(tmp_path):
    from datasets import DatasetDict

    DatasetDict({"train": table(range(6)), "test": table(range(6, 10))}).save_to_disk(tmp_path / "saved")
    build_dataset(tmp_path / "saved", tmp_path / "out")
    assert found(tmp_path / "out") == expected(range(10))
    splits = {r.title: r.extra["source_split"] for r in records_of(tmp_path / "out").values()}
    assert {splits["Bag 5"], splits["Bag 6"]} == {"train", "test"}


def test_a_saved_data_set_that_is_damaged_is_said(tmp_path):
    table(range(3)).save_to_disk(tmp_path / "saved")
    next((tmp_path / "saved").glob("*.arrow")).write_bytes(b"")
    with pytest.raises(DataError, match="cannot load") as caught:
        open_source(str(tmp_path / "saved"))
    assert caught.value.fix


def repository(folder: Path, readme: str | None = None) -> Path:
    (folder / "data").mkdir(parents=True)
    for split, numbers in {"train-00000-of-00002": range(5), "train-00001-of-00002": range(5, 8),
                           "test-00000-of-00001": range(8, 10)}.items():  # fmt: skip
        table(numbers).to_parquet(folder / "data" / f"{split}.parquet")
    if readme:
        (folder / "README.md").write_text(readme)
    return folder


def test_a_copy_of_a_hub_repository_is_read_with_all_its_splits(tmp_path):
    repository(tmp_path / "copy")
    assert [row["title"] for row in rows_of(tmp_path / "copy")] == [f"Bag {number}" for number in range(10)]
    build_dataset(tmp_path / "copy", tmp_path / "out")
    assert found(tmp_path / "out") == expected(range(10))
    assert {r.extra["source_split"] for r in records_of(tmp_path / "out").values()} == {"train", "test"}


def test_its_readme_may_call_the_splits_otherwise(tmp_path):
    readme = (
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: autumn\n    path: data/test-*\n"
        "  - split: spring\n    path: data/train-*\n---\n"
    )
    rows = rows_of(repository(tmp_path / "copy", readme))
    assert [row["source_split"] for row in rows] == ["autumn"] * 2 + ["spring"] * 8


def test_several_configurations_are_an_error_that_names_them(tmp_path):
    configs = "- config_name: one\n  data_files: data/test-*\n- config_name: two\n  data_files: data/train-*\n"
    readme = f"---\nconfigs:\n{configs}---\n"
    with pytest.raises(DataError, match="'one', 'two'") as caught:
        open_source(str(repository(tmp_path / "copy", readme)))
    assert "Parquet file" in caught.value.fix


def test_a_parquet_file_that_is_damaged_in_the_middle_is_said_when_it_is_reached(tmp_path):
    repository(tmp_path / "copy")
    path = tmp_path / "copy" / "data" / "test-00000-of-00001.parquet"
    data = bytearray(path.read_bytes())
    data[4:200] = bytes(196)
    path.write_bytes(data)
    with pytest.raises(DataError, match="cannot read on after row 0") as caught:
        rows_of(tmp_path / "copy")
    assert "damaged" in caught.value.fix
    assert caught.value.where == "split test"


def test_another_row_is_another_source(tmp_path):
    repository(tmp_path / "copy")
    before = open_source(str(tmp_path / "copy")).sha256
    assert open_source(str(tmp_path / "copy")).sha256 == before
    table(range(8, 11)).to_parquet(tmp_path / "copy" / "data" / "test-00000-of-00001.parquet")
    assert open_source(str(tmp_path / "copy")).sha256 != before


def test_files_of_class_folders_that_are_no_pictures_are_counted_and_named(tmp_path, caplog):
    for name in ("coats/a.jpg", "bags/b.jpg", "coats/c.tiff", "bags/d.heic"):
        (tmp_path / "shop" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "shop" / name).write_bytes(picture(len(name)))
    (tmp_path / "shop" / "bags" / "d.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 64)
    for number in range(7):
        (tmp_path / "shop" / "coats" / f"{number}.txt").write_text("0 0.5 0.5 1 1")
    for name in ("README.md", "LICENSE", ".DS_Store", "bags/Makefile"):
        (tmp_path / "shop" / name).write_text("words")
    with caplog.at_level(logging.WARNING):
        manifest = build_dataset(tmp_path / "shop", tmp_path / "out", max_quarantined=0.5)
    assert (manifest.ok, manifest.quarantined_by_reason) == (3, {"unsupported_format": 1})
    said = caplog.messages[0]
    assert "8 file(s) in" in said
    assert "(7 .txt, 1 no ending): bags/Makefile, coats/0.txt, coats/1.txt, coats/2.txt, coats/3.txt, ..." in said
    (tmp_path / "shop" / "bags" / "Makefile").unlink()
    assert "7 file(s)" in open_source(str(tmp_path / "shop")).notes[0]


def test_the_command_says_so_too(tmp_path, appraiser):
    place = tmp_path / "shop" / "bags"
    place.mkdir(parents=True)
    for number in range(2):
        (place / f"{number}.jpg").write_bytes(picture(number))
    (place / "notes.txt").write_text("words")
    done = appraiser("build", tmp_path / "shop", tmp_path / "out")
    assert done.code == 0
    assert "warning: 1 file(s) in" in done.err
    assert "bags/notes.txt" in "".join(done.err.split())


def test_a_folder_of_pictures_alone_says_nothing(tmp_path, caplog):
    (tmp_path / "bags").mkdir()
    (tmp_path / "bags" / "a.jpg").write_bytes(picture(1))
    assert open_source(str(tmp_path)).notes == ()
    assert caplog.messages == []
