"""Real product pictures by every road into a data set: each builds, checks, loads, and the counts add up."""

import csv
import functools
import http.server
import shutil
import threading
from collections import Counter

import datasets
import pytest
from conftest import shared_folder

from appraiser import build_dataset
from appraiser.data.checking.check import check_dataset, save_check
from appraiser.data.dataset import open_dataset
from appraiser.data.fetch import FetchPolicy


@pytest.fixture(scope="module")
def outdoor_shop():
    return shared_folder("real/outdoor_shop")


@pytest.fixture
def served(outdoor_shop):
    """HOST:PORT of a loopback server that has the shop's pictures."""
    handler = functools.partial(_Quiet, directory=str(outdoor_shop))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def save(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def assert_sound(out, num_rows):
    """Counts that add up, a check that ends, and pictures that `datasets` opens."""
    manifest = open_dataset(out).manifest
    assert manifest.rows_in == num_rows == manifest.ok + manifest.quarantined
    assert sum(manifest.splits.values()) == manifest.ok
    assert save_check(check_dataset(out), out).is_file()
    loaded = datasets.load_dataset(str(out))
    assert sum(len(split) for split in loaded.values()) == manifest.ok
    assert loaded["train"][0]["image"].mode == "RGB"
    return manifest


def test_the_outdoor_shop_is_one_data_set_by_path_by_folder_and_by_url(outdoor_shop, served, tmp_path):
    by_path = build_dataset(outdoor_shop / "products.csv", tmp_path / "path")
    by_folder = build_dataset(outdoor_shop, tmp_path / "folder")
    rows = [row | {"image": f"http://{served}/{row['image']}"} for row in rows_of(outdoor_shop / "products.csv")]
    policy = FetchPolicy(allow_private=frozenset({served}))
    by_url = build_dataset(save(tmp_path / "urls.csv", rows), tmp_path / "url", fetch=policy)
    for out in ("path", "folder", "url"):
        manifest = assert_sound(tmp_path / out, 101)
        assert manifest.ok == 101
    assert by_path.content_sha256 == by_folder.content_sha256 == by_url.content_sha256


def test_worn_clothes_build_from_class_folders(tmp_path):
    source = shared_folder("real/worn_clothes")
    rows = rows_of(source / "labels.csv")
    for number, row in enumerate(rows):
        folder = tmp_path / "classes" / row["category"]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / row["image"], folder / f"{number:04d}.jpg")
    build_dataset(tmp_path / "classes", tmp_path / "out")
    manifest = assert_sound(tmp_path / "out", len(rows))
    assert manifest.fields.keys() == {"image", "category"}
    categories = [c for name in manifest.splits for c in open_dataset(tmp_path / "out").split(name).column("category")]
    assert Counter(categories) == Counter(row["category"] for row in rows)
