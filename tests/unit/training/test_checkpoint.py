"""Which checkpoints stay, and that each is whole at every moment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appraiser.errors import CheckpointError
from appraiser.trained_task import TASK_FILE, TrainedTask, read_task, write_task
from appraiser.training.checkpoint import (
    BEST,
    LAST,
    checkpoints,
    find_damage,
    newest_intact,
    point,
    point_again,
    rewrite_task,
    save_checkpoint,
)


def save(run: Path, step: int, *, is_best: bool = False, keep_last: int = 1, text: str = "weights") -> Path:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_text(text)
        write_task(folder, TrainedTask())

    return save_checkpoint(run, step, write, is_best=is_best, keep_last=keep_last)


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("keep_last", "kept"), [(1, ["step-3", "step-9"]), (2, ["step-3", "step-8", "step-9"]), (99, None)]
)
def test_the_newest_and_the_best_stay(tmp_path: Path, keep_last: int, kept: list[str] | None) -> None:
    for step in range(1, 10):
        save(tmp_path, step, is_best=step in (1, 3), keep_last=keep_last)
        assert find_damage(tmp_path / LAST) is None
        assert find_damage(tmp_path / BEST) is None
    assert names(tmp_path) == (kept or [f"step-{step}" for step in range(1, 10)])
    assert os.readlink(tmp_path / BEST) == "checkpoints/step-3"
    assert os.readlink(tmp_path / LAST) == "checkpoints/step-9"


def test_what_a_checkpoint_replaced_does_not_count_as_one_of_the_newest(tmp_path: Path) -> None:
    save(tmp_path, 4, keep_last=2)
    save(tmp_path, 5, keep_last=2)
    shutil.copytree(tmp_path / "checkpoints/step-5", tmp_path / "checkpoints/step-5.replaced")
    save(tmp_path, 5, keep_last=2, text="validated")
    assert names(tmp_path) == ["step-4", "step-5"]
    assert (tmp_path / LAST / "model.safetensors").read_text() == "validated"


def test_a_best_whose_link_cannot_be_read_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1, is_best=True)
    resolve = Path.resolve

    def unread(path: Path, strict: bool = False) -> Path:
        if path.name != BEST:
            return resolve(path, strict)
        if strict:
            raise OSError(5, "Input/output error")
        return path  # as pathlib has it

    monkeypatch.setattr(Path, "resolve", unread)
    with pytest.raises(CheckpointError, match="step 2: Input/output error"):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert find_damage(tmp_path / BEST) is None
    assert newest_intact(tmp_path)[0] == tmp_path / "checkpoints/step-2"


def test_files_of_a_save_that_was_killed_are_not_taken_over(tmp_path: Path) -> None:
    for step in (1, 2):
        left = tmp_path / f"checkpoints/.step-{step}.saving/training"
        left.mkdir(parents=True)
        (left / "optimizer-00003-of-00004.safetensors").write_text("of another run")
    found = save(tmp_path, 2)
    assert names(tmp_path) == ["step-2"]
    assert sorted(path.name for path in found.rglob("*")) == [TASK_FILE, "manifest.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (Exception("No space left on device (os error 28)"), "No space left on device"),  # as tokenizers raises it
    ],
)
def test_what_the_disk_refuses_is_said(tmp_path: Path, raised: Exception, said: str) -> None:
    save(tmp_path, 1)

    def write(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise raised

    with pytest.raises(CheckpointError, match=f"cannot save the checkpoint of step 2: {said}"):
        save_checkpoint(tmp_path, 2, write, is_best=True)
    assert names(tmp_path) == ["step-1"]
    assert not (tmp_path / BEST).exists()


def test_our_own_mistakes_are_not_taken_for_the_disk(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        raise Exception("no such key")

    with pytest.raises(Exception, match="no such key"):
        save_checkpoint(tmp_path, 2, write, is_best=True)


def test_a_copy_without_links_gets_them_again(tmp_path: Path) -> None:
    save(tmp_path / "run", 1, is_best=True)
    save(tmp_path / "run", 2)
    shutil.copytree(tmp_path / "run", tmp_path / "copy", symlinks=False)
    shutil.rmtree(tmp_path / "run")
    assert not (tmp_path / "copy" / BEST).is_symlink()
    newest, damage = newest_intact(tmp_path / "copy")
    assert newest is not None
    assert damage == []
    assert point_again(tmp_path / "copy", newest, 1)
    assert os.readlink(tmp_path / "copy" / BEST) == "checkpoints/step-1"
    save(tmp_path / "copy", 3, is_best=True)
    assert names(tmp_path / "copy") == ["step-3"]


def test_a_folder_of_the_users_is_not_removed_for_a_link(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / BEST).mkdir()
    (tmp_path / BEST / "notes.txt").write_text("mine")
    with pytest.raises(OSError, match="directory"):
        point(tmp_path / BEST, tmp_path / "checkpoints/step-1")
    assert (tmp_path / BEST / "notes.txt").exists()


class Killed(BaseException):
    pass


def killed_at(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    replace: Callable[..., Any] = Path.replace
    count = 0

    def counted(path: Path, target: Any) -> Any:
        nonlocal count
        count += 1
        if count == at:
            raise Killed
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", counted)


def test_a_checkpoint_is_whole_at_every_moment_of_its_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calibrated twice, with other results, and killed at every step of both."""
    folder = save(tmp_path, 1, is_best=True)
    for point_of in ("mean", "answer", "median"):
        for at in (1, 2):
            with monkeypatch.context() as patch:
                killed_at(patch, at)
                with pytest.raises(Killed):
                    rewrite_task(folder, TrainedTask(price_point=point_of))
            assert find_damage(folder) is None, (point_of, at)
        rewrite_task(folder, TrainedTask(price_point=point_of))
        assert find_damage(folder) is None
        assert read_task(str(folder)).price_point == point_of
    assert names(tmp_path) == ["step-1"]
    assert not list(folder.glob(".*"))


def test_a_calibration_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(tmp_path, 1)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(CheckpointError, match=r"appraiser\.json: No space left"):
            rewrite_task(folder, TrainedTask(price_point="mean"))
    assert find_damage(folder) is None


def test_folders_that_are_no_checkpoints_are_left_alone(tmp_path: Path) -> None:
    for name in ("step-x", "step-", "notes"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    save(tmp_path, 1)
    save(tmp_path, 2)
    assert names(tmp_path) == ["notes", "step-", "step-2", "step-x"]
    assert [path.name for path in checkpoints(tmp_path)] == ["step-2"]
