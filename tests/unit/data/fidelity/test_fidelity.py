"""The comparison of a sample with its table: what is measured, what gates, and what the page may show."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from appraiser.data.fidelity.compare import MAX_ROWS, compare, thinned
from appraiser.data.fidelity.page import render_fidelity
from appraiser.data.fidelity.picture_sets import read_pictures
from appraiser.data.fidelity.plots import price_bins, word_bins
from appraiser.data.fidelity.result import Fidelity
from appraiser.data.samples.like_table import make_catalogue_like
from appraiser.data.sources import open_source
from appraiser.data.tables import ProductTable, read_table, table_fields
from appraiser.errors import DataError

WORDS = "River Stone Cloud Maple Ember Falcon Harbor Juniper Lumen Meadow".split()


def table(rows: int, seed: int, name: str = "shop.csv", shift: float = 0.0) -> ProductTable:
    """Rows of one imaginary shop; tables of other seeds are other draws from it."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(["Coats", "Bags", "Hats"], rows, p=[0.5, 0.3, 0.2])
    level = {"Coats": 6.0, "Bags": 5.0, "Hats": 3.5}
    prices = [round(float(np.exp(level[kind] + shift + rng.normal(0, 0.4)))) + 0.99 for kind in kinds]
    titles = [
        " ".join([*rng.choice(WORDS, int(rng.integers(2, 5))), f"{name[0]}{seed}-{row}"]) for row in range(rows)
    ]  # fmt: skip
    ids = tuple(f"{name}-{seed}-{row}" for row in range(rows))
    return ProductTable(name, ids, tuple(titles), tuple(map(str, kinds)), tuple(prices), "EUR", 0, 0)


def values(document: Any) -> list[Any]:
    """Every value of a JSON document."""
    if isinstance(document, dict):
        return [found for value in document.values() for found in values(value)]
    return [found for value in document for found in values(value)] if isinstance(document, list) else [document]


def page(fidelity: Fidelity) -> str:
    return render_fidelity(fidelity, {}, [], [])


def test_two_draws_from_one_shop_pass_without_a_warning() -> None:
    found = compare(table(200, 1), table(1000, 2, "sample"))
    assert found.passes
    assert found.warnings == []
    for measure in found.measures:
        if measure.by_chance is not None:
            assert measure.value > measure.by_chance - 0.08, measure.path


def test_dearer_prices_are_warned_about() -> None:
    found = compare(table(200, 1), table(1000, 2, "sample", shift=1.0))
    warned = {measure.path for measure in found.measures if measure.warns}
    assert {"columns.price.ks_complement", "pairs.category_price.contingency_similarity"} <= warned
    assert "columns.category.tv_complement" not in warned


def test_five_copied_rows_are_caught() -> None:
    real, sample = table(200, 1), table(1000, 2, "sample")
    rows = [3, 40, 41, 500, 999]
    columns = {}
    for name in ("ids", "titles", "categories", "prices"):
        column = list(getattr(sample, name))
        for number, row in enumerate(rows):
            column[row] = getattr(real, name)[10 + number]
        columns[name] = tuple(column)
    columns["titles"] = tuple(f"  {title} ".upper() if title else title for title in columns["titles"])
    found = compare(real, replace(sample, **columns))
    assert not found.passes
    assert {check.kind: len(check.hits) for check in found.leaks} == {"titles": 5, "rows": 5, "ids": 5}
    assert found.leaks[0].hits[0] == (4, 11)
    assert [warning[:4] for warning in found.warnings][:3] == ["LEAK"] * 3
    text = page(found)
    assert "row 4 is row 11 of the real table" in text
    assert not any(title and title in text for title in real.titles)


def test_a_title_alone_is_a_leak_and_a_price_alone_is_none() -> None:
    real, sample = table(100, 1), table(100, 2, "sample")
    same_price = replace(sample, prices=(real.prices[0], *sample.prices[1:]))
    assert compare(real, same_price).passes
    same_title = replace(sample, titles=(real.titles[7], *sample.titles[1:]))
    assert [check.kind for check in compare(real, same_title).leaks if check.hits] == ["titles"]


ABSENT = {
    "titles": [("titles",), ("leaks", "titles"), ("leaks", "rows"), ("columns", "title_words")],
    "categories": [("price_per_category",), ("columns", "category"), ("coverage", "category")],
    "prices": [("leaks", "rows"), ("columns", "price"), ("columns", "price_ending")],
    "ids": [("leaks", "ids")],
}


@pytest.mark.parametrize("missing", ABSENT)
def test_parts_that_cannot_be_computed_are_left_out_and_never_null(missing: str) -> None:
    real, sample = table(100, 1), table(300, 2, "sample")
    everything = compare(real, sample).to_json()
    nothing: dict[str, Any] = {missing: (None,) * 100}
    found = compare(replace(real, **nothing), sample)
    document = found.to_json()
    assert None not in values(document)
    assert not any(value != value for value in values(document))
    for *parents, name in ABSENT[missing]:
        whole, part = everything, document
        for parent in parents:
            whole, part = whole[parent], part[parent]
        assert name in whole
        assert name not in part
    assert "<h2" in page(found)


