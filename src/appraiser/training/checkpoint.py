"""Checkpoints are published, not written: into a folder beside, hashed, to disk, renamed, and only then pointed to.

run/checkpoints/step-120/     weights or adapter, config, tokenizer, preprocessor file, appraiser.json
    training/                 state.json and the optimizer's tensors: what going on needs
    manifest.json             size and SHA-256 of every file
run/best, run/last            links to the checkpoint with the best validation score and to the newest
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from appraiser.durable import sync
from appraiser.errors import CheckpointError
from appraiser.trained_task import TASK_FILE, TrainedTask, write_task
from appraiser.training.ranks import Ranks

BEST, LAST, MANIFEST, TRAINING = "best", "last", "manifest.json", "training"
REPLACED, SAVING = ".replaced", ".saving"
_FORMAT = 1
_CHUNK = 1 << 22


def save_checkpoint(
    run: Path,
    step: int,
    write: Callable[[Path], None],
    *,
    is_best: bool,
    keep_last: int = 1,
    ranks: Ranks | None = None,
) -> Path:
    """Publish what `write` puts into a folder as the checkpoint of `step`, and point `last` (and `best`) to it.

    Older ones are removed but for the newest `keep_last` and the best. Every rank calls this and writes its own files.

    Raises:
        CheckpointError: it could not be written; earlier checkpoints are untouched.
    """
    ranks = ranks or Ranks()
    folder = run / "checkpoints" / f"step-{step}"
    temporary = folder.with_name(f".{folder.name}{SAVING}")
    failure = _attempt(lambda: _clear(folder.parent)) if ranks.is_first else None
    ranks.wait()
    failure = failure or _attempt(lambda: _fill(temporary, write))
    failures = [text for text in ranks.gather(failure) if text]
    if not failures and ranks.is_first:
        failure = _attempt(lambda: _publish(temporary, folder, run, is_best=is_best, keep_last=keep_last))
    failures = failures or [text for text in ranks.gather(failure) if text]
    if failures:
        if ranks.is_first:
            shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"cannot save the checkpoint of step {step}: {failures[0]}",
            where=str(folder),
            fix="make room or mend the disk, then go on with --resume; earlier checkpoints are intact",
        )
    return folder


def _attempt(work: Callable[[], None]) -> str | None:
    """Why it failed, or None. Libraries wrap the system's errors in their own."""
    try:
        work()
    except OSError as error:
        return error.strerror or str(error)
    except SafetensorError as error:
        return str(error)
    except Exception as error:
        if "(os error " not in str(error):  # as tokenizers 0.22 says it, in an exception of no kind
            raise
        return str(error)
    return None


def _clear(folder: Path) -> None:
    """Remove what killed saves left behind, those of other steps as well."""
    for left in folder.glob(f".step-*{SAVING}"):
        shutil.rmtree(left)


def _fill(temporary: Path, write: Callable[[Path], None]) -> None:
    temporary.mkdir(parents=True, exist_ok=True)
    write(temporary)


def _publish(temporary: Path, folder: Path, run: Path, *, is_best: bool, keep_last: int) -> None:
    files = sorted(path for path in temporary.rglob("*") if path.is_file())
    write_manifest(temporary, {str(path.relative_to(temporary)): _facts(path) for path in files})
    for path in sorted(temporary.rglob("*"), reverse=True):  # a folder after what it holds
        sync(path)
    sync(temporary)
    if folder.exists():  # the same step again, validated now: at every moment one of the two is there
        shutil.rmtree(folder.with_name(folder.name + REPLACED), ignore_errors=True)
        folder.rename(folder.with_name(folder.name + REPLACED))
    temporary.rename(folder)
    sync(folder.parent)
    point(run / LAST, folder)
    if is_best:
        point(run / BEST, folder)
    sync(run)
    # Strict: a link that could not be read would not keep its checkpoint.
    kept = {(run / name).resolve(strict=True) for name in (BEST, LAST) if (run / name).exists()}
    newest = [path for path in checkpoints(run) if not path.name.endswith(REPLACED)]
    kept |= {path.resolve(strict=True) for path in newest[:keep_last]}
    for old in checkpoints(run):
        if old.resolve(strict=True) not in kept:
            shutil.rmtree(old)


