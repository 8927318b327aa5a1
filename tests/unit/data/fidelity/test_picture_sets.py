"""Distances between pictures, on hashes that can be checked by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pictures import looks_with
from shops import jpeg, save, shop

from appraiser.data.fidelity import picture_sets
from appraiser.data.fidelity.picture_sets import PictureSet, near_copies, read_pictures
from appraiser.data.sources import open_source
from appraiser.data.tables import table_fields

hash_sets = st.integers(2, 12).flatmap(lambda count: arrays(np.bool_, (count, 256)))


def picture_set(hashes: np.ndarray) -> PictureSet:
    return PictureSet(tuple(range(len(hashes))), looks_with(hashes), tuple(map(str, range(len(hashes)))), 0, 0, 0, 0)


def test_distances_of_three_hashes() -> None:
    hashes = np.zeros((3, 256), dtype=np.bool_)
    hashes[1, :10] = True
    hashes[2, :40] = True
    assert picture_sets.mean_distance(hashes) == pytest.approx((10 + 40 + 30) / 3)
    assert picture_sets.share_alike(hashes) == pytest.approx(1 / 3)
    assert picture_sets.nearest(hashes, hashes, is_same=True).tolist() == [10, 10, 30]
    assert picture_sets.nearest(hashes[2:], hashes[:2]).tolist() == [30]


@given(hash_sets)
def test_the_short_ways_agree_with_all_pairs_one_by_one(hashes: np.ndarray) -> None:
    pairs = [int((a != b).sum()) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert picture_sets.mean_distance(hashes) == pytest.approx(np.mean(pairs))
    assert picture_sets.share_alike(hashes) == pytest.approx(
        np.mean([pair <= picture_sets.ALIKE_BITS for pair in pairs])
    )
    assert picture_sets.nearest(hashes, hashes).tolist() == [0] * len(hashes)


def test_a_copy_is_found_by_its_look_and_blank_pictures_are_no_copies() -> None:
    rng = np.random.default_rng(0)
    real = rng.random((4, 256)) < 0.5
    sample = rng.random((3, 256)) < 0.5
    sample[1] = real[2]
    sample[1, :6] ^= True
    assert near_copies(picture_set(sample), picture_set(real)) == [(1, 2)]
    blank = np.zeros((2, 256), dtype=np.bool_)
    assert near_copies(picture_set(blank), picture_set(blank)) == []


def test_pictures_that_cannot_be_looked_at_are_counted(tmp_path: Path) -> None:
    rows = shop(tmp_path, 6)
    rows[1]["image"] = "https://shop.example/1.jpg"
    rows[2]["image"] = "gone.jpg"
    rows[3]["image"] = ""
    (tmp_path / "4.jpg").write_bytes(jpeg(4)[:200])
    source = open_source(str(save(tmp_path, rows)))
    seen: list[int] = []
    found = read_pictures(source, table_fields(source, {}), len(rows), seen.append)
    assert found.rows == (0, 5)
    assert (found.looks.shape, found.hashes.shape) == ((2, 800), (2, 256))
    assert (found.num_urls, found.num_missing, found.num_unreadable, found.num_left_out) == (1, 2, 1, 0)
    assert seen == [1, 2, 3, 4, 5, 6]


def test_of_too_many_pictures_evenly_chosen_ones_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_sets, "MAX_PICTURES", 4)
    source = open_source(str(save(tmp_path, shop(tmp_path, 10))))
    found = read_pictures(source, table_fields(source, {}), 10)
    assert (found.rows, found.num_left_out) == ((0, 3, 6, 9), 6)