def test_every_number_says_what_it_means_and_which_way_is_good() -> None:
    document = compare(table(100, 1), table(300, 2, "sample")).to_json()
    numbers = [document["leaks"][kind] for kind in document["leaks"]]
    for group in ("quality", "columns", "pairs", "coverage", "titles", "privacy", "keys"):
        parts = list(document[group].values())
        numbers += [n for part in parts for n in ([part] if "value" in part else part.values())]
    assert len(numbers) > 25
    for number in numbers:
        assert number["meaning"].endswith(".")
        assert number["better"] in ("higher", "lower", "nearer")


def test_large_tables_are_thinned_for_distances_but_not_for_leaks() -> None:
    real, sample = table(3040, 1), table(MAX_ROWS + 500, 2, "sample")
    assert len(thinned(sample)) == MAX_ROWS
    titles = list(sample.titles)
    titles[MAX_ROWS + 499] = real.titles[0]
    found = compare(real, replace(sample, titles=tuple(titles)))
    assert found.leaks[0].hits == ((MAX_ROWS + 500, 1),)
    assert any("5,000 of the 5,500 rows of sample" in note for note in found.notes)


def test_the_page_needs_nothing_else_and_escapes_what_the_table_says() -> None:
    real, sample = table(100, 1), table(300, 2, "sample")
    evil = "<script>alert(1)</script>"
    names = {"Coats": evil, "Bags": "Bags & more", "Hats": 'Hats"'}
    real, sample = (replace(t, categories=tuple(names[c] for c in t.categories if c)) for t in (real, sample))
    text = page(compare(real, sample))
    assert evil not in text
    assert "&lt;script&gt;" in text
    assert "Bags &amp; more" in text
    assert not re.findall(r"(?:src|href)=\"(?!#|data:)", text)


def test_no_bin_of_a_plot_has_fewer_than_five_real_rows() -> None:
    rng = np.random.default_rng(0)
    real = np.exp(rng.normal(4, 1.2, 60)).tolist()
    for pairs in (price_bins(real, real), word_bins([2] * 9 + [3] * 30 + [7, 8, 11], [3])):
        count = 60 if pairs[0].real == pairs[0].sample else 42
        assert all(round(pair.real * count) >= 5 for pair in pairs)
        assert sum(pair.real for pair in pairs) == pytest.approx(1.0)
        assert sum(pair.sample for pair in pairs) == pytest.approx(1.0)


# The real shop: a table with photographs.


