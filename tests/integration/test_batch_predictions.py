"""One row out per row in, each once: through kills, bad rows and bad servers, refused where the run is another one."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import stub_answers
from shop_server import ShopServer, picture
from stub_answers import answer, dangerous, make_table, write_stub
from tiny import tiny_backbone

from appraiser.data.building import decoding
from appraiser.data.fetch import FetchPolicy
from appraiser.errors import AppraiserError, ConfigError, ModelInputError
from appraiser.predicting import loading
from appraiser.predicting.inputs import open_inputs
from appraiser.predicting.run import here, predict_rows, predict_source, predict_to_file, write_predictions


def kill_until_done(command: list[str], out: Path, moments: list[tuple[str, float]]) -> list[int]:
    """Start again and again and kill at these moments, then let it come to its end.

    Args:
        moments: "starting" and seconds after the start; or "working" and the share of the rows that are finished by
            then; or "writing" and seconds after all were.

    Returns:
        Rows that were finished at each kill.
    """
    finished = []
    for kind, value in moments:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if kind == "starting":
            time.sleep(value)
        else:
            total = int(command[-1])
            for line in process.stdout:
                if int(line) >= (total if kind == "writing" else value * total):
                    break
            time.sleep(value if kind == "writing" else 0)
        assert process.poll() is None, (kind, value, process.communicate())
        process.kill()
        process.communicate()
        finished.append(rows_in_ledger(out))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return finished


def rows_in_ledger(out: Path) -> int:
    """Counted in a copy: whoever opens the file itself could mend what the next start has to."""
    import shutil
    import sqlite3

    copy = out.parent / "copy"
    copy.mkdir()
    for file in out.parent.glob(f".{out.name}.progress*"):
        shutil.copy(file, copy)
    count = 0
    if (copy / f".{out.name}.progress").exists():
        database = sqlite3.connect(copy / f".{out.name}.progress")
        if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'rows'").fetchone():
            (count,) = database.execute("SELECT count(*) FROM rows").fetchone()
        database.close()
    shutil.rmtree(copy)
    return count


def stub_command(table: Path, out: Path, rows_at_once: int, pause_s: float) -> list[str]:
    num_rows = len(table.read_bytes().splitlines()) - 1
    return [sys.executable, stub_answers.__file__, *map(str, (table, out, rows_at_once, pause_s, num_rows))]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_run_that_is_killed_at_random_moments_writes_what_an_uninterrupted_one_writes(tmp_path, suffix):
    table = make_table(tmp_path / "shop", 1200)
    whole, out = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    assert write_stub(table, whole, rows_at_once=32).rows == 1200
    rng = random.Random(suffix)
    shares = sorted(rng.uniform(0.05, 0.9) for _ in range(3))
    moments = [("starting", rng.uniform(0, 1)), *(("working", share) for share in shares), ("writing", 0.0)]
    finished = kill_until_done(stub_command(table, out, 32, 0.02), out, moments)
    assert finished == sorted(finished)
    assert finished[1] >= 32
    assert out.read_bytes() == whole.read_bytes()
    assert {entry.name for entry in tmp_path.iterdir()} == {"shop", whole.name, out.name}


@pytest.mark.soak
def test_a_hundred_thousand_rows_and_twenty_kills_give_every_row_once_in_flat_memory(tmp_path):
    num_rows = 100_000
    table = make_table(tmp_path / "shop", num_rows)
    out = tmp_path / "out.jsonl"
    rng = random.Random(1)
    shares = sorted(rng.uniform(0.01, 0.99) for _ in range(14))
    moments = [("starting", rng.uniform(0, 2)) for _ in range(3)] + [("working", share) for share in shares]
    moments += [("writing", rng.uniform(0, 0.5)) for _ in range(3)]
    began = time.monotonic()
    finished = kill_until_done(stub_command(table, out, 256, 0.0), out, moments)
    print(f"\n{len(finished)} kills at {finished} rows, {time.monotonic() - began:.0f} s in all")
    assert finished == sorted(finished)
    with out.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    assert [row["id"] for row in rows] == [f"P{number}" for number in range(num_rows)]
    failed = sum("error" in row for row in rows)
    assert failed == sum(n % 101 == 7 or n * 7 % 50 == 13 for n in range(num_rows))
    expected = predict_rows(inputs := open_inputs(make_table(tmp_path / "few", 2000)), here(
        lambda: answer, FetchPolicy(), inputs.source, 256))  # fmt: skip
    assert rows[:2000] == expected
    peaks = {count: peak_memory(make_table(tmp_path / f"shop{count}", count), tmp_path) for count in (10_000, 100_000)}
    print({count: f"{peak >> 20} MiB" for count, peak in peaks.items()})
    assert peaks[100_000] - peaks[10_000] < 24 << 20


def peak_memory(table: Path, folder: Path) -> int:
    """Most memory in bytes of a process that predicts a table. Not ru_maxrss, which begins with that of its parent."""
    code = (
        "import re, sys; from pathlib import Path; from stub_answers import write_stub; "
        "write_stub(Path(sys.argv[1]), Path(sys.argv[2]), rows_at_once=256); "
        "print(int(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1]) * 1024)"
    )
    command = [sys.executable, "-c", code, str(table), str(folder / "memory.parquet")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.path.dirname(stub_answers.__file__), *sys.path])}
    return int(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


@pytest.mark.slow
@pytest.mark.timeout(3600)  # 14 minutes on two cores
def test_the_embedded_model_killed_on_the_way_answers_five_thousand_pictures_as_if_it_had_not_been(tmp_path):
    from appraiser import make_catalogue

    make_catalogue(tmp_path / "catalogue", 5000, seed=3, size=64)
    table, whole, out = tmp_path / "catalogue/products.csv", tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "appraiser", "predict", "phi3v-tiny", str(table), "--out"]
    began = time.monotonic()
    subprocess.run([*command, str(whole)], check=True, capture_output=True)
    seconds = time.monotonic() - began
    print(f"\n{5000 / seconds:.1f} rows/s")
    moments = [("starting", share * seconds) for share in (0.1, 0.3, 0.05, 0.3)]
    finished = kill_until_done([*command, str(out)], out, moments)
    assert finished == sorted(finished)
    assert finished[-1] > 1500
    assert out.read_bytes() == whole.read_bytes()
    assert len(whole.read_bytes().splitlines()) == 5000


def test_what_was_finished_is_not_answered_again(tmp_path):
    table, out = make_table(tmp_path / "shop", 300), tmp_path / "out.csv"
    inputs = open_inputs(table)
    asked: list[int] = []

    def dies(pictures):
        asked.append(len(pictures))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return answer(pictures)

    with pytest.raises(KeyboardInterrupt):
        write_predictions(inputs, here(lambda: dies, FetchPolicy(), inputs.source, 32), out, {"model": "stub"})
    assert not out.exists()
    before = sum(asked[:3])
    written = write_predictions(inputs, here(lambda: dies, FetchPolicy(), inputs.source, 32), out, {"model": "stub"})
    assert (written.rows, written.resumed) == (300, 96)
    assert sum(asked) - before - asked[3] == 300 - written.failed - before
    assert {entry.name for entry in tmp_path.iterdir()} == {"shop", "out.csv"}


def test_a_finished_output_is_written_anew(tmp_path):
    table, out = make_table(tmp_path / "shop", 40), tmp_path / "out.csv"
    out.write_text("of yesterday")
    assert write_stub(table, out).resumed == 0
    first = out.read_bytes()
    assert write_stub(table, out).resumed == 0
    assert out.read_bytes() == first != b"of yesterday"


def test_a_second_process_that_writes_the_same_output_is_refused(tmp_path):
    table, out = make_table(tmp_path / "shop", 200), tmp_path / "out.csv"
    process = subprocess.Popen(stub_command(table, out, 16, 0.5))
    until = time.monotonic() + 60
    while not (tmp_path / ".out.csv.progress-wal").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    try:
        with pytest.raises(ConfigError, match="another process is writing"):
            write_stub(table, out)
    finally:
        assert process.wait() == 0
    assert len(out.read_text().splitlines()) == 201


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[Path, Path]:
    """Two models that differ in their weights."""
    root = tmp_path_factory.mktemp("models")
    tiny_backbone(root / "one")
    tiny_backbone(root / "other", seed="other:")
    return root / "one", root / "other"


def interrupted(model: Path, table: Path, out: Path, monkeypatch) -> None:
    """A run of a real model that ended after its first part."""
    from appraiser.predicting import run

    with monkeypatch.context() as patch:
        patch.setattr(run, "_check", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            predict_to_file(model, table, out)
    assert not out.exists()


def test_another_model_source_or_setting_is_refused_and_begins_anew_with_fresh(
    models, tmp_path, monkeypatch, appraiser
):
    one, other = models
    table, out = make_table(tmp_path / "shop", 6), tmp_path / "out.jsonl"
    interrupted(one, table, out, monkeypatch)
    outcome = appraiser("predict", other, table, "--out", out)
    assert outcome.code == 2
    assert "6 row(s) of" in outcome.err
    assert "with another model\n" in outcome.err
    assert "add --fresh" in outcome.err
    with pytest.raises(ConfigError, match="with another closed\n"):
        predict_to_file(one, table, out, closed=["category"])
    with pytest.raises(ConfigError, match="with another answer_share\n"):
        predict_to_file(one, table, out, answer_share=0.5)
    lines = table.read_bytes()
    table.write_bytes(lines + b"P6,0.jpg\r\n")
    with pytest.raises(ConfigError, match="with another source\n"):
        predict_to_file(one, table, out)
    table.write_bytes(lines)
    moved = tmp_path / "moved"
    one.rename(moved)
    try:
        assert predict_to_file(moved, table, out).resumed == 6  # the same model at another place
    finally:
        moved.rename(one)
    out.unlink()
    interrupted(one, table, out, monkeypatch)
    outcome = appraiser("predict", other, table, "--out", out, "--fresh", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out) == {"out": str(out), "rows": 6, "failed": 0, "resumed": 0}


def test_a_file_a_folder_and_memory_give_the_same_rows(models, tmp_path):
    table = make_table(tmp_path / "shop", 20)
    rows = predict_source(models[0], table)
    assert predict_to_file(models[0], table, tmp_path / "out.jsonl").failed == 2
    assert [row["id"] for row in rows if "error" in row] == ["P7", "P9"]
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == rows
    by_name = {Path(row["picture"]).name: row for row in predict_source(models[0], tmp_path / "shop")}
    for row in rows:
        if "error" not in row:
            assert by_name[row["picture"]]["text"] == row["text"]


def test_options_that_have_no_effect_are_refused(appraiser, models, tmp_path):
    (tmp_path / "a.jpg").write_bytes(picture(1))
    for option in (["--fresh"], ["--workers", 2]):
        outcome = appraiser("predict", models[0], tmp_path / "a.jpg", *option)
        assert outcome.code == 2
        assert f"{option[0]} is for" in outcome.err


def test_the_table_that_is_read_is_not_written_over(models, tmp_path):
    table = make_table(tmp_path / "shop", 5)
    (tmp_path / "link.csv").symlink_to(table)
    before = table.read_bytes()
    with pytest.raises(ConfigError, match="is the table that is read"):
        predict_to_file(models[0], table, tmp_path / "link.csv")
    assert table.read_bytes() == before


def test_pictures_are_fetched_by_the_rules_of_build(appraiser, models, tmp_path):
    table = tmp_path / "shop.csv"
    paths = ["picture/1", "picture/2", "html/3", "missing/4", "truncated/5", "opted_out/6", "to_nothing/0"]
    with ShopServer() as server:
        table.write_text("id,image_url\n" + "".join(f"P{n},{server.url('/' + p)}\n" for n, p in enumerate(paths)))
        outcome = appraiser("predict", models[0], table, "--json")
        assert outcome.code == 3
        assert {row["error"].partition(":")[0] for row in json.loads(outcome.out)} == {"blocked_address"}
        assert not server.asked
        outcome = appraiser("predict", models[0], table, "--json", "--allow-private", server.place)
        assert outcome.code == 0, outcome.err
        rows = json.loads(outcome.out)
        assert [row["id"] for row in rows] == [f"P{n}" for n in range(len(paths))]
        reasons = [row.get("error", "").partition(":")[0] for row in rows]
        assert reasons == ["", "", "not_an_image", "http_4xx", "truncated", "opted_out", "bad_url"]
        assert rows[3]["picture"] == server.url("/missing/4")
        outcome = appraiser("predict", models[0], table, "--json", "--allow-private", server.place, "--ignore-robots")
        assert "error" not in json.loads(outcome.out)[5]


def test_the_next_pictures_are_loaded_while_the_model_answers(tmp_path):
    table = tmp_path / "shop.csv"
    with ShopServer() as server:
        table.write_text("image\n" + "".join(f"{server.url(f'/picture/{n}')}\n" for n in range(24)))
        inputs = open_inputs(table)
        seen: list[bool] = []

        def waits(pictures):
            """Answers when pictures of the next rows have been asked for, which nobody else would do now."""
            last = min(8 * (len(seen) + 2), 24) - 1
            until = time.monotonic() + 20
            while f"/picture/{last}" not in server.asked and time.monotonic() < until:
                time.sleep(0.01)
            seen.append(f"/picture/{last}" in server.asked)
            return answer(pictures)

        rows = predict_rows(inputs, here(lambda: waits, server.policy(), inputs.source, 8))
    assert seen == [True] * 3
    alone = answer([[decoding.decode(picture(number))] for number in range(24)])
    assert [row["title"] for row in rows] == [row["title"] for row in alone]


def test_a_picture_that_kills_its_decoder_costs_its_own_row(tmp_path, monkeypatch):
    for name, data in {"a": b"a", "b": b"b deadly", "c": b"c", "d": b"d endless", "e": b"e"}.items():
        (tmp_path / f"{name}.jpg").write_bytes(data)
    monkeypatch.setattr(decoding, "MAX_SECONDS", 5.0)
    monkeypatch.setattr(decoding, "_pixels", dangerous)
    inputs = open_inputs(tmp_path)
    rows = predict_rows(inputs, here(lambda: answer, FetchPolicy(), inputs.source, 64))
    reasons = [row["error"].partition(":")[0] for row in rows]
    assert reasons == ["truncated", "decoder_died", "truncated", "decode_timeout", "truncated"]


def test_a_row_that_is_too_much_for_the_model_costs_itself_alone(tmp_path):
    table = make_table(tmp_path / "shop", 10)
    inputs = open_inputs(table)
    expected = predict_rows(inputs, here(lambda: answer, FetchPolicy(), inputs.source, 64))

    def strict(pictures):
        found = answer(pictures)
        if any(row["title"] == expected[4]["title"] for row in found):
            raise ModelInputError("the prompt is too long")
        return found

    rows = predict_rows(inputs, here(lambda: strict, FetchPolicy(), inputs.source, 64))
    assert rows[4] == {"picture": expected[4]["picture"], "id": "P4", "error": "model_input: the prompt is too long"}
    assert rows[:4] + rows[5:] == expected[:4] + expected[5:]


def test_several_pictures_of_a_row_are_one_prediction_and_pictures_in_a_table_are_read(tmp_path):
    cells = [[{"bytes": picture(1), "path": None}, {"bytes": picture(2), "path": None}], [{"bytes": picture(3)}]]
    pq.write_table(pa.table({"id": ["a", "b"], "images": cells}), tmp_path / "shop.parquet")
    write_stub(tmp_path / "shop.parquet", tmp_path / "out.parquet")
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [(row["id"], row["count"]) for row in rows] == [("a", 2), ("b", 1)]
    assert rows[0]["title"] == " ".join(answer([[decoding.decode(picture(n))]])[0]["title"] for n in (1, 2))


def test_large_pictures_go_to_the_model_in_small_parts_and_wait_outside_in_a_bounded_number(tmp_path, monkeypatch):
    size = 36 * 36 * 3
    monkeypatch.setattr(loading, "BYTES_PER_PART", 3 * size)
    monkeypatch.setattr(loading, "BYTES_AHEAD", 4 * size)
    monkeypatch.setattr(loading, "MAX_LOADING", 2)
    inputs = open_inputs(make_table(tmp_path / "shop", 60))
    asked: list[int] = []
    with loading.Loader(FetchPolicy(), inputs.source) as loader:
        loaded = loader.load(inputs.rows(), 60)
        most = 0
        for part in loading.parts(loaded, 20):
            asked.append(sum(one.error is None for one in part))
            time.sleep(0.05)
            most = max(most, loader._num_bytes_waiting)
            assert len({one.row.position // 20 for one in part}) == 1
    assert sum(asked) == 60 - 3  # those that failed have no bytes
    assert max(asked) == 3
    assert 2 * size <= most <= (4 + 2 + 1) * size


def test_parts_are_the_same_wherever_a_run_begins(tmp_path):
    inputs = open_inputs(make_table(tmp_path / "shop", 50))

    def asked(positions) -> list[list[int]]:
        loaded = (loading.Loaded(row) for row in inputs.rows() if row.position in positions)
        return [[one.row.position for one in part] for part in loading.parts(loaded, 8)]

    whole = asked(range(50))
    assert [len(part) for part in whole] == [8] * 6 + [2]
    assert asked(range(16, 50)) == whole[2:]
    assert asked([*range(8), *range(24, 50)]) == whole[:1] + whole[3:]


def test_a_source_that_changes_on_the_way_is_an_error_and_not_a_file_with_fewer_rows(tmp_path):
    table, out = make_table(tmp_path / "shop", 40), tmp_path / "out.csv"
    inputs = open_inputs(table)
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-5]))
    with pytest.raises(AppraiserError, match="35 of 40 rows have an answer"):
        write_predictions(inputs, here(lambda: answer, FetchPolicy(), inputs.source, 16), out, {"model": "stub"})
    assert not out.exists()


def test_progress_counts_what_was_done_before_and_ends_at_all(tmp_path):
    table, out = make_table(tmp_path / "shop", 100), tmp_path / "out.csv"
    seen: list[tuple[int, int]] = []
    write_stub(table, out, rows_at_once=30, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 100), (30, 100), (60, 100), (90, 100), (100, 100)]


def test_no_thread_and_no_file_is_left_when_the_model_cannot_be_loaded(models, tmp_path):
    table, out = make_table(tmp_path / "shop", 20), tmp_path / "out.csv"
    before = Counter(thread.name for thread in threading.enumerate())
    with pytest.raises(ConfigError):
        predict_to_file(models[0], table, out, answer_share=0.5)  # it was not calibrated
    assert Counter(thread.name for thread in threading.enumerate())["pictures"] == before["pictures"]
    assert {entry.name for entry in tmp_path.iterdir()} == {"shop"}


def test_ids_with_commas_and_breaks_come_through_csv(tmp_path):
    (tmp_path / "a.jpg").write_bytes(picture(1))
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "image"], ['a,"b"\nc', "a.jpg"]])
    write_stub(tmp_path / "t.csv", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["id"] == 'a,"b"\nc'
