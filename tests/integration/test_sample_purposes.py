"""What sample data is for, a test per purpose: structure, scale, analysis, security. Testing (faults) and learning
(explanations) have their own files."""

import csv
import itertools
import math
from collections import Counter

import datasets
import numpy as np
import pytest
from PIL import Image

from appraiser import build_dataset, make_catalogue
from appraiser.data.checking.check import check_dataset
from appraiser.data.samples.attributes import TYPES
from appraiser.data.samples.items import iter_products
from appraiser.data.samples.pricing import oracle_price
from appraiser.data.samples.titles import make_title

BRANDS = ("burberry", "gucci", "chanel", "vuitton", "prada", "nike", "adidas", "hermes", "dior", "armani", "versace")


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    out = tmp_path_factory.mktemp("purposes") / "catalogue"
    make_catalogue(out, 1000, 7, size=112, num_workers=2)
    return out


def test_prototyping_the_table_has_the_columns_and_types_of_the_real_one(catalogue):
    table = datasets.load_dataset("csv", data_files=str(catalogue / "products.csv"), split="train")
    whole, number = {"product_code", "flg_discount"}, {"full_price", "price", "full_price_eur", "price_eur"}
    assert len(table.column_names) == 18
    for name, feature in table.features.items():
        kind = "int64" if name in whole else "float64" if name in number else "string"
        assert feature.dtype.replace("large_", "") == kind, name


def test_scale_items_are_a_stream_that_can_be_entered_anywhere():
    far = list(itertools.islice(iter_products(600_000, 7), 8))
    assert far == list(iter_products(8, 7))
    last = list(iter_products(2, 7, start=599_998))
    assert [entry.item for entry in last] == [599_998, 599_999]


def test_analysis_prices_depend_on_what_is_seen_and_spread_like_a_shops(catalogue):
    entries = list(iter_products(4000, 7))
    logs = np.log([entry.price for entry in entries])
    kinds = [entry.product.type for entry in entries]
    within = sum(np.var(logs[[k == kind for k in kinds]]) * kinds.count(kind) for kind in TYPES) / len(logs)
    assert 0.5 < 1 - within / np.var(logs) < 0.9  # eta squared of the type
    residual = logs - np.log([oracle_price(entry.product) for entry in entries])
    assert 0.10 < residual.std() < 0.14
    assert max(entry.price for entry in entries) / min(entry.price for entry in entries) > 50
    assert all(entry.price % 10 == 0 for entry in entries)
    assert all(8 <= len(make_title(entry.product)) <= 71 for entry in entries)
    pairs = Counter((entry.product.type, entry.product.material) for entry in entries)
    assert _cramers_v(pairs) > 0.4


def _cramers_v(pairs):
    rows, columns = sorted({a for a, _ in pairs}), sorted({b for _, b in pairs})
    table = np.array([[pairs[a, b] for b in columns] for a in rows], dtype=float)
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    chi = ((table - expected) ** 2 / expected).sum()
    return math.sqrt(chi / table.sum() / (min(table.shape) - 1))


def test_security_neither_brands_nor_labels_hide_in_the_files(catalogue):
    with (catalogue / "products.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    text = (catalogue / "products.csv").read_text(encoding="utf-8").lower()
    assert not [brand for brand in BRANDS if brand in text]
    for number, row in enumerate(rows):
        assert row["image"] == f"images/{number:06d}.jpg"
    for row in rows[:50]:
        with Image.open(catalogue / row["image"]) as picture:
            assert not picture.getexif()
            assert set(picture.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


@pytest.mark.slow
def test_nothing_but_the_product_tells_the_price(catalogue, tmp_path):
    build_dataset(catalogue, tmp_path / "out")
    skills = {(p.source, p.label): p.skill for p in check_dataset(tmp_path / "out", num_workers=2).probes}
    assert skills["background", "price"] <= 0.02
    assert skills["file", "price"] <= 0.05
