"""Pictures in folders named after their category."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from appraiser.data.sources.source import Source, licence_of
from appraiser.data.sources.tables import TABLE_NAMES
from appraiser.errors import DataError

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif")
# Pictures too: they become rows, so that the quarantine names those that cannot be read.
OTHER_PICTURE_SUFFIXES = (".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".svg", ".psd")
SPLIT_FOLDERS = frozenset(
    "train training val valid validation dev calib calibration test testing eval evaluation".split()
)
NAMES_SHOWN = 5


def open_class_folders(folder: Path) -> Source:
    """Pictures in folders named after their category, in train/ and test/ folders or not."""
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    found = [path for path in files if path.suffix.lower() in PICTURE_SUFFIXES + OTHER_PICTURE_SUFFIXES]
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
    notes = _others(sorted(set(files) - set(found)), folder)
    return Source(str(folder), columns, rows, folder, sha256, licence_of(folder), notes=notes)


def _others(files: list[Path], folder: Path) -> tuple[str, ...]:
    """What is said of files that are no pictures; hidden ones, README and licence are nobody's data."""
    others = [
        path.as_posix()
        for path in files
        if not any(part.startswith(".") for part in path.parts) and not path.name.startswith(("README", "LICEN"))
    ]
    if not others:
        return ()
    kinds = Counter(Path(name).suffix.lower() or "no ending" for name in others).most_common()
    return (
        f"{len(others)} file(s) in {folder} are no pictures and were not read "
        f"({', '.join(f'{count} {kind}' for kind, count in kinds)}): {', '.join(others[:NAMES_SHOWN])}"
        + (", ..." if len(others) > NAMES_SHOWN else ""),
    )
