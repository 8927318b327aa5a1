"""Tables of the luxury shops' family (Burberry, Louis Vuitton, Gucci, Chanel, Farfetch): each quirk in a small table.

Column names, sentinels and lengths are those that the published cards and viewers of these data sets show.
"""

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from appraiser.data.building.build import build_dataset
from appraiser.data.dataset import SPLIT_NAMES, open_dataset
from appraiser.data.fetch import FetchPolicy
from appraiser.data.records import ProductRecord

URL_PATH = "/images/is/image/lv/1/PP_VP_L/louis-vuitton-sac--M46354_PM2_Front view.jpg"


def picture(number: int) -> bytes:
    cells = np.random.default_rng(number).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(cells).resize((45, 45), Image.Resampling.NEAREST).save(buffer, "JPEG")
    return buffer.getvalue()


class Pictures(BaseHTTPRequestHandler):
    """A picture for every address that ends in ?N; anything else is missing."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        number = self.path.rpartition("?")[2]
        self.send_response(200 if number.isdigit() else 404)
        self.end_headers()
        if number.isdigit():
            self.wfile.write(picture(int(number)))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    server.asked = []
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def rows(count: int = 20, **changed: object) -> list[dict]:
    """Rows of a Burberry table, 17 columns; `changed` has a value for all rows, or a list of values."""
    return [
        {
            "website_name": "Burberry", "competence_date": "2023-11-17", "country_code": "USA", "currency_code": "USD",
            "brand": "BURBERRY", "category1_code": "WOMAN", "category2_code": "BAGS", "category3_code": "TOTE BAGS",
            "product_code": 80_740_821 + number, "title": f"Mini Frances Bag {number}",
            "itemurl": f"https://us.burberry.com/mini-frances-bag-p{80_740_821 + number}", "imageurl": f"{number}.jpg",
            "full_price": 2290.0, "price": 2290.0, "full_price_eur": 2112.53, "price_eur": 2112.53, "flg_discount": 0,
        } | {name: value[number] if isinstance(value, list) else value for name, value in changed.items()}
        for number in range(count)
    ]  # fmt: skip


def build(folder: Path, table: list[dict], **settings: object) -> dict[str, ProductRecord]:
    """The records of a Parquet table with pictures beside it, by id."""
    folder.mkdir(exist_ok=True)
    for number in range(len(table)):
        (folder / f"{number}.jpg").write_bytes(picture(number))
    pq.write_table(pa.Table.from_pylist(table), folder / "products.parquet")
    build_dataset(folder, folder / "out", **settings)
    dataset = open_dataset(folder / "out")
    return {r.id: r for name in SPLIT_NAMES if dataset.manifest.splits[name] for r in dataset.split(name)}


def reasons(folder: Path) -> dict[str, int]:
    return open_dataset(folder / "out").manifest.quarantined_by_reason


def test_burberry_codes_are_numbers_and_stay_columns(tmp_path):
    records = build(tmp_path, rows())
    record = records["80740821"]
    assert (record.title, record.category, record.price, record.currency) == (
        "Mini Frances Bag 0", "TOTE BAGS", 2290.0, "USD",
    )  # fmt: skip
    assert record.extra["product_code"] == 80_740_821
    assert record.extra["full_price_eur"] == 2112.53


def test_louis_vuitton_codes_have_slashes(tmp_path):
    codes = [f"NVPROD4020070V/M{46354 + number}" for number in range(20)]
    assert set(build(tmp_path, rows(product_code=codes))) == set(codes)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["out"]


def test_louis_vuitton_addresses_have_spaces_and_some_are_n_a(tmp_path, server):
    base = f"http://127.0.0.1:{server.server_port}"
    places: list[str | None] = [f"{base}{URL_PATH}?{number}" for number in range(20)]
    places[3], places[4], places[5], places[6] = "N.A.", "", None, f" {places[6]}\n"
    policy = FetchPolicy(allow_private=frozenset([f"127.0.0.1:{server.server_port}"]), num_retries=0)
    records = build(tmp_path, rows(imageurl=places), fetch=policy, max_quarantined=0.5)
    assert len(records) == 17
    assert reasons(tmp_path) == {"no_image": 3}
    assert records["80740828"].images == (picture(7),)
    assert records["80740828"].extra["imageurl"] == places[7], "the table's own text stays"
    assert {path for path in server.asked if "?" in path} <= {f"{URL_PATH.replace(' ', '%20')}?{n}" for n in range(20)}


def test_a_category_that_is_missing_falls_back_from_3_to_2_to_1(tmp_path):
    third = ["TOTE BAGS", "N.A.", None, "", " n.a. ", "N.A.", "nan", "X"]
    second = ["BAGS", "BAGS", "BAGS", None, "N.A.", "N.A.", "BAGS", "N.A."]
    records = build(tmp_path, rows(8, category3_code=third, category2_code=second))
    found = [records[str(80_740_821 + number)].category for number in range(8)]
    assert found == ["TOTE BAGS", "BAGS", "BAGS", "WOMAN", "WOMAN", "WOMAN", "BAGS", "X"]


def test_a_row_without_any_category_is_left_out_by_name(tmp_path):
    nothing = [None if number == 2 else "N.A." if number == 3 else "A" for number in range(20)]
    names = ("category1_code", "category2_code", "category3_code")
    records = build(tmp_path, rows(20, **dict.fromkeys(names, nothing)), max_quarantined=0.5)
    assert len(records) == 18
    assert reasons(tmp_path) == {"no_category": 2}


def test_chanel_has_one_third_category_for_all(tmp_path):
    assert {record.category for record in build(tmp_path, rows(category3_code="N.A.")).values()} == {"BAGS"}


def test_farfetch_has_a_third_category_that_may_be_null_everywhere(tmp_path):
    records = build(tmp_path, rows(category3_code=None))
    assert {record.category for record in records.values()} == {"BAGS"}
    assert {record.extra["category3_code"] for record in records.values()} == {None}


def test_titles_in_other_languages_stay_as_they_are(tmp_path):
    titles = ["Sac à dos “Christopher” MM", "クリストファー MM", "Sac e\u0301te\u0301", "حقيبة", "圍巾", "A",
              "x" * 234, "Тренчкот", "Ærø", "a"]  # fmt: skip
    records = build(tmp_path, rows(10, title=titles, category2_code="包袋", category3_code="N.A."))
    assert {record.title for record in records.values()} == set(titles)
    assert {record.category for record in records.values()} == {"包袋"}


def test_line_breaks_and_wide_spaces_in_titles_become_single_spaces(tmp_path):
    records = build(tmp_path, rows(2, title=["  Sac\u00a0à\u3000main\r\n noir ", "b"]))
    assert records["80740821"].title == "Sac à main noir"
    assert records["80740821"].extra["source_title"] == "  Sac\u00a0à\u3000main\r\n noir "


def test_prices_reach_from_three_dirhams_to_a_billion_won(tmp_path):
    prices = [1.79e9, 14_000.0, 3.0, 0.99, 41.51, 72_000.0]
    records = build(tmp_path, rows(6, full_price=prices, price=1.0))
    assert {record.price for record in records.values()} == set(prices)


def test_a_discounted_price_is_not_the_price(tmp_path):
    records = build(tmp_path, rows(2, price=[10.0, 2290.0], flg_discount=[1, 0]))
    assert {record.price for record in records.values()} == {2290.0}
    assert records["80740821"].extra["source_price"] == 10.0


def test_a_price_that_is_missing_or_nothing_is_left_out_by_name(tmp_path):
    prices = [None, float("nan"), 0.0, -1.0, *[5.0] * 16]
    assert len(build(tmp_path, rows(full_price=prices), max_quarantined=0.5)) == 16
    assert reasons(tmp_path) == {"bad_price": 4}
