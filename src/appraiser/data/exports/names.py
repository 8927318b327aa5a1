"""File names for pictures of a record: its id where that is a plain code, never a path of the table's making."""

from __future__ import annotations

import hashlib
import re

# No lower case: a1.jpg and A1.jpg are one file on Windows and macOS.
PLAIN = re.compile(r"[A-Z0-9][A-Z0-9-]{0,63}")
RESERVED = {"CON", "PRN", "AUX", "NUL"} | {f"{device}{number}" for device in ("COM", "LPT") for number in range(10)}
MAX_WORDS = 40


def picture_stem(record_id: str, number: int = 0) -> str:
    """File name, without its ending, of a record's picture.

    Args:
        number: of the picture among the record's, from 0.

    Returns:
        ASCII letters, digits, `-` and `_`; at most 64 + 17 characters. Another for every id, also where letters' case
        does not count: an id that is no plain code is told from others by its hash.
    """
    if PLAIN.fullmatch(record_id) and record_id not in RESERVED:
        stem = record_id
    else:
        words = re.sub(r"[^A-Za-z0-9]+", "-", record_id[:MAX_WORDS]).strip("-")
        stem = f"{words}_{hashlib.sha256(record_id.encode('utf-8')).hexdigest()[:16]}"
    return f"{stem}_{number + 1}" if number else stem


def picture_suffix(data: bytes) -> str:
    """`png` or `jpg`, by the bytes: a data set holds nothing else."""
    return "png" if data.startswith(b"\x89PNG") else "jpg"
