"""A data set in the layouts of other tools: read by these tools, and by `build` again into the same content."""

import csv
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from appraiser.data.building.build import build_dataset
from appraiser.data.dataset import SPLIT_NAMES, ProductDataset, open_dataset
from appraiser.data.exports import export as export_module
from appraiser.data.exports.cells import unescape
from appraiser.data.exports.export import export_dataset
from appraiser.data.exports.names import picture_stem
from appraiser.data.records import ProductRecord
from appraiser.errors import ConfigError, DataError, MissingDependencyError

KINDS = ("imagefolder", "webdataset", "csv")
LAYOUT_SPLITS = {"train": "train", "val": "validation", "calib": "calibration", "test": "test"}
CODES = ["P001", "NVPROD4020070V/M46354", "../../x", "CON", "nul", "a\0b", "é", "e\u0301", "a1", "A1", "x" * 4096,
         "=1+1", "C:\\x", ".", "\u202eabc"]  # fmt: skip
TITLES = ["=SUM(A1:A9)", "+44 20 7946 0000", "-5", "@cmd", "'=1", "'quoted'", "Sac à main “Été”, noir", "a\u00a0b", "-"]


def picture(number: int, kind: str = "JPEG") -> bytes:
    """A different picture for every number: a coarse random grid, so that no two look alike."""
    cells = np.random.default_rng(number).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(cells).resize((45, 36), Image.Resampling.NEAREST).save(buffer, kind)
    return buffer.getvalue()


def rows_of_a_shop(count: int = 24) -> list[dict]:
    return [
        {
            "product_code": CODES[number] if number < len(CODES) else f"P{number:03d}",
            "title": f"{TITLES[number % len(TITLES)]} {number}" if number >= len(TITLES) - 1 else TITLES[number],
            "category": ("Bags", "-- Coats", "Été")[number % 3],
            "price": (1.125, 1290, 0.01, 9_999_999_999_999.0, 109.99, 12.3456)[number % 6],
            "currency": "EUR",
            "image": f"{number}.{'png' if number % 2 else 'jpg'}",
            "weight": [1.0, 1e-7, None, -2.5][number % 4],
            "stock": [2**62, -3, None][number % 3],
            "note": ["\t=1", None, "two\nlines, \"quoted\"", "007"][number % 4],
            "file_name": f"old/{number}.jpg",
            "split": "old",
        }
        for number in range(count)
    ]  # fmt: skip


