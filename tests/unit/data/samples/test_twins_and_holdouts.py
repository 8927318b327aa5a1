"""Twins differ in one attribute, holdouts keep combinations or backgrounds apart, explanations add up."""

import csv
import math
from collections import Counter, defaultdict
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from appraiser.data.building.build import build_dataset
from appraiser.data.dataset import open_dataset
from appraiser.data.samples import pricing
from appraiser.data.samples.catalogue import explain_row, make_catalogue
from appraiser.data.samples.explain import as_text, explain_item
from appraiser.data.samples.holdouts import TEST_SHARES, split_of
from appraiser.data.samples.items import iter_products
from appraiser.data.samples.twins import ATTRIBUTES, iter_twins
from appraiser.errors import ConfigError, DataError


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_twins_differ_in_exactly_the_attribute_that_they_name():
    pairs = list(iter_twins(400, 5))
    assert Counter(twins.attribute for twins in pairs) == dict.fromkeys(ATTRIBUTES, 100)
    for twins in pairs:
        first, second = asdict(twins.first), asdict(twins.second)
        assert {name for name in first if first[name] != second[name]} == {twins.attribute}
    assert list(iter_twins(10, 5)) == pairs[:10]


def test_the_true_change_is_that_of_the_price_rule():
    for twins in iter_twins(100, 5):
        effects = [dict(pricing.explain(product)) for product in (twins.first, twins.second)]
        assert twins.log_price_change == pytest.approx(math.fsum(effects[1].values()) - math.fsum(effects[0].values()))
    large = [twins for twins in iter_twins(400, 5) if abs(twins.log_price_change) >= 0.15]
    assert len(large) > 150


def test_twins_are_drawn_in_one_session(tmp_path):
    make_catalogue(tmp_path / "shop", 4, 7, size=96, twins=12)
    pairs = rows_of(tmp_path / "shop" / "twins.csv")
    assert len(pairs) == 12
    changed = []
    for pair in pairs:
        images = [Image.open(tmp_path / "shop" / pair[name]).convert("RGB") for name in ("first_image", "second_image")]
        first, second = (np.asarray(image, dtype=float) for image in images)
        corner = np.abs(first[:6, :6] - second[:6, :6]).mean()
        assert corner < 6, pair  # the same backdrop under the same light
        changed.append(np.abs(first - second).mean() > 0.5)
    assert all(changed)


@pytest.mark.parametrize("holdout", ["combinations", "backgrounds"])
def test_test_products_are_as_many_as_said_and_variants_stay_together(holdout):
    entries = list(iter_products(6000, 2))
    splits = [split_of(entry.product, holdout) for entry in entries]
    assert splits.count("test") / 6000 == pytest.approx(TEST_SHARES[holdout], abs=0.03)
    assert 0.03 < splits.count("val") / 6000 < 0.07
    by_product = defaultdict(set)
    for entry, split in zip(entries, splits, strict=True):
        by_product[entry.product_id].add(split)
    assert all(len(found) == 1 for found in by_product.values())


def test_unseen_combinations_are_made_of_seen_attributes():
    entries = [(split_of(e.product, "combinations"), e.product) for e in iter_products(6000, 2)]
    trained = [product for split, product in entries if split == "train"]
    tested = [product for split, product in entries if split == "test"]

    def combination(product):
        return product.type, product.material, product.pattern

    assert not {combination(product) for product in trained} & {combination(product) for product in tested}
    for names in (("type", "material"), ("type", "pattern"), ("material", "pattern")):
        seen = {tuple(getattr(product, name) for name in names) for product in trained}
        missing = {tuple(getattr(product, name) for name in names) for product in tested} - seen
        assert len(missing) <= 5, missing


def test_unseen_backgrounds_look_like_no_background_in_training(tmp_path):
    make_catalogue(tmp_path / "shop", 160, 2, size=64, holdout="backgrounds")
    light = defaultdict(list)
    for row in rows_of(tmp_path / "shop" / "products.csv"):
        pixels = np.asarray(Image.open(tmp_path / "shop" / row["image"]).convert("L"), dtype=float)
        light[row["split"] == "test"].append(pixels[:4, :4].mean())
    assert len(light[True]) > 5
    assert max(light[True]) < min(light[False])


def test_the_split_column_is_followed_by_a_build_without_a_leak(tmp_path):
    make_catalogue(tmp_path / "shop", 400, 2, size=40, holdout="combinations")
    manifest = build_dataset(tmp_path / "shop", tmp_path / "out", split_by="split")
    given = Counter(row["split"] for row in rows_of(tmp_path / "shop" / "products.csv"))
    assert manifest.splits == dict(given)
    assert manifest.grouping["split_leak"] == 0
    assert open_dataset(tmp_path / "out").manifest.sample["holdout"] == "combinations"


def test_an_unknown_holdout_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="choose from combinations, backgrounds"):
        make_catalogue(tmp_path / "shop", 4, holdout="colours")


def test_an_explanation_adds_up_to_the_price_and_names_every_word():
    for entry in iter_products(200, 7):
        explanation = explain_item(entry)
        assert sum(step.dollars for step in explanation.steps) == pytest.approx(entry.price)
        assert explanation.steps[-1].price == entry.price
        words = Counter(word for step in explanation.steps for word in step.word.split())
        assert words == Counter(explanation.title.split())
        factors = math.prod(step.factor for step in explanation.steps if step.factor)
        assert explanation.steps[0].price * factors == pytest.approx(entry.price)


def test_a_catalogue_is_explained_as_it_was_drawn(tmp_path):
    make_catalogue(tmp_path / "shop", 6, 11, size=32, price_noise=0.3)
    rows = rows_of(tmp_path / "shop" / "products.csv")
    explanation = explain_row(tmp_path / "shop", 4)
    assert (explanation.title, float(explanation.price)) == (rows[4]["title"], float(rows[4]["full_price"]))
    assert explanation.title in as_text(explanation)
    with pytest.raises(DataError, match="no item 6"):
        explain_row(tmp_path / "shop", 6)


def test_a_catalogue_of_another_generator_is_not_explained(tmp_path):
    (tmp_path / "truth.json").write_text('{"rows": 5, "seed": 7, "generator_version": 1}', encoding="utf-8")
    with pytest.raises(DataError, match="version 1 of the generator drew this"):
        explain_row(tmp_path, 0)
