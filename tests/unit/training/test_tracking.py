"""The mirror never holds up or ends a run; files are cut where a run goes on; secrets stay here."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from appraiser.config import RunConfig
from appraiser.errors import CheckpointError
from appraiser.training import tracking
from appraiser.training.run_state import RunState
from appraiser.training.tracking import MOST_WAITING, Mirror, Tracker, drop_later_lines, without_secrets


def config(wandb: str = "offline") -> RunConfig:
    sections: dict[str, Any] = {"data": {"dataset": "d"}, "run": {"out": "r"}, "tracking": {"wandb": wandb}}
    return RunConfig.model_validate(sections)


class FakeRun:
    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.exit_code: int | None = None

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.logged.append((step, numbers))

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


class FakeWandb(ModuleType):
    """W&B with one run; a test can hold it up, or have it fail."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.run, self.begun_with = FakeRun(), dict[str, Any]()
        self.may_begin = threading.Event()
        self.may_begin.set()
        self.failure: BaseException | None = None

    def Settings(self, **settings: Any) -> dict[str, Any]:
        return settings

    def init(self, **settings: Any) -> FakeRun:
        self.may_begin.wait()
        self.begun_with = settings
        if self.failure is not None:
            raise self.failure
        return self.run


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWandb]:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    yield fake
    fake.may_begin.set()


def test_records_are_taken_at_once_while_wandb_does_nothing(
    wandb: FakeWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "FINISH_TIMEOUT_S", 0.05)
    wandb.may_begin.clear()
    mirror = Mirror(tmp_path, config())
    for step in range(MOST_WAITING + 5):  # would never come to its end if one of them waited
        mirror.put(lambda run, _, step=step: run.log({}, step=step))
    assert mirror.warning == "W&B is too slow: 5 records are in metrics.jsonl only"
    mirror.finish(0)
    assert mirror.warning == "W&B did not end within 0 s: its copy of this run may be incomplete"


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (
            ValueError("no service\nand a page of advice"),
            "W&B failed (ValueError: no service): from there on this run is",
        ),
        (SystemExit(1), "W&B failed (SystemExit: 1): from there on this run is recorded in metrics.jsonl only"),
    ],
)
def test_what_wandb_raises_is_a_warning(wandb: FakeWandb, tmp_path: Path, failure: BaseException, said: str) -> None:
    wandb.failure = failure
    with Tracker(tmp_path, config()) as tracker:
        for step in range(1, 4):
            tracker.log(step, {"train/loss": 1.0})
        tracker.log_samples(3, [{"id": "a"}], [None])
        tracker.finish(tmp_path, RunState())
    assert tracker.warning is not None
    assert tracker.warning.startswith(said)
    assert not tracker.has_mirror
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_folder_that_wandb_cannot_write_is_a_warning(wandb: FakeWandb, tmp_path: Path) -> None:
    (tmp_path / "wandb").write_text("a file where the folder should be")
    with Tracker(tmp_path, config()) as tracker:
        tracker.log(1, {"train/loss": 1.0})
    assert "W&B failed (FileExistsError" in str(tracker.warning)
    assert (tmp_path / "metrics.jsonl").read_text()


def test_numbers_are_copied_before_they_wait(wandb: FakeWandb, tmp_path: Path) -> None:
    wandb.may_begin.clear()
    numbers = {"train/loss": 1.0}
    with Tracker(tmp_path, config()) as tracker:
        tracker.log(1, numbers)
        numbers["done"] = 0.5
        wandb.may_begin.set()
    assert wandb.run.logged == [(1, {"train/loss": 1.0, "Average Training Loss": 1.0})]
    assert wandb.run.exit_code == 0


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_the_mode_is_the_setting_whatever_the_environment_says(
    wandb: FakeWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline" if mode == "online" else "online")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    with Tracker(tmp_path / ".", config(mode)):
        pass
    assert wandb.begun_with["mode"] == mode
    assert wandb.begun_with["name"] == tmp_path.name


def test_an_id_that_was_not_written_to_its_end_is_made_anew(wandb: FakeWandb, tmp_path: Path) -> None:
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb/run_id").touch()
    with Tracker(tmp_path, config()):
        pass
    assert len(wandb.begun_with["id"]) == 12
    assert wandb.begun_with["id"] == (tmp_path / "wandb/run_id").read_text()


@pytest.mark.parametrize(
    ("typed", "is_noted"), [(["train", "data"], True), (["train", "https://me:word@shop.example"], False)]
)
def test_a_command_line_with_secrets_is_not_noted(
    wandb: FakeWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: list[str], is_noted: bool
) -> None:
    monkeypatch.setattr(sys, "argv", ["appraiser", *typed])
    with Tracker(tmp_path, config()):
        pass
    assert wandb.begun_with["settings"]["x_disable_meta"] is not is_noted


def test_a_full_disk_is_said_and_the_file_is_left_alone_afterwards(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, config("off"))
    tracker._files["metrics"].close()
    tracker._files["metrics"] = full = Path("/dev/full").open("w")
    with (
        pytest.raises(CheckpointError, match=r"cannot write metrics\.jsonl: No space left on device") as caught,
        tracker,
    ):
        tracker.log(1, {"train/loss": 1.0})
    assert "go on with --resume" in str(caught.value.fix)
    assert full.closed  # what is in its buffer would be tried again when it is forgotten
    assert tracker._files["samples"].closed


def test_a_full_disk_is_said_at_the_very_beginning(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(CheckpointError, match=r"cannot write metrics\.jsonl: Is a directory"):
        Tracker(tmp_path, config("off"))


def test_lines_of_steps_that_come_again_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    titles = ["Bag\u2028Red", "Bag\x85Red", "Bag\x0bRed", 'Bag "Red"']  # characters that end lines for some
    records = [{"step": step, "answer": title} for step in (1, 2, 3) for title in titles]
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text(text + '{"step": 2, "ans', encoding="utf-8")
    drop_later_lines(path, 2)
    left = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    assert left == [record for record in records if record["step"] <= 2]
    assert [entry.name for entry in tmp_path.iterdir()] == ["samples.jsonl"]


def test_a_line_that_cannot_be_read_takes_no_other_with_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "tr{"step": 3}\n[]\n{"step": 4}\n')
    drop_later_lines(path, 9)
    assert path.read_text() == '{"step": 1}\n{"step": 4}\n'


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("https://me:word@shop.example/x", "https://***@shop.example/x"),
        ("s3://me:w@rd@shop.example/x", "s3://***@shop.example/x"),
        ("https://shop.example/x?token=abc&size=3", "https://shop.example/x?token=***&size=3"),
        ("https://x.example/?X-Amz-Signature=abc&sv=2", "https://x.example/?X-Amz-Signature=***&sv=2"),
        ("https://x.example/?ACCESS_TOKEN=abc", "https://x.example/?ACCESS_TOKEN=***"),
        ("https://x.example/?api_key=abc password=d", "https://x.example/?api_key=*** password=***"),
        ("runs/a@b", "runs/a@b"),
        ("hub:owner/name@main", "hub:owner/name@main"),
        ("https://shop.example/a@b/c", "https://shop.example/a@b/c"),
    ],
)
def test_secrets_are_taken_out_and_nothing_else(said: str, told: str) -> None:
    assert without_secrets({"data": {"x": [said, 1, None]}}) == {"data": {"x": [told, 1, None]}}
