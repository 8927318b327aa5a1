"""A folder that appears whole or not at all: filled beside its place, and renamed when everything in it is right."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appraiser.errors import DataError


@contextmanager
def published(out: str | Path) -> Iterator[Path]:
    """A new folder beside `out`; becomes `out` when the block ends well, and goes when it does not.

    Raises:
        DataError: something is in the way, or it cannot be written.
    """
    target = Path(out) if Path(out).name not in ("", "..") else Path(out).resolve()
    if target.is_file():
        raise DataError(f"{target} is a file", fix="name a folder for the export")
    if target.exists() and any(target.iterdir()):
        raise DataError(f"{target} exists and is not empty", fix="name another folder, or remove this one")
    staging = target.with_name(f".{target.name}.exporting")
    try:
        staging.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(target, error) from error
    try:
        staging.mkdir()
    except FileExistsError:
        raise DataError(
            f"another export to {target} is running, or was killed",
            where=str(staging),
            fix="wait for it; if there is none, remove that folder",
        ) from None
    except OSError as error:
        raise _cannot_write(target, error) from error
    try:
        yield staging
        staging.rename(target)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _cannot_write(target: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot write the export: {error.strerror or error}", where=str(target), fix="check space and permissions"
    )
