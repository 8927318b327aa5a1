"""What a build puts right, flags, leaves out or lets a person correct, each with its count."""

import pytest
from shops import error_of, jpeg, records_of, save, shop

from appraiser.data.building.build import build_dataset
from appraiser.data.cleaning import MIN_PRICES, PLACEHOLDER_LABELS, price_outliers
from appraiser.data.corrections import read_corrections
from appraiser.data.dataset import open_dataset
from appraiser.data.fetch import Fetched, Fetcher


def corrections(folder, *lines, header="id,action,title,category,price"):
    path = folder / "corrections.csv"
    path.write_text("\n".join((header, *lines)) + "\n", encoding="utf-8")
    return path


def test_a_picture_that_stands_for_many_products_is_left_out_with_all_its_rows(tmp_path):
    rows = shop(tmp_path, 30)
    for number in range(PLACEHOLDER_LABELS):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(99))
    source = save(tmp_path, rows)
    manifest = build_dataset(source, tmp_path / "out", max_quarantined=0.5)
    assert manifest.quarantined_by_reason == {"placeholder": PLACEHOLDER_LABELS}
    assert manifest.rows_in == manifest.ok + manifest.quarantined == 30
    kept = build_dataset(source, tmp_path / "all", keep_placeholders=True)
    assert kept.ok == 30


@pytest.mark.parametrize(
    ("way", "left_out"),
    [
        ("corrections", {"dropped": 1, "missing_file": 1}),
        ("missing_file", {}),
        ("placeholder", {"missing_file": 1}),
    ],
)
def test_placeholders_that_shall_be_kept_now_come_back_where_a_data_set_is_replaced(tmp_path, way, left_out):
    rows = shop(tmp_path, 30, image={20: "later.jpg"})
    for number in range(PLACEHOLDER_LABELS):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(99))
    source = save(tmp_path, rows)
    first = build_dataset(source, tmp_path / "out", max_quarantined=0.5)
    assert first.quarantined_by_reason == {"missing_file": 1, "placeholder": PLACEHOLDER_LABELS}
    (tmp_path / "later.jpg").write_bytes(jpeg(20))
    again = {"corrections": corrections(tmp_path, "P029,drop,,,")} if way == "corrections" else {"retry": [way]}
    manifest = build_dataset(source, tmp_path / "out", keep_placeholders=True, max_quarantined=0.5, **again)
    assert manifest.quarantined_by_reason == left_out
    assert "P000" in records_of(tmp_path / "out")


def test_a_refused_build_does_not_keep_placeholders_out_of_the_next(tmp_path, monkeypatch):
    async def fetch(self, url):
        number = int(url.rsplit("/", 1)[1])
        return Fetched(url, jpeg(99 if number < PLACEHOLDER_LABELS else number))

    monkeypatch.setattr(Fetcher, "fetch", fetch)
    urls = {number: f"https://shop.example/{number}" for number in range(30)}
    source = save(tmp_path, shop(tmp_path, 30, image=urls, price={20: "free"}))
    build_dataset(source, tmp_path / "out", max_quarantined=0.5)
    settings = {"corrections": corrections(tmp_path, "P020,reprice,,,12.50")}
    error = error_of(lambda: build_dataset(source, tmp_path / "out", **settings))
    assert "5 placeholder" in error.what
    assert "what was fetched is kept" in error.fix
    assert build_dataset(source, tmp_path / "out", keep_placeholders=True, **settings).ok == 30


def test_placeholders_that_would_be_left_out_again_are_not_tried(tmp_path):
    rows = shop(tmp_path, 30)
    for number in range(PLACEHOLDER_LABELS):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(99))
    source = save(tmp_path, rows)
    build_dataset(source, tmp_path / "out", max_quarantined=0.5)
    error = error_of(lambda: build_dataset(source, tmp_path / "out", max_quarantined=0.5, retry=["placeholder"]))
    assert error.fix == "add --keep-placeholders"


