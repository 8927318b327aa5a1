"""What an evaluation takes from the run beside the model's answers."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from appraiser.errors import DataError
from appraiser.evaluation.evaluate import _curves

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
