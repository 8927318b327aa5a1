"""Scenes are plain data that say nothing about the price; pictures follow them."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from appraiser.data.samples.attributes import TYPES, Product, draw_product
from appraiser.data.samples.drawing import draw_scene, encode_jpeg
from appraiser.data.samples.pricing import oracle_price
from appraiser.data.samples.scenes import Scene, make_scene
from appraiser.errors import DataError

BAG = Product("tote bag", "green", "check", "leather", "regular", "zip")


def scene_of(product: Product, seed: int = 1) -> Scene:
    return make_scene(product, np.random.default_rng(seed))


def pixels(scene: Scene, size: int = 128) -> np.ndarray:
    return np.asarray(draw_scene(scene, size), dtype=np.float32)


def test_a_scene_survives_json() -> None:
    scene = scene_of(BAG)
    assert Scene.from_dict(json.loads(json.dumps(scene.as_dict()))) == scene


def test_a_scene_with_an_unknown_name_is_refused() -> None:
    with pytest.raises(DataError, match="colour missing or unknown") as caught:
        Scene.from_dict({key: value for key, value in scene_of(BAG).as_dict().items() if key != "colour"})
    assert "Scene.as_dict" in str(caught.value)


def test_the_same_scene_gives_the_same_pixels() -> None:
    assert np.array_equal(pixels(scene_of(BAG)), pixels(scene_of(BAG)))


@pytest.mark.parametrize("size", [64, 336])
def test_pictures_decode_at_their_size(size: int) -> None:
    data = encode_jpeg(draw_scene(scene_of(BAG), size), 90)
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        assert (picture.size, picture.mode, picture.format) == ((size, size), "RGB", "JPEG")
        assert not picture.getexif()


@pytest.mark.parametrize("name", TYPES)
def test_every_type_is_drawn_in_the_middle_of_a_pale_studio(name: str) -> None:
    kind = TYPES[name]
    scene = scene_of(Product(name, "navy", "plain", kind.materials[0], "regular", kind.hardware[0]))
    picture = pixels(scene)
    assert picture[:6, :6].mean() > 190
    assert picture.std() > 15


@pytest.mark.parametrize(
    "change",
    [
        {"colour": "red"},
        {"pattern": "plain"},
        {"material": "suede"},
        {"size": "mini"},
        {"hardware": "none"},
        {"type": "cap"},
    ],
)
def test_every_visible_attribute_changes_the_picture(change: dict[str, str]) -> None:
    other = replace(BAG, **change)
    difference = np.abs(pixels(scene_of(BAG)) - pixels(scene_of(other)))
    assert np.percentile(difference.max(axis=2), 99.5) > 60


def test_the_line_name_does_not_change_the_picture() -> None:
    named = replace(BAG, line_name="Frances")
    assert np.array_equal(pixels(scene_of(BAG)), pixels(scene_of(named)))


def test_a_size_can_be_told_from_the_scale_alone() -> None:
    scales = {
        size: [scene_of(replace(BAG, size=size), seed).scale for seed in range(200)]
        for size in ("mini", "regular", "oversized")
    }
    assert max(scales["mini"]) * 1.1 < min(scales["regular"])
    assert max(scales["regular"]) * 1.1 < min(scales["oversized"])


def test_what_the_photographer_adds_says_nothing_about_the_price() -> None:
    products = [draw_product(np.random.default_rng([5, seed])) for seed in range(3000)]
    scenes = [make_scene(product, np.random.default_rng([6, seed])) for seed, product in enumerate(products)]
    prices = np.log([oracle_price(product) for product in products])
    names = [
        "rotation",
        "shift_x",
        "backdrop_top",
        "backdrop_tint",
        "shadow",
        "light_x",
        "exposure",
        "noise",
        "quality",
    ]
    for name in names:
        values = np.array([getattr(scene, name) for scene in scenes], dtype=np.float64)
        assert abs(np.corrcoef(values, prices)[0, 1]) < 0.06, name
