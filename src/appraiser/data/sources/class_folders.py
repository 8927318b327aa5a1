"""Pictures in folders named after their category."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from appraiser.data.sources.source import Source, licence_of
from appraiser.data.sources.tables import TABLE_NAMES
from appraiser.errors import DataError

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif")
SPLIT_FOLDERS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test"})


def open_class_folders(folder: Path) -> Source:
    """Pictures in folders named after their category, in train/ and test/ folders or not."""
    found = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    has_splits = bool(found) and all(path.parts[0].lower() in SPLIT_FOLDERS for path in found)
    depth = 1 if has_splits else 0
    loose = [path for path in found if len(path.parts) < depth + 2]
    if not found or loose:
        raise DataError(
            f"{loose[0]} lies in no category's folder" if found else f"no table in {folder}",
            where=str(folder),
            fix=f"put one of {', '.join(TABLE_NAMES)} there, name the file itself, or give every category a folder",
        )
    names = [path.as_posix() for path in found]

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        for number, (path, name) in enumerate(zip(found, names, strict=True), start=1):
            row = {"image": name, "category": path.parts[depth]}
            yield number, row | ({"source_split": path.parts[0]} if has_splits else {})

    columns = ("image", "category", "source_split") if has_splits else ("image", "category")
    sha256 = hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()
    return Source(str(folder), columns, rows, folder, sha256, licence_of(folder))
