"""Patterns and materials: bold, distinct, repeatable."""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import pytest
from PIL import Image

from appraiser.data.samples.fields import Plane
from appraiser.data.samples.textures import COLOURS, MATERIALS, METALS, PATTERNS, PERIODS, accents, paint

RED, CREAM = COLOURS["red"], (243, 236, 220)


def square(size: int = 160) -> Plane:
    mask = np.zeros((size, size), dtype=np.float32)
    mask[16:-16, 24:-24] = 1.0
    return mask


def painted(pattern: str, material: str, seed: int = 1) -> Plane:
    return paint(square(), pattern, material, (RED,), np.random.default_rng(seed))


def test_paint_keeps_the_signature_others_build_on() -> None:
    parameters = inspect.signature(paint).parameters
    assert list(parameters)[:6] == ["mask", "pattern", "material", "colours", "rng", "scale"]
    assert parameters["scale"].default == 1.0


def test_there_are_at_least_eight_patterns_and_eight_materials_and_twelve_colours() -> None:
    assert len(PATTERNS) >= 8
    assert len(set(MATERIALS) - set(METALS)) >= 8
    assert len(COLOURS) >= 12
    assert all(name == name.lower() for name in (*PATTERNS, *MATERIALS, *COLOURS))


@pytest.mark.parametrize("material", MATERIALS)
def test_every_pattern_is_painted_in_range_with_every_material(material: str) -> None:
    for pattern in PATTERNS:
        picture = painted(pattern, material)
        assert picture.shape == (160, 160, 3)
        assert picture.dtype == np.float32
        assert picture.min() >= 0.0
        assert picture.max() <= 1.0


def test_paint_accepts_a_bool_mask_and_an_empty_one() -> None:
    rng = np.random.default_rng(0)
    assert paint(square() > 0.5, "check", "wool", (RED, CREAM), rng).max() > 0.2
    assert paint(np.zeros((40, 40), dtype=bool), "check", "wool", (RED,), rng).max() == 0.0


def test_same_stream_paints_the_same_picture() -> None:
    assert np.array_equal(painted("argyle", "silk", 3), painted("argyle", "silk", 3))
    assert not np.array_equal(painted("argyle", "silk", 3), painted("argyle", "silk", 4))


def test_every_repeat_is_at_least_seven_percent_of_the_object() -> None:
    assert min(min(period) for name, period in PERIODS.items() if name != "plain") >= 0.07


def contrast_at_128(pattern: str, material: str) -> float:
    """Spread of brightness inside the shape once the picture has the size a small model sees."""
    picture = Image.fromarray(
        (paint(np.ones((336, 336), bool), pattern, material, (RED,), np.random.default_rng(2)) * 255).astype(np.uint8)
    )
    small = np.asarray(picture.resize((128, 128), Image.Resampling.BILINEAR), dtype=np.float32)[32:96, 32:96]
    return float(small.mean(axis=2).std())


@pytest.mark.parametrize("pattern", [name for name in PATTERNS if name != "plain"])
def test_patterns_survive_shrinking_to_128_pixels(pattern: str) -> None:
    assert contrast_at_128(pattern, "cotton") > 3 * contrast_at_128("plain", "cotton")


def test_any_two_colours_are_well_apart() -> None:
    for one, other in itertools.combinations(COLOURS.values(), 2):
        assert np.linalg.norm(np.subtract(one, other)) > 50


def test_pattern_colours_contrast_with_the_main_colour() -> None:
    for colour in COLOURS.values():
        assert abs(sum(accents(colour)[0]) - sum(colour)) > 150
