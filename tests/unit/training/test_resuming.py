"""One run at a time in a folder, whichever way it is reached; what cannot be written is said."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from appraiser.config import RunConfig, load_config
from appraiser.errors import CheckpointError, ConfigError
from appraiser.training import resuming
from appraiser.training.checkpoint import BEST, LAST, find_damage, save_checkpoint
from appraiser.training.ranks import Ranks
from appraiser.training.resuming import CONFIG, LOCK, SUMMARY, begin_run, finish_run, resumed_run
from appraiser.training.run_state import RunState

DATA: Any = SimpleNamespace(manifest=SimpleNamespace(content_sha256="of these products"))


def config(out: Path | str = "run", **run: Any) -> RunConfig:
    return RunConfig.model_validate({"data": {"dataset": "d"}, "run": {"out": str(out)} | run})


def begin(out: Path) -> Any:
    return begin_run(out, config(out), DATA, Ranks())


def resume(out: Path, **run: Any) -> Any:
    return resumed_run(out, config(out, **run), DATA, Ranks())


def save(out: Path, state: RunState, *, is_best: bool = False) -> Path:
    state.dataset_hash = DATA.manifest.content_sha256

    def write(folder: Path) -> None:
        (folder / "training").mkdir()
        (folder / "training/state.json").write_text(json.dumps(state.to_json()))

    return save_checkpoint(out, state.step, write, is_best=is_best, keep_last=2)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with its best at step 1 and its newest at step 2."""
    out = tmp_path / "run"
    with begin(out):
        save(out, RunState(step=1, best_score=0.5, best_step=1), is_best=True)
        save(out, RunState(step=2, best_score=0.5, best_step=1))
    return out


def test_a_second_run_is_refused_and_a_later_one_is_not(run: Path) -> None:
    with resume(run):
        for opened in (resume(run), resume(run)):
            with pytest.raises(ConfigError, match="another process trains in"), opened:
                pass
        assert (run / LOCK).exists()
    assert not (run / LOCK).exists()
    with resume(run) as resumed:
        assert resumed.state.step == 2


