"""Files with the keys of services: one a line; lines that begin with # are comments."""

from __future__ import annotations

from pathlib import Path

from appraiser.errors import ConfigError


def read_keys(path: Path, min_length: int = 1) -> list[str]:
    """All keys of a file, at least one; no message repeats a key.

    Raises:
        ConfigError: no file, no key in it, one shorter than `min_length`, or one that no HTTP header can hold.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the key file {path}", fix="name a text file with one key a line") from error
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not keys:
        raise ConfigError(f"there is no key in {path}", fix="write one a line: openssl rand -hex 24")
    for number, key in enumerate(keys, start=1):
        if not key.isascii() or " " in key:
            raise ConfigError(
                f"key {number} of {path} has other than ASCII letters, digits and signs", fix="write one key a line"
            )
        if len(key) < min_length:
            raise ConfigError(
                f"key {number} of {path} is shorter than {min_length} characters",
                fix="make one that nobody guesses: openssl rand -hex 24",
            )
    return keys
