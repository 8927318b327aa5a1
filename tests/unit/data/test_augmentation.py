"""Augmented training pictures: a pure function of where they are drawn, and never larger or smaller."""

from __future__ import annotations

import numpy as np
from PIL import Image

from appraiser.data.augmentation import Augmentation


def picture(width: int = 20, height: int = 10) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


def test_a_draw_depends_on_seed_epoch_and_position_alone() -> None:
    augment = Augmentation(mirror=True, shift=0.3, seed=5)
    draws = {(epoch, position): augment([picture()], epoch, position)[0] for epoch in range(4) for position in range(4)}
    for (epoch, position), drawn in draws.items():
        assert Augmentation(True, 0.3, 5)([picture()], epoch, position)[0].tobytes() == drawn.tobytes()
    assert len({drawn.tobytes() for drawn in draws.values()}) > 12
    assert Augmentation(True, 0.3, 6)([picture()], 0, 0)[0].tobytes() != draws[0, 0].tobytes()


def test_half_of_the_draws_are_mirrored_and_the_others_untouched() -> None:
    image = picture()
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    augment = Augmentation(mirror=True)
    found = [augment([image], epoch, 0)[0].tobytes() for epoch in range(200)]
    assert set(found) == {image.tobytes(), mirrored.tobytes()}
    assert 70 < found.count(mirrored.tobytes()) < 130


def test_pictures_of_one_record_are_mirrored_together() -> None:
    one, other = picture(), picture(8, 8)
    augment = Augmentation(mirror=True)
    for epoch in range(20):
        first, second = augment([one, other], epoch, 3)
        assert (first.tobytes() == one.tobytes()) == (second.tobytes() == other.tobytes())


def test_a_shift_keeps_the_size_repeats_the_border_and_stays_within_its_share() -> None:
    image = picture(40, 20)
    pixels = np.asarray(image)
    seen = set()
    for epoch in range(300):
        moved = np.asarray(Augmentation(shift=0.1)([image], epoch, 0)[0])
        assert moved.shape == pixels.shape
        right, down = next(
            (right, down)
            for right in range(-4, 5)
            for down in range(-2, 3)
            if np.array_equal(
                moved, pixels[np.clip(np.arange(20) - down, 0, 19)][:, np.clip(np.arange(40) - right, 0, 39)]
            )
        )
        seen.add((right, down))
    assert {right for right, _ in seen} == set(range(-4, 5))
    assert {down for _, down in seen} == set(range(-2, 3))


def test_without_settings_nothing_changes() -> None:
    assert not Augmentation().changes_anything
    assert Augmentation()([picture()], 1, 2)[0].tobytes() == picture().tobytes()
