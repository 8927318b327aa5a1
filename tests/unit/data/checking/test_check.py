"""Measures, issues and shortcuts of a data set, one fault at a time."""

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from shops import error_of, jpeg, save, shop

from appraiser.data.building.build import build_dataset
from appraiser.data.checking.check import check_dataset, save_check
from appraiser.data.checking.measures import measure
from appraiser.data.checking.probes import skill_of
from appraiser.data.looks import difference, look_of


def product(colour=(120, 40, 30), ground=(255, 255, 255), side=300, *, shade=1.0):
    """A disc with a pattern on even ground."""
    image = Image.new("RGB", (side, side), ground)
    pen = ImageDraw.Draw(image)
    pen.ellipse((side // 4, side // 4, 3 * side // 4, 3 * side // 4), fill=colour)
    for step in range(side // 4, 3 * side // 4, 12):
        pen.line((side // 3, step, 2 * side // 3, step), fill=(240, 240, 200), width=3)
    return Image.eval(image, lambda value: int(value * shade))


def encoded(image, form="JPEG", **settings):
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()


def checked(folder, rows, **settings):
    build_dataset(save(folder, rows), folder / "out", **settings)
    return check_dataset(folder / "out")


def found(result):
    return {(entry["kind"], tuple(entry["ids"])) for entry in result.as_json()["found"]}


def large_shop(folder, rows=20, **changed):
    """A shop with pictures that are large enough not to be an issue."""
    table = shop(folder, rows, **changed)
    for number in range(rows):
        (folder / f"{number}.jpg").write_bytes(jpeg(number, 200))
    return table


def test_a_sound_data_set_has_no_issue(tmp_path):
    result = checked(tmp_path, large_shop(tmp_path))
    assert result.issues == []
    assert len(result.findings) == 20


def test_five_pictures_are_enough(tmp_path):
    result = checked(tmp_path, large_shop(tmp_path, 5), shares={"train": 3, "test": 1})
    assert len(result.findings) == 5
    assert result.profile["prices"]["min"] == 10
    page = save_check(result, tmp_path / "page").read_text(encoding="utf-8")
    assert '<h2>products</h2><p class="big">5</p>' in page


@pytest.mark.parametrize(
    ("kind", "image"),
    [
        ("small_picture", product(side=90)),
        ("odd_shape", product().resize((700, 200))),
        ("blank_picture", Image.new("RGB", (300, 300), (200, 210, 220))),
        ("dark_picture", product(shade=0.2)),
        ("blurred_picture", product().filter(ImageFilter.GaussianBlur(8))),
    ],
)
def test_a_bad_picture_is_named_by_its_fault_alone(tmp_path, kind, image):
    rows = large_shop(tmp_path)
    (tmp_path / "3.jpg").write_bytes(encoded(image))
    assert found(checked(tmp_path, rows)) == {(kind, ("P003",))}


@pytest.mark.parametrize("ground", [(255, 255, 255), (90, 90, 90), (10, 10, 10)])
def test_neither_white_nor_dark_paper_is_an_issue(ground):
    measured = measure(encoded(product(colour=(230, 220, 210), ground=ground)))
    assert measured.light > 0.8
    assert measured.blur < 0.5
    assert 0.1 < measured.product < 0.5


def test_one_picture_for_two_products_is_a_conflict_and_for_one_a_repetition(tmp_path):
    rows = large_shop(tmp_path, title={4: "Hat", 5: "Bag", 7: "Scarf", 9: "Scarf"}, price={7: "9", 9: "9"})
    for number, owner in ((4, 5), (7, 9)):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(owner, 200))
    assert found(checked(tmp_path, rows)) == {("label_conflict", ("P004", "P005")), ("same_picture", ("P007", "P009"))}


def test_a_picture_saved_again_is_a_near_duplicate_and_a_variant_in_another_colour_is_none(tmp_path):
    rows = large_shop(tmp_path, title={4: "Red Scarf", 5: "Blue Scarf"})
    (tmp_path / "2.jpg").write_bytes(encoded(product()))
    (tmp_path / "3.jpg").write_bytes(encoded(product().resize((270, 270)), quality=60))
    (tmp_path / "4.jpg").write_bytes(encoded(product((200, 0, 0), side=280)))
    (tmp_path / "5.jpg").write_bytes(encoded(product((0, 0, 200), side=280)))
    assert found(checked(tmp_path, rows)) == {("near_duplicate", ("P002", "P003"))}


def test_prices_in_several_currencies_are_said(tmp_path, appraiser):
    rows = large_shop(tmp_path, currency=dict.fromkeys(range(6), "JPY"), price=dict.fromkeys(range(6), "2400"))
    result = checked(tmp_path, rows, several_currencies=True)
    assert "price_outlier" not in result.counts
    assert result.as_json()["currencies"] == {"EUR": 14, "JPY": 6}
    said = "rices are in 2 currencies (14 EUR, 6 JPY)"
    assert f"P{said}" in save_check(result, tmp_path / "page").read_text(encoding="utf-8")
    assert f"warning: p{said}" in appraiser("check", tmp_path / "out", "--workers", 1).out
    euros = checked(tmp_path / "euros", large_shop(tmp_path / "euros"))
    assert euros.mixed_prices is None
    assert "currencies" not in save_check(euros, tmp_path / "page").read_text(encoding="utf-8")


def test_one_picture_with_equal_numbers_in_two_currencies_is_a_conflict(tmp_path):
    rows = large_shop(tmp_path, image={3: "2.jpg"}, title={3: "Article 2"}, category={3: "Bags"}, price={3: "12"})
    rows[3]["currency"] = "USD"
    result = checked(tmp_path, rows, several_currencies=True)
    assert ("label_conflict", ("P002", "P003")) in found(result)


def test_pictures_in_training_and_test_are_a_leak(tmp_path):
    rows = [row | {"split": "test" if n == 4 else "train"} for n, row in enumerate(large_shop(tmp_path))]
    (tmp_path / "4.jpg").write_bytes(jpeg(5, 200))
    result = checked(tmp_path, rows, split_by="split")
    assert ("split_leak", ("P004", "P005")) in {(kind, tuple(sorted(ids))) for kind, ids in found(result)}


def test_titles_with_control_tokens_and_endless_ones_are_named(tmp_path):
    rows = large_shop(tmp_path, title={2: "Coat <|image_1|>", 3: "Warm " * 200, 4: "A < B | C > D"})
    assert found(checked(tmp_path, rows)) == {("special_token", ("P002",)), ("long_answer", ("P003",))}


def test_the_picture_of_a_product_with_several_is_named_by_its_number(tmp_path):
    rows = [row | {"images": [row["image"], f"{n}b.jpg"]} for n, row in enumerate(large_shop(tmp_path))]
    for number, row in enumerate(rows):
        del row["image"]
        (tmp_path / f"{number}b.jpg").write_bytes(jpeg(100 + number, 200))
    (tmp_path / "6b.jpg").write_bytes(encoded(product(shade=0.2)))
    build_dataset(save(tmp_path, rows, "products.jsonl"), tmp_path / "out")
    (entry,) = check_dataset(tmp_path / "out").as_json()["found"]
    assert entry == {"kind": "dark_picture", "ids": ["P006"], "picture": 2, "detail": entry["detail"]}


def test_workers_find_what_one_process_finds(tmp_path):
    rows = large_shop(tmp_path, 220)
    (tmp_path / "3.jpg").write_bytes(encoded(product(shade=0.2)))
    build_dataset(save(tmp_path, rows), tmp_path / "out")
    alone, together = (check_dataset(tmp_path / "out", num_workers=n).as_json() for n in (1, 2))
    assert alone == together
    assert alone["issues"] == {"dark_picture": 1}


def test_labels_that_the_background_gives_away_are_named(tmp_path):
    rows = large_shop(tmp_path, 200, price={n: str(100 + 900 * (n % 3 == 0)) for n in range(200)})
    for number in range(200):
        tint = 225 if number % 3 == 0 else 250
        (tmp_path / f"{number}.jpg").write_bytes(encoded(product(ground=(tint, tint, tint), side=200 + number)))
    result = checked(tmp_path, rows, keep_placeholders=True)
    skills = {(probe.source, probe.label): probe for probe in result.probes}
    assert skills["background", "price"].skill > 0.9
    assert skills["background", "price"].warns
    assert not skills["background", "category"].warns
    page = save_check(result, tmp_path / "page").read_text(encoding="utf-8")
    assert "The price can be guessed from the background" in page


def test_noise_tells_nothing_about_labels():
    rng = np.random.default_rng(0)
    groups = [str(number) for number in range(400)]
    features = rng.normal(size=(400, 16)).astype(np.float32)
    assert skill_of(features, list(np.exp(rng.normal(size=400))), groups, 0) < 0.05
    assert skill_of(features, [("a", "b", "c")[k] for k in rng.integers(0, 3, 400)], groups, 0) < 0.1


def test_even_light_does_not_make_two_pictures_differ():
    first, second = look_of(product()), look_of(product(ground=(235, 235, 235), colour=(100, 20, 10)))
    assert difference(first, first) == 0
    assert difference(first, second) < 0.05
    assert difference(first, look_of(product((10, 160, 40)))) > 0.3


def test_the_page_needs_nothing_else_and_what_comes_from_data_is_text(tmp_path):
    rows = large_shop(tmp_path, title={2: "<script>alert(1)</script>", 3: '"><img src=x onerror=alert(1)>'})
    (tmp_path / "2.jpg").write_bytes(encoded(product(shade=0.2)))
    (tmp_path / "3.jpg").write_bytes(encoded(product(shade=0.15, side=310)))
    result = checked(tmp_path, rows)
    page = save_check(result, tmp_path / "page").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert "default-src 'none'" in page
    document = json.loads((tmp_path / "page" / "check.json").read_text(encoding="utf-8"))
    assert document["issues"] == result.counts == {"dark_picture": 2}


def test_a_folder_without_a_data_set_is_an_error(tmp_path):
    assert "manifest.json is missing" in error_of(lambda: check_dataset(tmp_path)).what
