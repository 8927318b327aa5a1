"""Files that outlive a power cut: written beside, brought to the disk, renamed into their place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def sync(path: Path) -> None:
    """Force a file or folder to disk; of a folder, the names in it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have a file written beside, put it to disk, and only then into its place."""
    temporary = path.with_name(f".{path.name}.new")
    write(temporary)
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)
