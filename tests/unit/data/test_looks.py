"""Which pictures look alike: copies do, unrelated ones and empty ones do not, and a like hash is not enough."""

from dataclasses import replace

import numpy as np
from pictures import looks_with, random_hashes, scene, stored
from PIL import Image

from appraiser.data.looks import LOOK_BYTES, MIN_CORRELATION, NEAR_DUPLICATE_BITS, correlation, look_of, near_duplicates
from appraiser.data.samples.drawing import draw_scene
from appraiser.data.samples.items import item_scene, iter_products


def test_copies_that_were_encoded_again_and_slightly_resized_are_found():
    found = total = 0
    for number in range(60):
        image = scene(number)
        for quality, side in ((60, 160), (75, 152), (90, 144), (75, 168)):
            copy = stored(image.resize((side, side)), quality)
            found += len(near_duplicates(np.stack([look_of(image), look_of(copy)])))
            total += 1
    assert found / total >= 0.95, (found, total)


def test_unrelated_pictures_are_far_from_the_threshold():
    looks = np.stack([look_of(scene(number)) for number in range(200)])
    hashes = np.unpackbits(looks[:, :32], axis=1)
    distance = (hashes[:, None] != hashes[None]).sum(-1)[np.triu_indices(200, 1)]
    assert distance.min() > 4 * NEAR_DUPLICATE_BITS
    assert near_duplicates(looks) == []


def test_pictures_without_any_mark_are_not_look_alikes():
    blank = np.stack([look_of(Image.new("RGB", (50, 50), (shade,) * 3)) for shade in range(0, 250, 25)])
    assert near_duplicates(blank) == []


def test_near_duplicates_are_found_in_any_tile_closest_first():
    hashes = random_hashes(2100)
    hashes[2050] = hashes[3]
    hashes[1500] = hashes[900]
    hashes[1500, :4] ^= True
    assert near_duplicates(looks_with(hashes)) == [(3, 2050, 0), (900, 1500, 4)]
    assert near_duplicates(np.zeros((0, LOOK_BYTES), dtype=np.uint8)) == []


def test_a_like_hash_is_looked_at_again():
    looks = looks_with(np.repeat(random_hashes(1), 2, axis=0))
    assert near_duplicates(looks) == [(0, 1, 0)]
    looks[1, 32:] = np.random.default_rng(9).integers(0, 255, 768)
    assert near_duplicates(looks) == []


def test_one_scene_in_two_colours_is_alike_in_grey():
    entry = next(entry for entry in iter_products(200, 7) if entry.product.colour == "red")
    drawn = item_scene(entry, 7)
    red, navy = (look_of(draw_scene(replace(drawn, colour=colour), 224)) for colour in ("red", "navy"))
    assert correlation(red, navy) > MIN_CORRELATION
    assert correlation(red, red) > 0.9999