def test_colours_of_one_product_may_share_their_photo(tmp_path):
    colours = ("Black", "White", "Navy", "Red", "Green", "Beige")
    titles = {number: f"{colour} Wool Coat" for number, colour in enumerate(colours)}
    rows = shop(tmp_path, 30, title=titles)
    for number in range(len(colours)):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(99))
    assert build_dataset(save(tmp_path, rows), tmp_path / "out").ok == 30


def test_html_entities_are_taken_off_once_and_counted(tmp_path):
    rows = shop(tmp_path, title={3: "Salt &amp; Pepper", 4: "Caf&eacute;", 5: "A &amp;amp; B", 6: "AT&T"})
    manifest = build_dataset(save(tmp_path, rows), tmp_path / "out")
    titles = {identifier: record.title for identifier, record in records_of(tmp_path / "out").items()}
    assert [titles[f"P00{number}"] for number in (3, 4, 5, 6)] == ["Salt & Pepper", "Café", "A &amp; B", "AT&T"]
    assert manifest.cleaning["html_entities"] == 3


def test_prices_are_read_in_the_declared_locale(tmp_path):
    rows = shop(tmp_path, price={number: f"1.{number:03d},50 €" for number in range(20)})
    source = save(tmp_path, rows)
    assert error_of(lambda: build_dataset(source, tmp_path / "plain")).what.startswith("20 of 20 rows cannot be used")
    manifest = build_dataset(source, tmp_path / "german", price_locale="de")
    assert manifest.price_locale == "de"
    assert records_of(tmp_path / "german")["P007"].price == 1007.5


def test_a_price_far_from_its_category_is_counted_and_kept(tmp_path):
    rows = shop(tmp_path, 24, price={number: str(100 + number) for number in range(24)} | {5: "10500"})
    manifest = build_dataset(save(tmp_path, rows), tmp_path / "out")
    assert manifest.cleaning["price_outliers"] == 1
    assert records_of(tmp_path / "out")["P005"].price == 10500


def test_outliers_are_judged_within_their_category_where_it_has_enough_prices():
    prices = [10.0 + number for number in range(MIN_PRICES)] + [1000.0 + number for number in range(MIN_PRICES)]
    categories = ["Socks"] * MIN_PRICES + ["Coats"] * MIN_PRICES
    euros = ["EUR"] * len(prices)
    assert price_outliers(prices, categories, euros) == []
    (found,) = price_outliers([*prices, 1000.0], [*categories, "Socks"], [*euros, "EUR"])
    assert found.place == 2 * MIN_PRICES
    assert found.times > 50
    assert price_outliers([1.0, 2.0, 1e9], [None] * 3, [None] * 3) == []  # too few to say what is usual


def test_outliers_are_judged_among_prices_of_one_currency():
    prices, euros = [100.0 + number for number in range(2 * MIN_PRICES)], ["EUR"] * 2 * MIN_PRICES
    yen = [160 * price for price in prices]
    both, currencies = prices + yen, euros + ["JPY"] * len(yen)
    assert price_outliers(both, [None] * len(both), currencies) == []
    both[3], both[-1] = yen[3], prices[-1]  # a yen price that is called euros, and the reverse
    assert [found.place for found in price_outliers(both, [None] * len(both), currencies)] == [3, len(both) - 1]


def test_corrections_drop_rename_and_reprice(tmp_path):
    rows = shop(tmp_path, price={4: "free"})
    path = corrections(
        tmp_path, "P002,drop,,,", "P003,relabel,Better Name,Hats,", "P004,reprice,,,12.50", "P005,relabel,,Shoes,99"
    )
    manifest = build_dataset(save(tmp_path, rows), tmp_path / "out", corrections=path)
    assert manifest.quarantined_by_reason == {"dropped": 1}
    assert manifest.cleaning["corrected"] == 3
    records = records_of(tmp_path / "out")
    assert (records["P003"].title, records["P003"].category, records["P003"].price) == ("Better Name", "Hats", 13.0)
    assert records["P004"].price == 12.5
    assert (records["P005"].category, records["P005"].price) == ("Shoes", 99.0)


