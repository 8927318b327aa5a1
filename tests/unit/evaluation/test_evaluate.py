"""What an evaluation takes from the run beside the model's answers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from evaluations import answer, picture, record

from appraiser.data.twins import TwinPair
from appraiser.errors import DataError
from appraiser.evaluation import evaluate as module
from appraiser.evaluation.evaluate import _curves, _reasoning

WHOLE = b'{"step": 1, "train/loss": 2.5}\n{"step": 2, "train/loss": NaN}\n'


@pytest.mark.parametrize("cut", [b'{"step": 3, "trai', b"{", '{"step": 3, "\u00e9'.encode()[:-1]])
def test_the_last_line_of_a_killed_run_is_left_out_and_said(
    tmp_path: Path, cut: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(WHOLE + cut)
    with caplog.at_level(logging.WARNING):
        assert [step for step, _ in _curves(tmp_path)["train/loss"]] == [1, 2]
    assert "last line" in caplog.text


def test_a_line_without_its_end_of_line_is_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(WHOLE.rstrip())
    assert len(_curves(tmp_path)["train/loss"]) == 2
    assert caplog.messages == []


@pytest.mark.parametrize("damaged", [b'{"step": 3, "trai\n' + WHOLE, b'{"step": 3, "trai\n'])
def test_any_other_damaged_line_is_named(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(WHOLE + damaged)
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 3"):
        _curves(tmp_path)


def test_twins_are_read_up_to_the_limit_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def pairs(_: Any) -> Iterator[TwinPair]:
        for number in range(500):
            read.append(number)
            yield TwinPair("size", "S", "L", picture(0), picture(1), 0.5)

    def answered(_: str, pictures: Any, total: int) -> list[Any]:
        shown = [answer(record(row), price=100.0 * (1 + row % 2)) for row, _ in enumerate(pictures)]
        assert len(shown) == total
        return shown

    monkeypatch.setattr(module, "read_twins", pairs)
    scoring: Any = SimpleNamespace(answer=answered)
    assert _reasoning(scoring, SimpleNamespace(folder=None), 3)["n"] == 3  # type: ignore[arg-type]
    assert read == [0, 1, 2]
