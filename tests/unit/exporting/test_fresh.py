"""What a fresh process says when it cannot load an export, or is killed."""

import sys
from pathlib import Path

import pytest
import torch

from appraiser.errors import CheckpointError
from appraiser.exporting.fresh import _environment, ask_afresh

CPU = torch.device("cpu")


def python_that(folder: Path, does: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("echo a harmless note >&2; kill -9 $$", "it was ended by signal 9"),
        ("echo Traceback >&2; echo 'OSError: no such file' >&2; exit 1", "OSError: no such file"),
        ("exit 7", "it ended with 7 and said nothing"),
    ],
)
def test_its_end_is_said(tmp_path, monkeypatch, does, said):
    monkeypatch.setattr(sys, "executable", python_that(tmp_path, does))
    with pytest.raises(CheckpointError, match="in a fresh process") as caught:
        ask_afresh(tmp_path, [], CPU)
    assert said in str(caught.value)


def test_progress_comes_from_the_process(tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys, "executable", python_that(tmp_path, "echo noise; echo answered 1; echo answered 2; exit 1")
    )
    done: list[int] = []
    with pytest.raises(CheckpointError):
        ask_afresh(tmp_path, [], CPU, done.append)
    assert done == [1, 2]


def test_it_has_no_network_and_this_very_package(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    environment = _environment()
    assert environment["HF_HUB_OFFLINE"] == "1"
    first, second = environment["PYTHONPATH"].split(":")
    assert (Path(first) / "appraiser" / "exporting" / "fresh.py").is_file()
    assert second == "elsewhere"
