"""Twenty pictures: the data set's own, spread over its splits, and rendered ones for what it lacks."""

import io

import numpy as np
import pytest
from PIL import Image

from appraiser.data.building.build import build_dataset
from appraiser.data.dataset import open_dataset
from appraiser.data.pictures import decode
from appraiser.data.samples.catalogue import make_catalogue
from appraiser.exporting import pictures
from appraiser.exporting.pictures import MAX_SIDE, reference_products, suffix


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    make_catalogue(root / "catalogue", 60, seed=3, size=64)
    build_dataset(root / "catalogue", root / "dataset")
    return open_dataset(root / "dataset")


def test_validation_comes_first_then_test_then_rendered_pictures(dataset):
    counts = dataset.manifest.splits
    found = reference_products(dataset)
    assert len(found) == 20
    origins = [product.origin for product in found]
    assert origins == ["val"] * counts["val"] + ["test"] * counts["test"] + ["sample"] * origins.count("sample")
    assert 0 < counts["val"] + counts["test"] < 20
    known = {record.id: record.images for name in ("val", "test") for record in dataset.split(name)}
    assert all(product.pictures == known[product.id] for product in found if product.origin != "sample")
    assert len({product.pictures for product in found}) == 20
    assert [product.images[0].mode for product in found] == ["RGB"] * 20


def test_a_few_are_spread_over_the_split(dataset):
    ids = [record.id for record in dataset.split("val")]
    assert [product.id for product in reference_products(dataset, 2)] == [ids[0], ids[-1]]


def test_without_a_data_set_the_same_pictures_are_rendered_every_time():
    one, two = reference_products(None, 3), reference_products(None, 3)
    assert one == two
    assert {product.origin for product in one} == {"sample"}
    assert len({product.pictures for product in one}) == 3


def test_large_pictures_are_scaled_down_and_small_ones_kept():
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1600, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    small = pictures._small(buffer.getvalue())
    assert decode(small).size == (MAX_SIDE, MAX_SIDE * 3 // 4)
    assert len(small) < len(buffer.getvalue()) / 3
    assert pictures._small(small[: pictures.MAX_BYTES]) == small[: pictures.MAX_BYTES]
    assert (suffix(buffer.getvalue()), suffix(small)) == (".png", ".jpg")