def test_corrections_replace_a_data_set_without_fetching_again(tmp_path, monkeypatch):
    asked = []

    async def fetch(self, url):
        asked.append(url)
        return Fetched(url, jpeg(int(url.rsplit("/", 1)[1])))

    monkeypatch.setattr(Fetcher, "fetch", fetch)
    rows = shop(tmp_path, image={number: f"https://shop.example/{number}" for number in range(20)}, price={4: "free"})
    source = save(tmp_path, rows)
    build_dataset(source, tmp_path / "out")
    asked.clear()
    path = corrections(tmp_path, "P002,drop,,,", "P003,relabel,Better Name,,", "P004,reprice,,,12.50")
    manifest = build_dataset(source, tmp_path / "out", corrections=path)
    assert asked == ["https://shop.example/4"]  # left out before, so its picture was never kept
    assert manifest.ok == 19
    fresh = build_dataset(source, tmp_path / "fresh", corrections=path)
    assert fresh.content_sha256 == manifest.content_sha256


def test_corrections_of_unknown_products_are_refused(tmp_path):
    source = save(tmp_path, shop(tmp_path))
    error = error_of(lambda: build_dataset(source, tmp_path / "out", corrections=corrections(tmp_path, "X9,drop,,,")))
    assert "X9" in error.what


@pytest.mark.parametrize(
    ("lines", "header", "what"),
    [
        (["P1,remove,,,"], None, "no action 'remove'"),
        (["P1,relabel,,,"], None, "relabel without a title or category"),
        (["P1,reprice,,,"], None, "reprice without a price"),
        (["P1,drop,,,", "P1,drop,,,"], None, "corrected twice"),
        ([",drop,,,"], None, "id is missing"),
        (["P1,drop"], "sku,what", "columns are sku, what"),
    ],
)
def test_a_line_that_cannot_be_followed_is_an_error(tmp_path, lines, header, what):
    path = corrections(tmp_path, *lines, **({"header": header} if header else {}))
    error = error_of(lambda: read_corrections(path))
    assert what in error.what
    assert str(path) in error.where


def test_a_column_can_name_the_splits(tmp_path):
    given = {number: ("train", "validation", "test")[number % 3] for number in range(30)}
    rows = [row | {"fold": given[number]} for number, row in enumerate(shop(tmp_path, 30))]
    manifest = build_dataset(save(tmp_path, rows), tmp_path / "out", split_by="fold")
    assert manifest.splits["test"] == manifest.splits["val"] == 10
    assert manifest.splits["train"] + manifest.splits["calib"] == 10
    assert manifest.splits["calib"] > 0  # taken out of training, as the column has none
    tested = {record.id for record in open_dataset(tmp_path / "out").split("test")}
    assert tested == {f"P{number:03d}" for number in range(2, 30, 3)}


def test_a_product_on_both_sides_of_given_splits_is_counted(tmp_path):
    rows = shop(tmp_path, 20, title={0: "Red Wool Coat", 1: "Blue Wool Coat"})
    rows = [row | {"split": "test" if number in (0, 2) else "train"} for number, row in enumerate(rows)]
    manifest = build_dataset(save(tmp_path, rows), tmp_path / "out", split_by="split")
    assert manifest.grouping["split_leak"] == 0.5


def test_values_that_name_no_split_are_an_error(tmp_path):
    rows = [row | {"fold": "holdout" if number else ""} for number, row in enumerate(shop(tmp_path))]
    source = save(tmp_path, rows)
    error = error_of(lambda: build_dataset(source, tmp_path / "out", split_by="fold"))
    assert "'holdout' (19), '' (1)" in error.what
    error = error_of(lambda: build_dataset(source, tmp_path / "out", split_by="flod"))
    assert "no column 'flod'" in error.what
