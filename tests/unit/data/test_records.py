"""Tables as their owners keep them: what is read, what is guessed, and what an error says about line and fix."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import shared_folder
from hypothesis import given
from hypothesis import strategies as st

from appraiser.data import records
from appraiser.data.records import FieldMap, ProductRecord, guess_fields, is_missing
from appraiser.data.samples.catalogue import COLUMNS as SAMPLE_COLUMNS
from appraiser.data.sources import open_source
from appraiser.errors import AppraiserError, ConfigError, DataError

BURBERRY = (
    "website_name", "competence_date", "country_code", "currency_code", "brand", "category1_code", "category2_code",
    "category3_code", "product_code", "title", "itemurl", "imageurl", "full_price", "price", "full_price_eur",
    "price_eur", "flg_discount",
)  # fmt: skip


def read(path: Path) -> list[tuple[int, dict]]:
    return list(open_source(str(path)).rows())


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def error_of(action) -> AppraiserError:
    with pytest.raises(AppraiserError) as caught:
        action()
    assert caught.value.fix, "every message says how to mend it"
    return caught.value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "image,title\na.jpg,Bag\nb.jpg,Red Coat\n"),
        ("a.CSV", "image,title\r\na.jpg,Bag\r\nb.jpg,Red Coat"),
        ("bom.csv", "\ufeffimage,title\na.jpg,Bag\nb.jpg,Red Coat\n"),
        ("quoted.csv", '"image","title"\n"a.jpg","Bag"\n"b.jpg","Red Coat"\n'),
        ("blank.csv", "image,title\na.jpg,Bag\n\nb.jpg,Red Coat\n\n"),
        ("pandas.csv", ",image,title\n0,a.jpg,Bag\n1,b.jpg,Red Coat\n"),
        ("a.tsv", "image\ttitle\na.jpg\tBag\nb.jpg\tRed Coat\n"),
        ("a.jsonl", '{"image": "a.jpg", "title": "Bag"}\n\n{"image": "b.jpg", "title": "Red Coat"}'),
        ("bom.jsonl", '\ufeff{"image": "a.jpg", "title": "Bag"}\r\n{"image": "b.jpg", "title": "Red Coat"}\r\n'),
    ],
)
def test_every_kind_of_text_table_gives_the_same_rows(tmp_path, name, text):
    source = open_source(str(write(tmp_path / name, text)))
    assert source.columns == ("image", "title")
    rows = [row for _, row in source.rows()]
    assert rows == [{"image": "a.jpg", "title": "Bag"}, {"image": "b.jpg", "title": "Red Coat"}]
    assert source.folder == tmp_path


def test_parquet_gives_typed_cells(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": ["a.jpg", None], "price": [12.5, None], "n": [1, 2]}), path)
    assert read(path) == [(1, {"image": "a.jpg", "price": 12.5, "n": 1}), (2, {"image": None, "price": None, "n": 2})]


def test_quoted_cells_keep_commas_quotes_and_line_breaks(tmp_path):
    path = write(tmp_path / "a.csv", 'image,title\na.jpg,"Bag, ""Lola""\nin red"\n')
    assert read(path) == [(1, {"image": "a.jpg", "title": 'Bag, "Lola"\nin red'})]


def test_a_short_row_has_missing_cells(tmp_path):
    assert read(write(tmp_path / "a.csv", "image,title,price\na.jpg\n")) == [
        (1, {"image": "a.jpg", "title": None, "price": None})
    ]


def test_a_row_with_too_many_cells_is_named_with_its_line(tmp_path):
    path = write(tmp_path / "a.csv", 'image,title\na.jpg,"Bag\nin red"\nb.jpg,Coat, red\n')
    error = error_of(lambda: read(path))
    assert error.what == "row 2 has more cells than the 2 columns"
    assert error.where == "a.csv, line 4"
    assert "double quotes" in error.fix


def test_an_unfinished_quote_is_named_with_its_row(tmp_path):
    error = error_of(lambda: read(write(tmp_path / "a.csv", 'image,title\na.jpg,Bag\nb.jpg,"Coat\n')))
    assert "after row 1" in error.what
    assert error.where == "a.csv, line 3"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
@pytest.mark.parametrize("rows_before", [0, 3, 4000])
def test_another_encoding_is_named_with_its_line(tmp_path, name, rows_before):
    good = {"a.csv": "a.jpg,Bag\n", "a.tsv": "a.jpg\tBag\n", "a.jsonl": '{"image": "a.jpg", "title": "Bag"}\n'}[name]
    head = {"a.csv": "image,title\n", "a.tsv": "image\ttitle\n", "a.jsonl": ""}[name]
    bad = good.replace("Bag", "Béret").encode("latin-1")
    path = write(tmp_path / name, (head + good * rows_before).encode() + bad + good.encode())
    error = error_of(lambda: read(path))
    assert error.where == f"{name}, line {rows_before + 1 + bool(head)}"
    assert error.what.startswith("not UTF-8: byte 0xe9")
    assert "UTF-8" in error.fix


def test_utf16_as_spreadsheets_write_it_is_named(tmp_path):
    error = error_of(lambda: read(write(tmp_path / "a.csv", "image,title\na.jpg,Bag\n".encode("utf-16"))))
    assert error.where == "a.csv, line 1"


@pytest.mark.parametrize(("name", "text"), [("a.csv", ""), ("a.csv", "\ufeff"), ("a.tsv", ""), ("a.csv", "\n\n")])
def test_an_empty_file_is_called_empty(tmp_path, name, text):
    assert "is empty" in error_of(lambda: open_source(str(write(tmp_path / name, text)))).what


def test_a_column_that_is_named_twice_is_an_error(tmp_path):
    path = write(tmp_path / "a.csv", "image,title,title\na.jpg,Bag,Coat\n")
    assert "names a column twice: 'title'" in error_of(lambda: open_source(str(path))).what


@pytest.mark.parametrize("line", ["{", "[1]", "3", '{"a": 1} {"b": 2}', "[" * 100_000])
def test_a_line_that_is_no_json_object_is_named(tmp_path, line):
    path = write(tmp_path / "a.jsonl", f'{{"image": "a.jpg"}}\n{line}\n')
    error = error_of(lambda: read(path))
    assert error.where == "a.jsonl, line 2"
    assert error.fix == "one object a line"


def test_a_damaged_parquet_file_is_a_data_error_at_once_or_when_read(tmp_path):
    path = tmp_path / "a.parquet"
    assert "no Parquet file" in error_of(lambda: open_source(str(write(path, b"PAR1 not")))).what
    pq.write_table(pa.table({"image": [f"{i}.jpg" * 40 for i in range(3000)]}), path, compression="snappy")
    data = bytearray(path.read_bytes())
    data[100:4000] = b"\xff" * 3900
    write(path, bytes(data))
    error = error_of(lambda: read(path))
    assert isinstance(error, DataError)
    assert error.where == "a.parquet"


def test_cells_longer_than_a_megabyte_are_refused_with_their_line(tmp_path):
    path = write(tmp_path / "a.csv", "image,title\na.jpg,Bag\nb.jpg," + "x" * 1_000_001 + "\n")
    assert error_of(lambda: read(path)).where == "a.csv, line 3"


def test_a_folder_is_searched_for_its_table(tmp_path):
    assert "no table in" in error_of(lambda: open_source(str(tmp_path))).what
    write(tmp_path / "labels.csv", "image,label\na.jpg,x\n")
    assert open_source(str(tmp_path)).name.endswith("labels.csv")
    write(tmp_path / "products.csv", "image,title\na.jpg,x\n")
    assert open_source(str(tmp_path)).name.endswith("products.csv")


def test_what_is_no_table_is_refused_with_the_kinds_that_are_read(tmp_path):
    assert ".jsonl" in error_of(lambda: open_source(str(tmp_path / "absent.csv"))).fix
    assert ".parquet" in error_of(lambda: open_source(str(write(tmp_path / "a.xlsx", b"PK")))).fix


def test_a_licence_beside_the_table_is_noted(tmp_path):
    path = write(tmp_path / "a.csv", "image,title\na.jpg,Bag\n")
    assert open_source(str(path)).licence is None
    write(tmp_path / "LICENSE.txt", "MIT")
    assert open_source(str(path)).licence == "LICENSE.txt"


def test_fields_of_the_burberry_tables_are_guessed():
    fields = guess_fields(BURBERRY, {}, "products.parquet")
    assert fields.columns == {
        "id": ("product_code",),
        "image": ("imageurl",),
        "title": ("title",),
        "category": ("category3_code", "category2_code", "category1_code"),
        "price": ("full_price",),
        "currency": ("currency_code",),
    }
    assert SAMPLE_COLUMNS[:-1] == BURBERRY
    assert guess_fields(SAMPLE_COLUMNS, {}, "x").columns["image"] == ("image", "imageurl")


def test_fields_of_the_real_shops_are_guessed():
    shop = open_source(str(shared_folder("real/outdoor_shop")))
    assert guess_fields(shop.columns, {}, shop.name).describe() == (
        "id=product_code, image=image, title=title, category=category, price=price, currency=currency"
    )
    clothes = open_source(str(shared_folder("real/worn_clothes")))
    assert guess_fields(clothes.columns, {}, clothes.name).describe() == "image=image, category=category"


def test_names_are_guessed_whatever_their_case():
    assert guess_fields(["Image", "TITLE", "Price"], {}, "x").describe() == "image=Image, title=TITLE, price=Price"


@pytest.mark.parametrize("missing", ["N.A.", "n.a.", "", " ", "NaN", "null", "-", "N/A", None, float("nan")])
def test_missing_categories_fall_back_from_3_to_2_to_1(missing):
    fields = guess_fields(BURBERRY, {}, "x")
    row = {"category1_code": "APPAREL", "category2_code": "COATS", "category3_code": "TRENCH"}
    assert fields.value(row, "category") == "TRENCH"
    assert fields.value(row | {"category3_code": missing}, "category") == "COATS"
    assert fields.value(row | {"category3_code": missing, "category2_code": missing}, "category") == "APPAREL"
    assert fields.value(dict.fromkeys(row, missing), "category") is None
    assert is_missing(missing)


def test_overrides_win_over_the_guess_and_an_empty_one_drops_the_field():
    fields = guess_fields(BURBERRY, {"title": ["brand"], "category": ["category1_code", "title"], "price": []}, "x")
    assert fields.columns["title"] == ("brand",)
    assert fields.columns["category"] == ("category1_code", "title")
    assert "price" not in fields.columns


def test_an_override_with_an_unknown_column_names_the_columns_there_are():
    error = error_of(lambda: guess_fields(["image", "name"], {"title": ["nam", "name"]}, "products.csv"))
    assert error.what == "products.csv has no column 'nam'"
    assert error.where == "--map title=nam|name"
    assert error.fix == "choose from its columns: image, name"


def test_an_override_of_a_field_that_does_not_exist_suggests_the_nearest():
    error = error_of(lambda: guess_fields(["image", "name"], {"titel": ["name"]}, "products.csv"))
    assert isinstance(error, ConfigError)
    assert "did you mean title?" in error.what
    assert "id, image, title, category, price, currency, group" in error.fix


def test_a_table_without_pictures_or_without_labels_says_what_to_map():
    error = error_of(lambda: guess_fields(["sku", "title"], {}, "a.csv"))
    assert "--map image=COLUMN" in error.fix
    assert "sku, title" in error.where
    error = error_of(lambda: guess_fields(["sku", "image"], {}, "a.csv"))
    assert "--map title=COLUMN" in error.fix
    assert guess_fields(["sku", "image"], {}, "a.csv", needs_labels=False).columns["image"] == ("image",)


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b c", "d"]), st.text(max_size=30)), max_size=8))
def test_what_csv_writes_is_read_back(tmp_path_factory, rows):
    names = ["a", "b c", "d"]
    path = tmp_path_factory.getbasetemp() / "property.csv"
    rows = [{name: row.get(name, "") for name in names} for row in rows]
    rows = [{name: value for name, value in row.items()} for row in rows]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    assert [row for _, row in read(path)] == rows


def test_sample_facts_beside_a_table_come_with_it(tmp_path):
    path = write(tmp_path / "products.csv", "image,title\na.jpg,Bag\n")
    write(tmp_path / "truth.csv", "item,visible_words,oracle_price\n0,Bag,12.5\n")
    write(tmp_path / "truth.json", json.dumps({"seed": 7}))
    source = open_source(str(path))
    assert source.truth == {1: {"truth_oracle_price": 12.5, "truth_visible_words": "Bag"}}
    assert source.sample == {"seed": 7}


def test_a_record_names_the_field_it_lacks():
    record = ProductRecord("k", (b"",), "g", title="Bag", extra={"material": "wool"})
    assert record.values(["title", "material"]) == {"title": "Bag", "material": "wool"}
    assert "no value for the field 'price'" in error_of(lambda: record.values(["price"])).what


def test_a_records_value_is_its_own_or_its_sources():
    record = ProductRecord("k", (b"",), "g", title="Bag", currency="EUR", extra={"material": "wool", "price": "9"})
    fields = ("title", "currency", "material", "price", "colour")
    assert [record.value(field) for field in fields] == ["Bag", "EUR", "wool", None, None]
    assert ProductRecord("k", (b"",), "g").value("material") is None


def test_a_field_map_says_itself_as_the_map_option_takes_it():
    fields = FieldMap({"title": ("name",), "category": ("c3", "c2")})
    assert fields.describe() == "title=name, category=c3|c2"
    assert set(records.GUESSES) >= set(fields.columns)
