"""A build that is killed at random moments ends like one that was not; 5 kills in the suite, 100 in `make soak`."""

from __future__ import annotations

import csv
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from shop_server import ShopServer

from appraiser.data.building.build import build_dataset
from appraiser.data.building.collect import ROWS_PER_WRITE
from appraiser.data.dataset import open_dataset
from appraiser.data.fetch import FetchPolicy

ROWS = 600
MAX_UNDER_WAY = 2 * FetchPolicy().num_parallel + ROWS_PER_WRITE
BUILD = """
import sys
from appraiser.data.building.build import build_dataset
from appraiser.data.fetch import FetchPolicy
policy = FetchPolicy(frozenset({sys.argv[3]}), num_retries=0, num_parallel_per_host=8)
build_dataset(sys.argv[1], sys.argv[2], fetch=policy)
"""


@pytest.mark.parametrize("num_kills", [5, pytest.param(100, marks=pytest.mark.soak)])
def test_a_build_that_is_killed_at_random_moments_ends_like_one_that_was_not(tmp_path, num_kills):
    rng = random.Random(num_kills)
    script = tmp_path / "build.py"
    script.write_text(BUILD)
    moments: Counter[str] = Counter()
    began = time.monotonic()
    num_builds = num_published = most_under_way = 0
    with ShopServer() as server:
        server.broken = {7: 404, 300: 404, 599: 404}
        table = write_table(tmp_path / "shop", server)
        whole = build_dataset(table, tmp_path / "whole", fetch=server.policy())
        assert whole.quarantined_by_reason == {"http_4xx": 3, "truncated": 12}
        server.latency_s = 0.02
        while moments.total() < num_kills:
            num_builds += 1
            server.asked.clear()
            out, staging = tmp_path / f"out{num_builds}", tmp_path / f".out{num_builds}.building"
            settled: Counter[str] = Counter()
            command = [sys.executable, str(script), str(table), str(out), server.place]
            while moments.total() < num_kills:
                moment = rng.choice(("starting", "fetching", "fetching", "fetching", "writing"))
                if not killed(command, moment, server, rng):
                    break  # it was done before
                moments[moment] += 1
                if out.exists():
                    break
                done = rows_done(staging)
                asked = {path for path in server.asked if path != "/robots.txt"}
                most_under_way = max(most_under_way, len(asked - done))
                assert_nothing_is_asked_again(settled, server)
                settled = Counter({path: server.asked[path] for path in done})
            if out.exists():
                num_published += 1
                again = subprocess.run(command, capture_output=True, text=True)
                assert "exists and is not empty" in again.stderr  # nothing is to be done but to clear up
            else:
                subprocess.run(command, check=True)
            assert_nothing_is_asked_again(settled, server)
            assert open_dataset(out).manifest == whole
    print(f"\n{moments.total()} kills {dict(moments)} of {num_builds} builds in {time.monotonic() - began:.0f} s")
    print(f"{num_published} builds done when killed or before; at most {most_under_way} rows under way at a kill")
    assert most_under_way <= MAX_UNDER_WAY
    names = {"shop", "whole", "build.py", *(f"out{number}" for number in range(1, num_builds + 1))}
    assert {entry.name for entry in tmp_path.iterdir()} == names


def killed(command: list[str], moment: str, server: ShopServer, rng: random.Random) -> bool:
    """Start a build and kill it at a random moment of a kind; False where it came to its end before that."""
    wait_s, num_more = rng.uniform(0, 1.5 if moment == "starting" else 0.5), rng.randrange(1, 120)
    before = server.num_asked
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)
    ended = lambda: process.poll() is not None  # noqa: E731
    if moment == "fetching":
        wait_until(lambda: ended() or server.num_asked >= before + num_more)
    elif moment == "writing":
        wait_until(lambda: ended() or len(server.asked) > ROWS)
    if moment != "fetching":
        until = time.monotonic() + wait_s
        wait_until(lambda: ended() or time.monotonic() >= until)
    was_running = not ended()
    if was_running:
        # The builder alone: its workers have to notice by themselves.
        process.kill()
    _, errors = process.communicate()
    assert was_running or process.returncode == 0, errors.decode()
    wait_until(lambda: not group_exists(process.pid))
    return was_running


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until, "waited for two minutes"
        time.sleep(0.003)


def group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def rows_done(staging: Path) -> set[str]:
    """Paths of the rows that a killed build's ledger holds."""
    ledger = staging / "ledger.sqlite"
    if not ledger.exists():
        return set()
    copy = staging.parent / "copy"
    copy.mkdir()
    for file in staging.glob("ledger.sqlite*"):
        shutil.copy(file, copy)
    with sqlite3.connect(copy / "ledger.sqlite") as database:
        has_rows = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'rows'").fetchone()
        rows = database.execute("SELECT row FROM rows").fetchall() if has_rows else []
    database.close()
    shutil.rmtree(copy)
    return {path_of(row - 1) for (row,) in rows}


def assert_nothing_is_asked_again(settled: Counter[str], server: ShopServer) -> None:
    assert {path: server.asked[path] for path in settled} == dict(settled)


def path_of(number: int) -> str:
    return f"/truncated/{number}" if number % 50 == 13 else f"/picture/{number}"


def write_table(folder: Path, server: ShopServer) -> Path:
    folder.mkdir()
    path = folder / "products.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "price", "image"])
        for number in range(ROWS):
            writer.writerow([f"P{number}", f"Article {number}", 10 + number, server.url(path_of(number))])
    return path
