"""Faults put into a catalogue: what each does to its row and its picture. That they are found:
integration/test_faults_are_found.py."""

import csv
import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from appraiser.data.pictures import decode
from appraiser.data.samples.catalogue import CatalogueSettings, make_catalogue
from appraiser.data.samples.faults import FAULT_SHARE, KINDS, Fault, fault_of, spoil_picture
from appraiser.data.samples.items import draw_item, iter_products


def faults_of(rows, seed=3):
    return {entry.item: fault_of(entry, seed, 0.12) for entry in iter_products(rows, seed)}


def test_a_fault_depends_on_seed_and_item_alone():
    many = faults_of(400)
    assert {item: fault for item, fault in many.items() if item < 50} == faults_of(50)
    assert [fault_of(entry, 3, 0.12) for entry in iter_products(20, 3, start=80)] == [many[k] for k in range(80, 100)]


def test_about_one_row_in_five_is_spoilt_and_every_kind_comes_up():
    found = Counter(fault.kind for fault in faults_of(4000).values() if fault)
    assert set(found) == set(KINDS)
    assert found.total() / 4000 == pytest.approx(FAULT_SHARE, abs=0.02)


def test_a_partner_is_an_earlier_sound_item_of_another_product():
    faults = faults_of(2000)
    partners = [(item, fault.partner) for item, fault in faults.items() if fault and fault.partner]
    assert len(partners) > 30
    products = {entry.item: entry.product_id for entry in iter_products(2000, 3)}
    for item, partner in partners:
        assert partner.item < item
        assert faults[partner.item] is None
        assert partner.product_id != products[item]


def test_without_faults_the_catalogue_is_the_same_but_for_the_spoilt_rows(tmp_path):
    for name, faults in (("sound", False), ("spoilt", True)):
        make_catalogue(tmp_path / name, 60, 3, size=48, faults=faults)
    tables = {}
    for name in ("sound", "spoilt"):
        with (tmp_path / name / "products.csv").open(encoding="utf-8", newline="") as file:
            tables[name] = list(csv.DictReader(file))
    with (tmp_path / "spoilt" / "faults.csv").open(encoding="utf-8", newline="") as file:
        spoilt = {int(row["row"]) - 1 for row in csv.DictReader(file)}
    assert spoilt
    for item, (sound, other) in enumerate(zip(tables["sound"], tables["spoilt"], strict=True)):
        if item not in spoilt:
            assert sound == other
            pictures = [(tmp_path / name / "images" / f"{item:06d}.jpg").read_bytes() for name in tables]
            assert pictures[0] == pictures[1]
    assert not (tmp_path / "sound" / "faults.csv").exists()


@pytest.mark.parametrize("kind", ["turned_by_exif", "transparent", "palette", "cmyk", "webp", "animated"])
def test_a_picture_that_is_kept_shows_what_it_showed(kind):
    picture = draw_item(next(iter_products(1, 7)), 7, 96)
    seen = np.asarray(decode(spoil_picture(picture, 90, Fault(kind, 0))), dtype=float)[8:-8, 8:-8]
    assert np.abs(seen - np.asarray(picture, dtype=float)[8:-8, 8:-8]).mean() < 8


def test_the_sixteen_bit_picture_has_sixteen_bits_and_the_animation_two_frames():
    picture = draw_item(next(iter_products(1, 7)), 7, 96)
    assert Image.open(io.BytesIO(spoil_picture(picture, 90, Fault("sixteen_bits", 0)))).mode == "I;16"
    assert Image.open(io.BytesIO(spoil_picture(picture, 90, Fault("animated", 0)))).n_frames == 2


def test_settings_are_what_workers_get(tmp_path):
    for workers in (1, 2):
        make_catalogue(tmp_path / str(workers), 70, 3, size=32, num_workers=workers, faults=True)
    for path in sorted((tmp_path / "1" / "images").iterdir()):
        assert path.read_bytes() == (tmp_path / "2" / "images" / path.name).read_bytes()
    assert CatalogueSettings(has_faults=False).fault(next(iter_products(1, 3))) is None