def test_a_lock_on_a_file_that_its_holder_removed_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one before leaves between our opening and our locking; somebody else may come and lock the new file."""
    flock, calls = fcntl.flock, []

    def late(file: Any, operation: int) -> None:
        calls.append(os.fstat(file.fileno()).st_ino)
        if len(calls) == 1:
            (tmp_path / LOCK).unlink()
        elif len(calls) == 2:
            (tmp_path / LOCK).unlink()
            (tmp_path / LOCK).touch()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    lock = resuming._locked(tmp_path)
    assert len(calls) == 3
    assert os.path.samestat(os.fstat(lock.fileno()), (tmp_path / LOCK).stat())
    lock.close()


def _contend(out: Path, begin: Any, entered: Any) -> None:
    begin.wait()
    until = time.monotonic() + 0.7
    while time.monotonic() < until:
        try:
            with resuming._held(out, Ranks(), lambda: None):
                marker = os.open(out / "inside", os.O_CREAT | os.O_EXCL)  # fails where another is inside
                os.unlink(out / "inside")
                os.close(marker)
                with entered.get_lock():
                    entered.value += 1
        except ConfigError:
            continue


def test_never_are_two_inside(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    begin, entered = context.Barrier(4), context.Value("i", 0)
    processes = [context.Process(target=_contend, args=(tmp_path, begin, entered)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert entered.value > 20


@pytest.mark.parametrize("kind", ["new", "empty", "link"])
def test_a_run_that_is_refused_leaves_what_was_there(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "deep/run" if kind == "new" else tmp_path / "run"
    if kind == "empty":
        out.mkdir()
    elif kind == "link":
        (tmp_path / "elsewhere").mkdir()
        out.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="no such model"), begin(out):
        raise ConfigError("no such model" if load_config(out / CONFIG) == config(out) else "other settings")
    assert out.exists() == (kind != "new")
    assert kind == "new" or list(out.iterdir()) == []
    assert out.is_symlink() == (kind == "link")


def test_a_run_behind_a_link_is_resumed_from_either_side(run: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(run)
    with resume(link) as resumed:
        assert resumed.state.step == 2
        with pytest.raises(ConfigError, match="another process trains in"), resume(run):
            pass
        save(link, RunState(step=3, best_score=0.5, best_step=1))
    assert find_damage(run / LAST) is None
    assert find_damage(run / BEST) is None


def test_a_relative_folder_is_where_it_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with begin(Path("runs/../runs/a")):
        save(Path("runs/../runs/a"), RunState(step=1, best_score=0.5, best_step=1), is_best=True)
    monkeypatch.chdir(tmp_path / "runs")
    with resume(Path("a")) as resumed:
        assert resumed.state.step == 1
    monkeypatch.chdir(tmp_path / "runs/a")
    with resume(Path(".")) as resumed:
        save(Path("."), RunState(step=2, best_score=0.5, best_step=1))
    assert os.readlink(tmp_path / "runs/a/best") == "checkpoints/step-1"


@pytest.mark.parametrize("with_links", [True, False])
def test_a_run_that_was_copied_from_elsewhere_goes_on(run: Path, tmp_path: Path, with_links: bool) -> None:
    """With `cp -a` and with `scp -r`, which makes folders of links."""
    copy = tmp_path / "elsewhere/copy"
    shutil.copytree(run, copy, symlinks=with_links)
    shutil.rmtree(run)
    with resume(copy) as resumed:
        assert (resumed.state.step, resumed.state.warnings) == (2, [])
        assert [os.readlink(copy / name) for name in (BEST, LAST)] == ["checkpoints/step-1", "checkpoints/step-2"]
        save(copy, RunState(step=3, best_score=0.7, best_step=3), is_best=True)
    assert find_damage(copy / BEST) is None


def test_a_link_that_a_killed_run_left_behind_is_mended_also_before_the_first_validation(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with begin(out):
        save(out, RunState(step=1, is_validated=False))
        (out / "checkpoints/step-1").rename(out / "checkpoints/step-1.replaced")
    with resume(out) as resumed:
        assert resumed.state.step == 1
        assert find_damage(out / LAST) is None
        assert not (out / BEST).is_symlink()


@pytest.mark.parametrize("is_over", [False, True])
def test_a_lost_best_is_chosen_anew_also_where_the_run_is_over(run: Path, is_over: bool) -> None:
    save(run, RunState(step=3, best_score=0.5, best_step=1, is_over=is_over))
    (run / "checkpoints/step-1/training/state.json").write_text("{}")
    with resume(run) as resumed:
        state = resumed.state
    assert state.best_score is None
    assert "the best checkpoint (step 1) is missing or damaged" in state.warnings[0]
    # Where nothing more would be validated, the last step is validated again.
    assert state.is_validated is not is_over
    assert state.score({}, -3.0)


def test_a_state_of_another_version_is_said(run: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "training").mkdir()
        (folder / "training/state.json").write_text('{"window": [], "colour": "red"}')

    save_checkpoint(run, 9, write, is_best=False)
    with pytest.raises(CheckpointError, match=r"cannot go on from step-9: TypeError: .*colour") as caught, resume(run):
        pass
    assert "version of appraiser" in str(caught.value.fix)
    assert not (run / LOCK).exists()


def test_settings_that_a_kill_cut_in_two_are_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are written beside; a folder with such a rest begins anew."""

    def cut(config: RunConfig, path: Path) -> None:
        path.write_text("model:\n  ba")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(resuming, "save_config", cut)
        with pytest.raises(KeyboardInterrupt), begin(tmp_path):
            pass
    assert not (tmp_path / CONFIG).exists()
    with resume(tmp_path) as resumed:
        assert resumed.state.step == 0
    assert load_config(tmp_path / CONFIG) == config(tmp_path)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(CheckpointError, match="cannot write the run folder: Not a directory"),
        begin(tmp_path / "file/run"),
    ):
        pass

    def read_only(path: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", read_only)
        with pytest.raises(CheckpointError, match="Permission denied") as caught, begin(tmp_path / "new/run"):
            pass
    assert caught.value.where == str(tmp_path / "new/run")
    assert "another --out" in str(caught.value.fix)
    (tmp_path / "done").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", read_only)
        with pytest.raises(CheckpointError, match="Permission denied"):
            finish_run(tmp_path / "done", {})
    assert not (tmp_path / "done" / SUMMARY).exists()  # half a summary would end the run for ever


def test_a_refusal_after_the_lock_leaves_no_lock_behind(run: Path) -> None:
    with pytest.raises(ConfigError, match="settings differ"), resume(run, seed=5):
        pass
    finish_run(run, {"steps": 2})
    with pytest.raises(ConfigError, match="is complete"), resume(run):
        pass
    assert not (run / LOCK).exists()
