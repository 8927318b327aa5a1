"""Stand-ins for the network: names answered from a table, and every connection of this process written down."""

from __future__ import annotations

import socket
import sys
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any
from unittest import mock

_look_up = socket.getaddrinfo
LOOPBACK_NAMES = {"localhost": [["127.0.0.1", "::1"]], "ip6-localhost": [["::1"]]}


class Names:
    """Answers look-ups instead of a name server; what is not in the table is read as an address in any spelling.

    Args:
        answers: name -> its answers one after the other, each a list of addresses; the last one stays.
        hangs: names whose look-up takes far longer than anybody waits.
    """

    def __init__(self, answers: Mapping[str, Sequence[Sequence[str]]], hangs: Collection[str] = ()) -> None:
        self.answers = LOOPBACK_NAMES | dict(answers)
        self.hangs = hangs
        self.asked: Counter[str] = Counter()
        self._is_over = threading.Event()

    @contextmanager
    def instead(self) -> Iterator[Names]:
        try:
            with mock.patch.object(socket, "getaddrinfo", self._getaddrinfo):
                yield self
        finally:
            self._is_over.set()

    def _getaddrinfo(self, host: Any, port: Any, *rest: Any, **options: Any) -> list[Any]:
        name = host.lower() if isinstance(host, str) else host
        if name in self.hangs:
            self._is_over.wait(20)
        if name not in self.answers:
            return _look_up(host, port, *rest, **(options | {"flags": socket.AI_NUMERICHOST}))
        answers = self.answers[name]
        self.asked[name] += 1
        found = answers[min(self.asked[name], len(answers)) - 1]
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in found
        ]


class _Watch:
    """Sees connections where Python makes them, whatever library asks for them; audit hooks cannot be taken off."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] | None = None
        self.refuses = True
        self.lock = threading.Lock()
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("socket.connect", "socket.sendto") or self.seen is None:
            return
        address = arguments[1]
        if isinstance(address, tuple):  # a file's name for Unix sockets
            self.seen.append((address[0], address[1]))
            if self.refuses and not ip_address(address[0].split("%")[0]).is_loopback:
                raise ConnectionRefusedError("tests stay on loopback")


_watch: list[_Watch] = []


@contextmanager
def watched_connections(*, refuses: bool = True) -> Iterator[list[tuple[str, int]]]:
    """All (address, port) that anything in this process connects to meanwhile.

    Args:
        refuses: connections that would leave loopback fail, after they have been written down.
    """
    if not _watch:
        _watch.append(_Watch())
    watch = _watch[0]
    with watch.lock:
        watch.seen, watch.refuses = [], refuses
        try:
            yield watch.seen
        finally:
            watch.seen = None
