"""Checkpoints are published, not written: into a folder beside, to disk, renamed, and only then pointed to.

run/checkpoints/step-120/     weights or adapter, config, tokenizer, preprocessor file, appraiser.json
run/best, run/last            links to the checkpoint with the best validation score and to the newest
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from appraiser.backbone import Backbone
from appraiser.errors import CheckpointError
from appraiser.trained_task import TrainedTask, write_task

BEST, LAST = "best", "last"


def save_checkpoint(run: Path, step: int, backbone: Backbone, trained: TrainedTask, *, is_best: bool) -> Path:
    """Publish the model of `step` and point `last` (and `best`) to it; older ones that nothing points to are removed.

    Raises:
        CheckpointError: it could not be written; earlier checkpoints are untouched.
    """
    folder = run / "checkpoints" / f"step-{step}"
    temporary = folder.with_name(f".{folder.name}.saving")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        backbone.save(temporary)
        write_task(temporary, trained)
        for file in temporary.iterdir():
            sync(file)
        sync(temporary)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
        sync(folder.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"cannot save the checkpoint of step {step}: {error.strerror or error}",
            where=str(folder),
            fix="free some space; earlier checkpoints are intact",
        ) from error
    point(run / LAST, folder)
    if is_best:
        point(run / BEST, folder)
    kept = {(run / name).resolve() for name in (BEST, LAST) if (run / name).exists()}
    for old in (run / "checkpoints").glob("step-*"):
        if old.resolve() not in kept:
            shutil.rmtree(old)
    return folder


def rewrite_task(checkpoint: Path, trained: TrainedTask) -> None:
    """Replace `appraiser.json` of a published checkpoint in one step (the calibration comes after training)."""
    beside = checkpoint / ".task.saving"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    write_task(beside, trained)
    for file in beside.iterdir():
        sync(file)
        file.replace(checkpoint / file.name)
    beside.rmdir()
    sync(checkpoint)


def point(link: Path, target: Path) -> None:
    """Make `link` a relative link to `target`, replacing an older one in one step."""
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)
    temporary.replace(link)


def sync(path: Path) -> None:
    """Force a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
