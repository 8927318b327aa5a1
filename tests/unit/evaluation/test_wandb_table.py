"""W&B is a mirror: where nobody asked for it, its failures cost a warning and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluations import whole_result

from appraiser.evaluation import evaluate as module
from appraiser.evaluation.wandb_table import log_result

wandb = pytest.importorskip("wandb")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder that was tracked."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(
        "data: {dataset: dataset}\nrun: {out: run, steps: 1}\ntracking: {wandb: offline}\n", encoding="utf-8"
    )
    return folder


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: Any) -> None:
        raise wandb.errors.UsageError("no service\nand a page of advice")

    monkeypatch.setattr(wandb, "init", fail)


def test_a_failure_nobody_asked_for_is_a_warning(run: Path, broken: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        log_result(whole_result(), str(run), run, None)
    assert caplog.messages == ["W&B failed (UsageError: no service): the scores are in report.json only"]


def test_a_failure_of_what_was_asked_for_is_an_error(run: Path, broken: None) -> None:
    with pytest.raises(wandb.errors.UsageError):
        log_result(whole_result(), str(run), run, "offline")


def test_the_command_ends_well_with_its_report(
    run: Path, broken: None, appraiser: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "evaluate", lambda *_, **__: whole_result())
    outcome = appraiser("evaluate", run, "dataset")
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1] == f"Report: {run / 'report.html'}"
    assert (run / "report.json").is_file()
    assert "warning: W&B failed (UsageError: no service)" in outcome.err


def test_a_run_that_cannot_be_logged_is_closed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []

    class Run:
        def __enter__(self) -> Run:
            return self

        def __exit__(self, kind: object, *_: object) -> None:
            ended.append(kind is not None)

        def log(self, _: object) -> None:
            raise OSError("no space left on device")

    monkeypatch.setattr(wandb, "init", lambda **_: Run())
    log_result(whole_result(), str(run), run, None)
    assert ended == [True]