@pytest.fixture(scope="module")
def drawn(outdoor_shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("like") / "sample"
    make_catalogue_like(str(outdoor_shop), out, 120, size=64)
    return out


def compared(real_folder: Path, sample_folder: Path) -> Fidelity:
    sides = []
    for folder in (real_folder, sample_folder):
        source = open_source(str(folder))
        fields = table_fields(source, {})
        labels = read_table(source, fields)
        sides.append((labels, read_pictures(source, fields, len(labels))))
    (real, real_pictures), (sample, sample_pictures) = sides
    return compare(real, sample, real_pictures, sample_pictures)


def test_a_sample_of_the_real_shop_holds_nothing_of_it(outdoor_shop: Path, drawn: Path) -> None:
    document = json.loads((drawn / "fidelity.json").read_text(encoding="utf-8"))
    assert document["passes"]
    assert {kind: check["value"] for kind, check in document["leaks"].items()} == {
        "titles": 0, "rows": 0, "ids": 0, "pictures": 0, "look_alikes": 0,
    }  # fmt: skip
    assert document["quality"]["overall"]["value"] > 0.75
    assert document["coverage"]["category"]["category_coverage"]["value"] == 1.0
    assert document["privacy"]["dcr_overfitting_protection"]["value"] > 0.75
    assert None not in values(document)
    with (outdoor_shop / "products.csv").open(encoding="utf-8") as file:
        real = list(csv.DictReader(file))
    for name in ("products.csv", "truth.csv", "truth.json", "fidelity.json", "fidelity.html"):
        text = (drawn / name).read_text(encoding="utf-8").casefold()
        assert not [row["title"] for row in real if row["title"].casefold() in text], name
        assert str(outdoor_shop).casefold() not in text
    with (drawn / "products.csv").open(encoding="utf-8") as file:
        sample = list(csv.DictReader(file))
    assert {row["category3_code"] for row in sample} <= {row["category"] for row in real}
    assert {row["currency_code"] for row in sample} == {"USD"}
    assert len(sample[0]) == 18


def test_five_real_rows_and_pictures_put_into_the_sample_are_caught(
    outdoor_shop: Path, drawn: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(drawn, folder)
    with (outdoor_shop / "products.csv").open(encoding="utf-8") as file:
        real = list(csv.DictReader(file))
    with (folder / "products.csv").open(encoding="utf-8") as file:
        sample = list(csv.DictReader(file))
    for row, source in zip(sample[10:15], real[50:55], strict=True):
        row |= {"title": source["title"], "full_price": source["price"], "product_code": source["product_code"]}
        photo = (outdoor_shop / source["image"]).read_bytes()
        if row is not sample[10]:  # the first byte for byte, the others saved again at half the size
            with Image.open(io.BytesIO(photo)) as picture:
                small = picture.convert("RGB").resize((picture.width // 2, picture.height // 2))
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=70)
            photo = buffer.getvalue()
        (folder / row["image"]).write_bytes(photo)
    with (folder / "products.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(sample[0]))
        writer.writeheader()
        writer.writerows(sample)
    found = compared(outdoor_shop, folder)
    rows = {check.kind: {row for row, _ in check.hits} for check in found.leaks}
    assert rows == {
        "titles": {11, 12, 13, 14, 15}, "rows": {11, 12, 13, 14, 15}, "ids": {11, 12, 13, 14, 15},
        "pictures": {11}, "look_alikes": {11, 12, 13, 14, 15},
    }  # fmt: skip
    assert not found.passes


def test_the_command_says_what_is_drawn_as_what(
    outdoor_shop: Path, tmp_path: Path, appraiser: Callable[..., Any]
) -> None:
    done = appraiser("sample", tmp_path / "s", "--rows", 40, "--size", 64, "--like", outdoor_shop)
    assert done.code == 0, done.err
    assert "Jackets: jacket (its name says jacket)" in done.out
    assert "Climbing: belt (the nearest to what its titles say: harness)" in done.out
    assert "0 of 40 titles, 0 of 40 rows, 0 of 40 ids, 0 of 40 pictures, 0 of 40 look alikes" in done.out
    assert f"Page: {tmp_path / 's' / 'fidelity.html'}" in done.out


# Commands on small tables.


def small_table(path: Path, name: str = "Coat", price: str = "1{number},99") -> Path:
    lines = ["article,kind,cost"]
    lines += [f'Thing {number},{name},"{price.format(number=number)}"' for number in range(30)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_columns_and_the_way_prices_are_written_can_be_named(tmp_path: Path, appraiser: Callable[..., Any]) -> None:
    shop = small_table(tmp_path / "shop.csv", name="Sofa")
    maps = [part for pair in ("title=article", "category=kind", "price=cost") for part in ("--map", pair)]
    done = appraiser("sample", tmp_path / "s", "--rows", 8, "--size", 64, "--like", shop, *maps, "--price-locale", "de")
    assert done.code == 0, done.err
    assert "Sofa: umbrella (CANNOT BE DRAWN: nothing here looks like it, this is a stand-in)" in done.out
    facts = json.loads((tmp_path / "s" / "truth.json").read_text(encoding="utf-8"))["like"]
    assert facts["source"] == "shop.csv"
    assert facts["price_endings_in_cents"][0][1] % 100 == 99
    assert "note" not in done.err.lower()


def test_prices_that_cannot_be_read_are_an_error_that_names_the_option(
    tmp_path: Path, appraiser: Callable[..., Any]
) -> None:
    shop = small_table(tmp_path / "shop.csv")
    maps = [part for pair in ("title=article", "category=kind", "price=cost") for part in ("--map", pair)]
    done = appraiser("sample", tmp_path / "s", "--rows", 8, "--like", shop, *maps)
    assert done.code == 3
    assert "none of the 30 prices of shop.csv can be read" in done.err
    assert "--price-locale" in done.err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--like", "shop.csv", "--faults"), "--like does not go with"),
        (("--map", "title=name"), "say how to read the table of --like"),
        (("--like", "nowhere.csv"), "no table at nowhere.csv"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: tuple[str, ...], message: str, tmp_path: Path, appraiser: Callable[..., Any]
) -> None:
    done = appraiser("sample", tmp_path / "s", *options)
    assert done.code in (2, 3)
    assert message in done.err


def test_a_leak_makes_the_command_fail_and_leaves_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from appraiser.data.samples import like_table

    def leaking(*arguments: Any, **options: Any) -> Fidelity:
        real, sample, *others = arguments
        return compare(real, replace(sample, titles=(real.titles[0], *sample.titles[1:])), *others, **options)

    monkeypatch.setattr(like_table, "compare", leaking)
    shop = tmp_path / "shop.csv"
    shop.write_text("title,price\n" + "\n".join(f"Thing {n},{n + 10}" for n in range(30)), encoding="utf-8")
    with pytest.raises(DataError, match=r"holds something of shop\.csv") as caught:
        make_catalogue_like(str(shop), tmp_path / "s", 8, size=32)
    assert "do not hand this sample on" in str(caught.value)
    assert (tmp_path / "s" / "fidelity.html").is_file()
