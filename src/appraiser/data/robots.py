"""What a shop asks of robots: robots.txt (RFC 9309) says where they may go, X-Robots-Tag what may be kept.

robots.txt has groups by robot name, of which the longest matching path counts, and `*` and `$` in paths.
Not urllib.robotparser, which raises on lines that strangers write (`Crawl-delay: ²`, `Disallow: //[`), loses the first
group behind a byte order mark, takes the first matching path instead of the longest, and reads `*` as a letter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

OPT_OUTS = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
"""Words of X-Robots-Tag that ask not to keep a picture, or not to train on it."""

_NAME = re.compile(r"[a-z_-]+")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_PRINTABLE = "".join(map(chr, range(33, 127)))


@dataclass(frozen=True)
class RobotRules:
    """Paths of one origin that a robot may fetch, or must not.

    Args:
        rules: (path with `*` and `$`, whether it is allowed), the one that counts first before the others.
    """

    rules: tuple[tuple[str, bool], ...] = ()

    def allows(self, path: str) -> bool:
        """Whether a path, with its query, may be fetched."""
        path = _normal(path)
        return next((is_allowed for pattern, is_allowed in self.rules if _matches(pattern, path)), True)


def parse_robots(data: bytes, robot: str) -> RobotRules:
    """Rules for one robot: those of all groups that name it, or else of the groups for everybody. Never raises."""
    found: dict[str, list[tuple[str, bool]]] = {}
    names: list[str] = []
    is_naming = False
    for line in data.removeprefix(b"\xef\xbb\xbf").splitlines():
        key, _, value = line.decode("utf-8", "replace").partition("#")[0].partition(":")
        key, value = key.strip().lower(), value.strip()
        if key == "user-agent":
            found_name = _NAME.match(value.lower())
            names = [*(names if is_naming else []), found_name.group() if found_name else value[:1]]
            found.setdefault(names[-1], [])
            is_naming = True
        elif key in ("allow", "disallow"):
            is_naming = False
            if value:
                for name in names:
                    found[name].append((_normal(value), key == "allow"))
    rules = found.get(robot, found.get("*", []))
    return RobotRules(tuple(sorted(rules, key=lambda rule: (-len(rule[0]), not rule[1]))))


def opt_outs(tags: Sequence[str], robot: str) -> set[str]:
    """Words of X-Robots-Tag headers by which a picture is not to be kept.

    `noai`, `appraiser: noai`; what is said to another robot by name does not count.
    """
    found: set[str] = set()
    for tag in tags:
        name, colon, rest = tag.partition(":")
        if colon and name.strip().lower() not in (robot, "*") and "," not in name:
            continue
        found |= {word.strip().lower() for word in (rest if colon else tag).split(",")} & OPT_OUTS
    return found


def _matches(pattern: str, path: str) -> bool:
    first, *others = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    if pattern.endswith("$"):
        if not others:
            return path == first
        last = others.pop()
        if not path.endswith(last):
            return False
        path = path[: len(path) - len(last)]
    place = len(first)
    for piece in others:
        place = path.find(piece, place)
        if place < 0:
            return False
        place += len(piece)
    return place <= len(path)


def _normal(path: str) -> str:
    """One spelling of a path: what need not be escaped is not, everything else is, in capitals."""
    return _ESCAPE.sub(_unescaped, quote(path, safe=_PRINTABLE))


def _unescaped(escape: re.Match[str]) -> str:
    letter = chr(int(escape.group(1), 16))
    return letter if letter.isascii() and (letter.isalnum() or letter in "-._~") else escape.group().upper()