def checkpoints(run: Path) -> list[Path]:
    """Published checkpoints, the newest first."""
    found = [(_step_of(path), path) for path in (run / "checkpoints").glob("step-*")]
    # Of the same step the one in place comes before the one that it replaced.
    return [path for step, path in sorted(found, key=lambda pair: (-pair[0], len(pair[1].name))) if step >= 0]


def _step_of(path: Path) -> int:
    number = path.name.removeprefix("step-").removesuffix(REPLACED)
    return int(number) if number.isdigit() else -1


def point_again(run: Path, newest: Path, best_step: int) -> bool:
    """Make `last` and `best` what a state says they are, after a run died between saving and pointing.

    Returns:
        Whether the best checkpoint is there.
    """
    point(run / LAST, newest)
    best = next((path for path in checkpoints(run) if _step_of(path) == best_step), None)
    if best is None or find_damage(best) is not None:
        return False
    point(run / BEST, best)
    return True


def newest_intact(run: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose every byte is as it was written, and a line about each newer one that is damaged."""
    damage: list[str] = []
    for folder in checkpoints(run):
        found = find_damage(folder)
        if found is None:
            return folder, damage
        damage.append(f"{folder.name} is damaged ({found}): it is not used")
    return None, damage


def find_damage(folder: Path) -> str | None:
    """What differs from the checkpoint's manifest; None where nothing does."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        expected = {name: [tuple(facts)] for name, facts in manifest["files"].items()}
        for name, facts in manifest["replaced"].items():
            expected[name].append(tuple(facts))
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} cannot be read"
    if manifest.get("sha256") != _own_hash(manifest):
        return f"{MANIFEST} was changed"
    for name, allowed in expected.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if _facts(path) not in allowed:
            return f"{name} was changed"
    return None


def write_manifest(
    folder: Path, files: dict[str, tuple[int, str]], replaced: dict[str, tuple[int, str]] | None = None
) -> None:
    """Write manifest.json.

    Args:
        files: (bytes, SHA-256) by path.
        replaced: files that may have this other content as well, while they are being replaced.
    """
    manifest: dict[str, Any] = {"format": _FORMAT, "files": files, "replaced": replaced or {}}
    manifest["sha256"] = _own_hash(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _own_hash(manifest: dict[str, Any]) -> str:
    listed = json.dumps([manifest.get("format"), manifest.get("files"), manifest.get("replaced")], sort_keys=True)
    return hashlib.sha256(listed.encode()).hexdigest()


def _facts(path: Path) -> tuple[int, str]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return path.stat().st_size, digest.hexdigest()


def rewrite_task(checkpoint: Path, trained: TrainedTask) -> None:
    """Replace `appraiser.json` of a published checkpoint (the calibration comes after training).

    The manifest allows both contents first, so that the checkpoint is whole at every moment.

    Raises:
        CheckpointError: it could not be written; the checkpoint is what it was.
    """
    failure = _attempt(lambda: _rewrite_task(checkpoint, trained))
    if failure:
        raise CheckpointError(
            f"cannot write {TASK_FILE}: {failure}",
            where=str(checkpoint),
            fix="make room or mend the disk, then go on with --resume; the weights are intact",
        )


def _rewrite_task(checkpoint: Path, trained: TrainedTask) -> None:
    beside = checkpoint / ".task.saving"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    write_task(beside, trained)
    files = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
    # As it is now, which may be what an earlier call wrote.
    files[TASK_FILE] = _facts(checkpoint / TASK_FILE)
    write_manifest(beside, files, {TASK_FILE: _facts(beside / TASK_FILE)})
    for name in (MANIFEST, TASK_FILE):
        sync(beside / name)
        (beside / name).replace(checkpoint / name)
        sync(checkpoint)
    beside.rmdir()


def point(link: Path, target: Path) -> None:
    """Make `link` a relative link to `target`, replacing an older one in one step.

    A run that was copied without its links has whole copies of checkpoints in their place: these go.
    """
    if not link.is_symlink() and (link / MANIFEST).is_file():
        shutil.rmtree(link)
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)
    temporary.replace(link)
