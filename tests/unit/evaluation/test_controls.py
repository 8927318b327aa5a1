"""Wrong-picture controls never show a record its own picture where another can be had."""

from __future__ import annotations

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from appraiser.data.records import ProductRecord
from appraiser.evaluation.controls import control_predictions, derangement, without_middle


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=40), st.integers(0, 5))
def test_nobody_keeps_their_own_unless_alone(keys: list[str], seed: int) -> None:
    chosen = derangement(keys, seed)
    assert sorted(chosen) == list(range(len(keys)))
    for row, other in enumerate(chosen):
        assert keys[other] == keys[row]
        assert other != row or keys.count(keys[row]) == 1


def encoded(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (9, 9, 9)).save(buffer, "PNG")
    return buffer.getvalue()


def test_controls_take_the_answers_of_the_rows_whose_pictures_they_show():
    records = [ProductRecord(str(n), (encoded(8, 8),), "g", category="ab"[n % 2]) for n in range(10)]
    predictions = [f"answer {n}" for n in range(10)]

    def never(pictures):
        raise AssertionError("another product's picture has been answered already")

    shuffled = control_predictions("shuffled", records, predictions, never)
    assert sorted(shuffled) == sorted(predictions)
    assert all(control != own for control, own in zip(shuffled, predictions, strict=True))
    same = control_predictions("same_category", records, predictions, never)
    assert [int(text.split()[1]) % 2 for text in same] == [n % 2 for n in range(10)]


def test_white_pictures_of_one_size_are_answered_once():
    sizes = [(8, 8), (8, 12), (8, 8), (12, 8), (8, 12)]
    records = [ProductRecord(str(n), (encoded(*size),), "g") for n, size in enumerate(sizes)]
    asked = []

    def answer(pictures):
        asked.extend(pictures)
        assert all(image.getpixel((0, 0)) == (255, 255, 255) for images in asked for image in images)
        return [images[0].size for images in asked]

    assert control_predictions("blank", records, ["own"] * 5, answer) == sizes
    assert len(asked) == 3


def test_surroundings_keep_the_rim_and_nothing_of_the_middle():
    pixels = np.full((40, 60, 3), 200, dtype=np.uint8)
    pixels[0] = 0  # the rim is 4 rows and 6 columns wide
    pixels[10:30, 20:40] = (255, 0, 0)
    left = np.asarray(without_middle(Image.fromarray(pixels)))
    assert (left[:4] == pixels[:4]).all()
    assert (left[:, -6:] == pixels[:, -6:]).all()
    middle = left[4:-4, 6:-6].reshape(-1, 3)
    assert len(np.unique(middle, axis=0)) == 1
    assert len(set(middle[0].tolist())) == 1  # grey: no trace of the red