def built(folder: Path, rows: list[dict] | None = None, several: bool = False, picture=picture) -> Path:
    """A data set of a shop whose rows have whatever real ones have."""
    shop = folder / "shop"
    shop.mkdir(parents=True)
    rows = rows or rows_of_a_shop()
    for number, row in enumerate(rows):
        (shop / row["image"]).write_bytes(picture(number, "PNG" if row["image"].endswith("png") else "JPEG"))
    if several:
        images = [row.pop("image") for row in rows]
        for number, row in enumerate(rows):
            row["images"] = [images[(number + other) % len(rows)] for other in range((1, 1, 12)[number % 3])]
    (shop / "products.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (shop / "LICENSE").write_text("do as you like")
    build_dataset(shop, folder / "dataset")
    return folder / "dataset"


def records_of(dataset: ProductDataset) -> dict[str, ProductRecord]:
    return {r.id: r for name in SPLIT_NAMES if dataset.manifest.splits[name] for r in dataset.split(name)}


def content(folder: Path) -> dict[str, tuple]:
    return {
        r.id: (r.title, r.category, r.price, r.currency, r.images)
        for r in records_of(open_dataset(folder)).values()
    }  # fmt: skip


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return built(tmp_path_factory.mktemp("single"))


@pytest.fixture(scope="module")
def dataset_of_several(tmp_path_factory) -> Path:
    return built(tmp_path_factory.mktemp("several"), several=True)


def needs_library(kind: str) -> None:
    if kind == "webdataset":
        pytest.importorskip("webdataset")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("several", [False, True])
def test_what_is_exported_builds_again_into_the_same_content(request, tmp_path, kind, several):
    needs_library(kind)
    dataset = request.getfixturevalue("dataset_of_several" if several else "dataset")
    export_dataset(dataset, tmp_path / "out", kind)
    manifest = build_dataset(tmp_path / "out", tmp_path / "again", max_quarantined=0)
    assert content(tmp_path / "again") == content(dataset)
    before, after = records_of(open_dataset(dataset)), records_of(open_dataset(tmp_path / "again"))
    for name, record in before.items():
        lost = {key: value for key, value in record.extra.items() if after[name].extra[key] != value}
        # A CSV has no empty cell that differs from an empty text, and its numbers have at most 15 digits or are texts.
        assert not lost or (kind == "csv" and set(lost) <= {"note", "weight", "stock"}), lost
    own = {"source_id", "source_title", "source_category", "source_price", "source_currency", "source_group"}
    assert set(after["P001"].extra) - set(before["P001"].extra) <= own | {"source_split"}
    groups = {
        (before[a].group == before[b].group) == (after[a].group == after[b].group) for a in before for b in before
    }
    assert groups == {True}
    assert manifest.licence == "LICENSE"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("several", [False, True])
def test_datasets_opens_every_layout_with_all_four_splits(request, tmp_path, kind, several):
    from datasets import load_dataset

    needs_library(kind)
    dataset = request.getfixturevalue("dataset_of_several" if several else "dataset")
    facts = export_dataset(dataset, tmp_path / "out", kind)
    loaded = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    counts = {name: len(split) for name, split in loaded.items()}
    if kind == "csv":
        assert counts == {"train": sum(facts.splits.values())}
        assert set(loaded["train"]["split"]) == set(LAYOUT_SPLITS.values())
        return
    manifest = open_dataset(dataset).manifest
    assert counts == facts.splits == {LAYOUT_SPLITS[name]: count for name, count in manifest.splits.items()}
    records = records_of(open_dataset(dataset))
    for split in loaded.values():
        for row in split:
            values = row["json"] if kind == "webdataset" else row
            record = records[values["id"]]
            assert (values["title"], values["price"]) == (record.title, record.price)
            assert values["stock"] == record.extra["stock"]
            if kind == "imagefolder":
                pictures = row["images"] if several else [row["image"]]
            else:
                fields = sorted((name for name in row if name.endswith("jpg")), key=lambda name: (len(name), name))
                pictures = [row[name] for name in fields if row[name] is not None]
            assert len(pictures) == len(record.images)
            for shown, data in zip(pictures, record.images, strict=True):
                assert np.array_equal(np.asarray(shown), np.asarray(Image.open(io.BytesIO(data))))


def test_the_image_folder_builder_knows_three_of_the_four_folders(tmp_path, dataset):
    from datasets import load_dataset

    facts = export_dataset(dataset, tmp_path / "out", "imagefolder")
    loaded = load_dataset("imagefolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == {
        name: count for name, count in facts.splits.items() if name != "calibration"
    }
    assert "leaves that split out" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    # Without another name, `datasets` would take this column of the source for pictures.
    assert facts.renamed == {"file_name": "file_name_of_source"}
    assert loaded["train"][0]["file_name_of_source"].startswith("old/")


# The library leaves the closing of its files to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_webdataset_library_reads_the_shards(tmp_path, dataset):
    webdataset = pytest.importorskip("webdataset")
    export_dataset(dataset, tmp_path / "out", "webdataset")
    records = records_of(open_dataset(dataset))
    shards = sorted(map(str, (tmp_path / "out").glob("*.tar")))
    seen = {}
    for sample in webdataset.WebDataset(shards, shardshuffle=False).decode("pil"):
        record = records[sample["json"]["id"]]
        assert np.array_equal(np.asarray(sample["jpg"]), np.asarray(Image.open(io.BytesIO(record.images[0]))))
        assert (sample["json"]["title"], sample["json"]["note"]) == (record.title, record.extra["note"])
        seen[record.id] = sample["__key__"]
    assert seen == {name: picture_stem(name) for name in records}


def test_shards_have_a_size_no_gaps_and_whole_samples(tmp_path):
    pytest.importorskip("webdataset")
    rows = [row | {"image": f"{number}.png"} for number, row in enumerate(rows_of_a_shop(15))]
    # Noise of 480 kB each: three fill a MiB.
    dataset = built(tmp_path, rows, picture=lambda number, _: noise(number))
    out = tmp_path / "100%-out"
    facts = export_dataset(dataset, out, "webdataset", shard_mib=1)
    names = [name for name in facts.files if name.startswith("train")]
    assert names == [f"train-{number:06d}.tar" for number in range(len(names))]
    sizes = []
    for name in names:
        with tarfile.open(out / name) as shard:
            members = shard.getmembers()
        assert [member.name.partition(".")[2] for member in members] == ["json", "png"] * (len(members) // 2)
        assert [m.name.partition(".")[0] for m in members[::2]] == [m.name.partition(".")[0] for m in members[1::2]]
        assert {member.mtime for member in members} == {0}
        sizes.append(len(members) // 2)
    assert sizes[:-1] == [3] * (len(sizes) - 1)
    assert sum(sizes) == facts.splits["train"] > 6


def noise(number: int) -> bytes:
    buffer = io.BytesIO()
    values = np.random.default_rng(number).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    Image.fromarray(values).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def test_all_pictures_of_an_export_have_one_field(tmp_path):
    pytest.importorskip("webdataset")
    rows = [row | {"image": f"{number}.png"} for number, row in enumerate(rows_of_a_shop(8))]
    export_dataset(built(tmp_path, rows), tmp_path / "out", "webdataset")
    with tarfile.open(next((tmp_path / "out").glob("train-*.tar"))) as shard:
        assert {member.name.partition(".")[2] for member in shard} == {"png", "json"}


def test_the_table_is_the_cookbooks(tmp_path, dataset):
    facts = export_dataset(dataset, tmp_path / "out", "csv")
    with (tmp_path / "out" / "products.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    records = records_of(open_dataset(dataset))
    assert len(rows) == len(records)
    assert {(tmp_path / "out" / row["local_image_path"]).read_bytes() for row in rows} == {
        record.images[0] for record in records.values()
    }
    assert {row["split"] for row in rows} == {"train", "validation", "calibration", "test"}
    by_code = {unescape(row["product_code"]): row for row in rows}
    assert set(by_code) == set(CODES) | {f"P{number:03d}" for number in range(len(CODES), 24)}
    assert by_code["P001"]["local_image_path"] == "images/P001.jpg"
    assert facts.renamed == {"split": "split_of_source"}
    dangerous = [cell for row in rows for cell in row.values() if cell[:1] in tuple("=+-@\t\r") and cell]
    assert {cell for cell in dangerous} <= {"-5", "-3", "-2.5"}, "numbers are left alone, all others are marked"
    assert facts.num_escaped_cells == sum(
        cell.startswith("'") and cell != unescape(cell) for row in rows for cell in row.values()
    )
    assert facts.num_escaped_cells > 10


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_target_that_holds_something_is_refused_and_left_alone(tmp_path, dataset, kind):
    target = tmp_path / "out"
    if kind == "folder":
        target.mkdir()
        (target / "mine.txt").write_text("mine")
    else:
        target.write_text("mine")
    with pytest.raises(DataError) as caught:
        export_dataset(dataset, target, "csv")
    assert caught.value.fix
    assert (target / "mine.txt" if kind == "folder" else target).read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_a_good_target_and_parents_are_made(tmp_path, dataset):
    (tmp_path / "empty").mkdir()
    export_dataset(dataset, tmp_path / "empty", "csv")
    export_dataset(dataset, tmp_path / "a" / "b" / "c", "csv")
    assert files_in(tmp_path / "empty") == files_in(tmp_path / "a" / "b" / "c")


def test_a_full_disk_leaves_neither_an_export_nor_a_half_one(tmp_path, dataset, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_module, "write_image_folder", full)
    with pytest.raises(DataError, match="No space left") as caught:
        export_dataset(dataset, tmp_path / "out", "imagefolder")
    assert "space" in caught.value.fix
    assert list(tmp_path.iterdir()) == []


def test_two_exports_to_one_place_do_not_meet(tmp_path, dataset):
    (tmp_path / ".out.exporting").mkdir()
    with pytest.raises(DataError, match="another export") as caught:
        export_dataset(dataset, tmp_path / "out", "csv")
    assert "remove that folder" in caught.value.fix
    assert [path.name for path in tmp_path.iterdir()] == [".out.exporting"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_lost_on_the_way_is_found_by_counting_again(tmp_path, dataset, monkeypatch, kind):
    needs_library(kind)
    name = {"imagefolder": "write_image_folder", "webdataset": "write_web_dataset", "csv": "write_csv_table"}[kind]
    write = getattr(export_module, name)

    def lossy(dataset, folder, *rest):
        written = write(dataset, folder, *rest)
        lost = next(path for path in sorted(folder.rglob("*")) if path.suffix in (".jpg", ".tar"))
        lost.unlink()
        return written

    monkeypatch.setattr(export_module, name, lossy)
    with pytest.raises(DataError, match="the finished files hold"):
        export_dataset(dataset, tmp_path / "out", kind)
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_with_other_rows_than_its_manifest_counts_is_not_exported(tmp_path):
    dataset = built(tmp_path)
    manifest = json.loads((dataset / "manifest.json").read_text())
    manifest["splits"]["test"] += 1
    (dataset / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="the manifest counts"):
        export_dataset(dataset, tmp_path / "out", "csv")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_two_exports_are_equal_to_the_byte_and_carry_the_licence(tmp_path, kind):
    needs_library(kind)
    dataset = built(tmp_path)
    (dataset / "LICENSE").write_text("do as you like")
    for name in ("one", "two"):
        export_dataset(dataset, tmp_path / name, kind)
    names = files_in(tmp_path / "one")
    assert names == files_in(tmp_path / "two")
    assert "LICENSE" in names
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)
    card = (tmp_path / "one" / "README.md").read_text(encoding="utf-8")
    assert "(licence: LICENSE)" in card
    assert "Split by product group" in card, "the data set's own card comes with it"


def test_without_its_library_webdataset_names_the_extra(tmp_path, dataset, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "webdataset", None)
    with pytest.raises(MissingDependencyError, match="webdataset") as caught:
        export_dataset(dataset, tmp_path / "out", "webdataset")
    assert "appraiser[webdataset]" in caught.value.fix
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_layout_and_a_folder_that_is_no_data_set_are_said(tmp_path, dataset):
    with pytest.raises(ConfigError, match="no layout 'zip'"):
        export_dataset(dataset, tmp_path / "out", "zip")
    with pytest.raises(DataError, match=r"manifest\.json is missing"):
        export_dataset(tmp_path, tmp_path / "out", "csv")


def test_a_damaged_export_is_said_when_it_is_built(tmp_path, dataset):
    pytest.importorskip("webdataset")
    for kind, damage in (("csv", "products.csv"), ("webdataset", "train-000000.tar")):
        out = tmp_path / kind
        facts = export_dataset(dataset, out, kind)
        data = (out / damage).read_bytes()
        (out / damage).unlink()
        with pytest.raises(DataError, match=f"{damage} is missing"):
            build_dataset(out, tmp_path / "again")
        if kind == "webdataset":
            (out / damage).write_bytes(data[: len(data) // 2 - 100])
            with pytest.raises(DataError, match=r"cannot read on in train-000000\.tar"):
                build_dataset(out, tmp_path / "again")
        (out / "export.json").write_text(json.dumps(facts.model_dump(mode="json") | {"format": 99}))
        with pytest.raises(DataError, match="export format 99"):
            build_dataset(out, tmp_path / "again")
        (out / "export.json").write_text("{")
        with pytest.raises(DataError, match="is damaged"):
            build_dataset(out, tmp_path / "again")


def test_the_command_exports_says_what_it_counted_and_refuses_what_is_no_data_set(tmp_path, dataset, appraiser):
    done = appraiser("export", dataset, tmp_path / "out", "--as", "csv", "--json")
    document = json.loads(done.out)
    assert (done.code, document["num_pictures"], sum(document["splits"].values())) == (0, 24, 24)
    said = appraiser("export", dataset, tmp_path / "two", "--as", "csv", "--shard-mib", 5)
    assert "24 records with 24 pictures" in said.out
    assert f"{document['num_escaped_cells']} texts that a spreadsheet would run" in said.out
    assert "--shard-mib is for webdataset" in said.err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("")
    refused = appraiser("export", tmp_path / "run", tmp_path / "three", "--as", "csv")
    assert (refused.code, "are for data sets" in refused.err) == (2, True)
    for option in ("--adapter", "--sample-pictures"):
        refused = appraiser("export", dataset, tmp_path / "three", option)
        assert (refused.code, "are for models" in refused.err) == (2, True)
    nothing = appraiser("export", tmp_path / "absent", tmp_path / "three", "--as", "csv")
    assert (nothing.code, "nothing to export at" in nothing.err) == (3, True)
    unsaid = appraiser("export", dataset, tmp_path / "three")
    assert (unsaid.code, "--as imagefolder" in unsaid.err) == (2, True)
    assert not (tmp_path / "three").exists()
