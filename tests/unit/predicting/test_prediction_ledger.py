"""Finished rows on disk: kept through any end of the process, for the same run alone, for one process at a time."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from appraiser.errors import ConfigError, DataError
from appraiser.predicting.ledger import Ledger

FACTS = {"source": "a" * 64, "model": "b" * 64, "closed": "[]", "answer_share": "null"}
DIES = """
import os, sys
from pathlib import Path
from appraiser.predicting.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]), {"model": "m"})
ledger.write([(0, {"picture": "a"}), (1, {"picture": "b"})])
os._exit(9)
"""


def test_rows_come_back_by_position_whatever_order_they_were_written_in(tmp_path):
    with Ledger(tmp_path / "out.csv", FACTS) as ledger:
        ledger.write([(4, {"picture": "e"}), (2, {"picture": "c", "error": "x: y"})])
        ledger.write([(0, {"picture": "a", "price": float("nan")})])
        assert list(ledger.done(6)) == [1, 0, 1, 0, 1, 0]
        assert list(ledger.rows()) == [
            {"picture": "a", "price": None}, {"picture": "c", "error": "x: y"}, {"picture": "e"},
        ]  # fmt: skip
        assert ledger.num_failed() == 1


def test_a_batch_is_entered_whole_or_not_at_all(tmp_path):
    with Ledger(tmp_path / "out.csv", FACTS) as ledger:
        ledger.write([(0, {"picture": "a"})])
        with pytest.raises(sqlite3.IntegrityError):
            ledger.write([(1, {"picture": "b"}), (0, {"picture": "again"})])
        assert list(ledger.rows()) == [{"picture": "a"}]
        ledger.write([(1, {"picture": "b"})])
        assert len(list(ledger.rows())) == 2


def test_rows_survive_a_process_that_dies(tmp_path):
    assert subprocess.run([sys.executable, "-c", DIES, str(tmp_path / "out.csv")]).returncode == 9
    with Ledger(tmp_path / "out.csv", {"model": "m"}) as ledger:
        assert list(ledger.rows()) == [{"picture": "a"}, {"picture": "b"}]


@pytest.mark.parametrize("name", FACTS)
def test_rows_of_another_run_are_refused_by_what_differs(tmp_path, name):
    with Ledger(tmp_path / "out.csv", FACTS) as ledger:
        ledger.write([(0, {"picture": "a"})])
    with pytest.raises(ConfigError, match=rf"1 row\(s\) of .*out.csv are finished, with another {name}\n") as caught:
        Ledger(tmp_path / "out.csv", FACTS | {name: "changed"})
    assert "--fresh" in caught.value.fix
    assert "then, changed now" in caught.value.where
    with Ledger(tmp_path / "out.csv", FACTS) as ledger:
        assert len(list(ledger.rows())) == 1
    with Ledger(tmp_path / "out.csv", FACTS | {name: "changed"}, fresh=True) as ledger:
        assert list(ledger.rows()) == []


def test_a_ledger_without_rows_binds_nobody_and_leaves_nothing(tmp_path):
    with Ledger(tmp_path / "out.csv", FACTS):
        assert (tmp_path / ".out.csv.progress").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_second_writer_of_the_same_output_is_refused_also_by_another_spelling(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    with Ledger(tmp_path / "folder" / "out.csv", FACTS):
        with pytest.raises(ConfigError, match="another process is writing"):
            Ledger(tmp_path / "link" / "out.csv", FACTS)
        with pytest.raises(ConfigError, match="another process is writing"):
            Ledger(tmp_path / "folder" / "out.csv", FACTS, fresh=True)
        with Ledger(tmp_path / "folder" / "out.jsonl", FACTS):
            pass


def test_removing_leaves_no_file_behind(tmp_path):
    with Ledger(tmp_path / "out.csv", FACTS) as ledger:
        ledger.write([(number, {"picture": "a" * 9000}) for number in range(50)])
        assert {path.name for path in tmp_path.iterdir()} >= {".out.csv.progress", ".out.csv.progress-wal"}
        ledger.remove()
        assert list(tmp_path.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_that_its_owner_removes_while_it_is_opened_is_not_used(tmp_path, monkeypatch):
    """Whoever opened the file before it was removed would write where nobody reads."""
    out = tmp_path / "out.csv"
    path = tmp_path / ".out.csv.progress"
    path.write_bytes(b"")
    connect = sqlite3.connect

    def connected_late(*arguments: object, **options: object) -> sqlite3.Connection:
        monkeypatch.undo()
        path.unlink()
        keeps_the_number = os.open(tmp_path / "other", os.O_CREAT)
        os.close(keeps_the_number)
        return connect(*arguments, **options)

    monkeypatch.setattr(sqlite3, "connect", connected_late)
    with Ledger(out, FACTS) as ledger:
        ledger.write([(0, {"picture": "a"})])
        assert path.exists()
        with pytest.raises(ConfigError, match="another process"):
            Ledger(out, FACTS)
    with Ledger(out, FACTS) as ledger:
        assert len(list(ledger.rows())) == 1


def test_a_damaged_ledger_is_said_and_kept(tmp_path):
    path = tmp_path / ".out.csv.progress"
    path.write_bytes(b"no database " * 100)
    with pytest.raises(DataError, match="is damaged") as caught:
        Ledger(tmp_path / "out.csv", FACTS)
    assert "remove it" in caught.value.fix
    assert path.exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="cannot write"):
        Ledger(Path(tmp_path / "file" / "out.csv"), FACTS)


def test_every_batch_is_on_the_disk_before_it_counts(tmp_path):
    with Ledger(tmp_path / "out.csv", FACTS) as ledger:
        modes = {
            name: ledger._database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
        }
    assert modes == {"journal_mode": "wal", "synchronous": 2}  # 2: FULL
