"""A build that is killed goes on where it stopped, and left-out rows can be tried again by cause."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shop_server import ShopServer

from appraiser.data.building.build import build_dataset
from appraiser.data.building.collect import Forecast
from appraiser.data.building.ledger import Ledger
from appraiser.data.dataset import SPLIT_NAMES, open_dataset
from appraiser.errors import DataError


@pytest.fixture
def server() -> Iterator[ShopServer]:
    with ShopServer() as server:
        yield server


def table(folder: Path, server: ShopServer, rows: int, **changed) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "products.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "price", "image"])
        for number in range(rows):
            writer.writerow([changed.get("ids", {}).get(number, f"P{number}"), f"Article {number}", 10 + number,
                             server.url(f"/picture/{number}")])  # fmt: skip
    return path


def titles_of(folder: Path) -> dict[str, str | None]:
    data = open_dataset(folder)
    return {record.id: record.title for split in SPLIT_NAMES for record in data.split(split)}


def test_a_refused_build_keeps_what_it_fetched_and_the_next_one_uses_it(server, tmp_path):
    path = table(tmp_path / "shop", server, 30)
    server.broken = dict.fromkeys(range(10), 404)
    with pytest.raises(DataError, match="10 of 30 rows cannot be used: 10 http_4xx") as caught:
        build_dataset(path, tmp_path / "out", fetch=server.policy())
    assert "what was fetched is kept for the next try" in caught.value.fix
    asked = server.asked.total()
    manifest = build_dataset(path, tmp_path / "out", fetch=server.policy(), max_quarantined=0.5)
    assert (manifest.ok, manifest.quarantined_by_reason) == (20, {"http_4xx": 10})
    assert server.asked.total() == asked
    assert not (tmp_path / ".out.building").exists()


def test_a_changed_table_begins_anew(server, tmp_path):
    path = table(tmp_path / "shop", server, 8)
    server.broken = {0: 404, 1: 404}
    with pytest.raises(DataError):
        build_dataset(path, tmp_path / "out", fetch=server.policy())
    path = table(tmp_path / "shop", server, 6)
    server.broken = {}
    assert build_dataset(path, tmp_path / "out", fetch=server.policy()).ok == 6


def test_rows_left_out_for_a_cause_are_tried_again_and_no_others(server, tmp_path):
    path = table(tmp_path / "shop", server, 30)
    server.broken = {3: 503, 4: 404, 5: 500}
    first = build_dataset(path, tmp_path / "out", fetch=server.policy(), max_quarantined=0.5)
    assert first.quarantined_by_reason == {"http_4xx": 1, "http_5xx": 2}
    server.broken = {5: 500}
    server.asked.clear()
    again = build_dataset(
        path, tmp_path / "out", fetch=server.policy(respect_robots=False), max_quarantined=0.5, retry=["http_5xx"]
    )
    assert server.asked == {"/picture/3": 1, "/picture/5": 1}
    assert (again.rows_in, again.ok, again.quarantined_by_reason) == (30, 28, {"http_4xx": 1, "http_5xx": 1})
    assert "P3" in titles_of(tmp_path / "out")
    server.broken = {}
    fresh = build_dataset(path, tmp_path / "fresh", fetch=server.policy())
    last = build_dataset(path, tmp_path / "out", fetch=server.policy(), retry=["http_5xx", "http_4xx"])
    assert last == fresh, "by another way to the same data set, to the byte"


def test_a_retry_without_anything_to_try_or_of_another_table_is_refused(server, tmp_path):
    path = table(tmp_path / "shop", server, 8)
    build_dataset(path, tmp_path / "out", fetch=server.policy())
    with pytest.raises(DataError, match=r"no row of .* was left out for timeout"):
        build_dataset(path, tmp_path / "out", fetch=server.policy(), retry=["timeout"])
    with pytest.raises(DataError, match="was built from another"):
        build_dataset(table(tmp_path / "shop", server, 9), tmp_path / "out", fetch=server.policy(), retry=["timeout"])
    assert open_dataset(tmp_path / "out").manifest.ok == 8


def test_the_first_urls_say_what_to_expect(server, tmp_path):
    path = table(tmp_path / "shop", server, 60)
    server.broken = {2: 404, 50: 404}
    seen: list[Forecast] = []
    build_dataset(path, tmp_path / "out", fetch=server.policy(), on_forecast=seen.append)
    assert seen == [Forecast(20, 19, {"http_4xx": 1})]


def test_where_none_of_the_first_urls_works_the_others_are_not_tried(server, tmp_path):
    path = table(tmp_path / "shop", server, 200)
    server.broken = dict.fromkeys(range(200), 403)
    with pytest.raises(DataError, match="none of the first 20 pictures could be fetched: 20 http_4xx"):
        build_dataset(path, tmp_path / "out", fetch=server.policy(), max_quarantined=1)
    assert server.asked.total() - server.asked["/robots.txt"] == 20


@pytest.mark.parametrize(("dedupe", "title"), [("first", "Article 1"), ("last", "Article 7")])
def test_of_rows_with_one_id_the_chosen_one_stays_and_the_others_are_counted(server, tmp_path, dedupe, title):
    path = table(tmp_path / "shop", server, 10, ids={4: "P1", 7: "P1"})
    with pytest.raises(DataError, match="1 ids stand in several rows: P1"):
        build_dataset(path, tmp_path / "out", fetch=server.policy())
    manifest = build_dataset(path, tmp_path / "out", fetch=server.policy(), dedupe=dedupe)
    assert (manifest.rows_in, manifest.ok, manifest.quarantined_by_reason) == (10, 8, {"duplicate_id": 2})
    assert titles_of(tmp_path / "out")["P1"] == title


def test_a_script_without_a_guard_builds_once(server, tmp_path):
    path = table(tmp_path / "shop", server, 12)
    script = tmp_path / "script.py"
    script.write_text(
        "from appraiser import build_dataset\nfrom appraiser.data.fetch import FetchPolicy\n"
        f"policy = FetchPolicy(frozenset([{server.place!r}]))\n"
        f"print(build_dataset({str(path)!r}, {str(tmp_path / 'out')!r}, fetch=policy).ok)\n"
    )
    done = subprocess.run([sys.executable, str(script)], check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout == "12\n"


def test_what_was_fetched_survives_a_second_refusal_and_another_build(server, tmp_path):
    path = table(tmp_path / "shop", server, 30)
    server.broken = dict.fromkeys(range(10), 404)
    for _ in range(2):
        with pytest.raises(DataError, match="10 of 30 rows cannot be used"):
            build_dataset(path, tmp_path / "out", fetch=server.policy())
    asked = server.asked.total()
    with Ledger(tmp_path / ".out.building", "held by another build"), pytest.raises(DataError, match="another build"):
        build_dataset(path, tmp_path / "out", fetch=server.policy())
    assert (tmp_path / ".out.building" / "ledger.sqlite").exists()
    assert server.asked.total() == asked


def test_a_retry_that_cannot_be_published_leaves_the_old_data_set(server, tmp_path, monkeypatch):
    path = table(tmp_path / "shop", server, 30)
    server.broken = {3: 503}
    old = build_dataset(path, tmp_path / "out", fetch=server.policy())
    rename, calls = Path.rename, []

    def second_fails(self, target):
        calls.append(self)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(DataError, match="No space left"):
        build_dataset(path, tmp_path / "out", fetch=server.policy(), retry=["http_5xx"])
    assert open_dataset(tmp_path / "out").manifest == old


@pytest.mark.parametrize(
    ("mapping", "retry", "what"),
    [({"price": []}, "http_5xx", "was built with other columns"), (None, "duplicate_id", "cannot be tried again")],
)
def test_a_retry_that_would_mix_up_rows_is_refused(server, tmp_path, mapping, retry, what):
    path = table(tmp_path / "shop", server, 30)
    server.broken = {3: 503}
    build_dataset(path, tmp_path / "out", fetch=server.policy())
    with pytest.raises(DataError, match=what):
        build_dataset(path, tmp_path / "out", fetch=server.policy(), mapping=mapping, retry=[retry])


@pytest.fixture
def killed_while_replacing(server, tmp_path, monkeypatch) -> Path:
    """The table of a data set whose second build published and was killed while it cleared up."""
    path = table(tmp_path / "shop", server, 30)
    server.broken = {3: 503, 4: 404}
    build_dataset(path, tmp_path / "out", fetch=server.policy(), max_quarantined=0.5)
    server.broken = {4: 404}
    remove = shutil.rmtree

    def killed(folder, **settings):
        if folder.name == ".out.building":
            (folder / "ledger.sqlite").unlink()
            raise KeyboardInterrupt
        remove(folder, **settings)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            build_dataset(path, tmp_path / "out", fetch=server.policy(), retry=["http_5xx"])
    assert (tmp_path / ".out.building").exists()
    assert open_dataset(tmp_path / "out").manifest.ok == 29
    return path


def test_what_a_killed_build_left_beside_its_data_set_is_cleared_by_the_same_build(killed_while_replacing, tmp_path):
    with pytest.raises(DataError, match="exists and is not empty"):
        build_dataset(killed_while_replacing, tmp_path / "out")
    assert {entry.name for entry in tmp_path.iterdir()} == {"shop", "out"}
    assert open_dataset(tmp_path / "out").manifest.ok == 29


def test_what_a_killed_build_left_is_not_in_the_way_of_another_retry(killed_while_replacing, server, tmp_path):
    server.broken = {}
    manifest = build_dataset(killed_while_replacing, tmp_path / "out", fetch=server.policy(), retry=["http_4xx"])
    assert manifest.ok == 30
    assert {entry.name for entry in tmp_path.iterdir()} == {"shop", "out"}


def test_a_build_that_is_killed_just_before_it_publishes_keeps_what_it_fetched(server, tmp_path, monkeypatch):
    path = table(tmp_path / "shop", server, 30)

    def killed(self, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            build_dataset(path, tmp_path / "out", fetch=server.policy())
    asked = server.asked.total()
    assert build_dataset(path, tmp_path / "out", fetch=server.policy()).ok == 30
    assert server.asked.total() == asked
    assert {entry.name for entry in tmp_path.iterdir()} == {"shop", "out"}
