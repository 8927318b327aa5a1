"""A picture server on loopback that behaves as its paths ask, and writes down what was asked, and when.

`/BEHAVIOUR/REST`: the first part names a function of behaviours.py, the rest tells paths apart: `/picture/7`. The
server runs in a thread with an event loop of its own.
"""

from __future__ import annotations

import asyncio
import io
import ssl
import threading
import time
from asyncio import sleep  # by name: tests shorten the waits of the code under test through the module
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import numpy as np
from behaviours import BEHAVIOURS, missing
from PIL import Image

from appraiser.data.fetch import FetchPolicy


@cache
def picture(number: int, side: int = 36) -> bytes:
    """JPEG of a coarse random grid, another one for every number."""
    cells = np.random.default_rng(number).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(cells).resize((side, side), Image.Resampling.NEAREST).save(buffer, "JPEG")
    return buffer.getvalue()


@dataclass
class Request:
    """One request and the way to answer it."""

    server: ShopServer
    path: str
    headers: dict[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    hangs_up: bool = False

    @property
    def parts(self) -> list[str]:
        return self.path.strip("/").split("/")

    @property
    def number(self) -> int:
        return int(self.parts[-1])

    @property
    def tries(self) -> int:
        """How often this path has been asked for, this time included."""
        return self.server.asked[self.path]

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()
        self.server.num_sent_bytes += len(data)

    async def head(self, status: int = 200, **headers: str) -> None:
        fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        await self.send(f"HTTP/1.1 {status} Status\r\n{fields}\r\n".encode())

    async def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        await self.head(status, **(headers | {"Content_Length": str(len(body))}))
        await self.send(body)

    async def answer_picture(self, **headers: str) -> None:
        await self.answer(200, picture(self.number), **headers)

    async def repeat(self, data: bytes, times: int, pause_s: float = 0.0) -> None:
        """Send the same again and again, until the client leaves."""
        self.hangs_up = True
        for _ in range(times):
            if self.reader.at_eof():
                return
            await self.send(data)
            await sleep(pause_s)


class ShopServer:
    """A context manager; `port`, `place` and `tls_port` say where it listens.

    Args:
        hosts: addresses to listen at, all on one port; the first is the place.
        tls: certificate of a second port that speaks TLS.
    """

    def __init__(self, *hosts: str, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.hosts = hosts or ("127.0.0.1",)
        self.asked: Counter[str] = Counter()
        self.headers_seen: list[dict[str, str]] = []
        self.spans: dict[str, tuple[float, float]] = {}
        """Path -> when it was first asked for, and when the last answer to it ended or its client left."""
        self.num_asked = self.num_connections = self.num_open = self.max_open = self.num_sent_bytes = 0
        self.reached_at: Counter[str] = Counter()
        """Connections by the address that they were made to."""
        self.broken: dict[int, int] = {}
        """Pictures that give a status instead."""
        self.robots: dict[str, tuple[int, bytes]] = {}
        """Host name, or "" for all others -> status and text of its robots.txt; 302 and where to; 0 to drip."""
        self.targets: list[str] = []
        """Where `/to/302/NUMBER` sends one."""
        self.retry_after = self.tag = ""
        self.latency_s = 0.0
        self.port, self.tls_port = port, 0
        self._tls = tls
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        for host in self.hosts:
            self.port = asyncio.run_coroutine_threadsafe(self._listen(host, self.port, None), self._loop).result()
        if self._tls is not None:
            listening = self._listen(self.hosts[0], 0, self._tls)
            self.tls_port = asyncio.run_coroutine_threadsafe(listening, self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    picture = staticmethod(picture)

    @property
    def place(self) -> str:
        return f"{self.hosts[0]}:{self.port}"

    def url(self, path: str) -> str:
        return f"http://{self.place}{path}"

    def policy(self, **limits: Any) -> FetchPolicy:
        """What may fetch from here."""
        return FetchPolicy(frozenset({self.place}), **({"num_retries": 0, "num_parallel_per_host": 8} | limits))

    async def _listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        server = await asyncio.start_server(self._connected, host, port, ssl=tls, backlog=512, limit=2**20)
        self._servers.append(server)
        return server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        self.reached_at[writer.get_extra_info("sockname")[0]] += 1
        self.num_open += 1
        self.max_open = max(self.max_open, self.num_open)
        try:
            while await self._served(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # the client has left, says what is no HTTP, or the server ends
        finally:
            self.num_open -= 1
            writer.transport.abort() if writer.is_closing() else writer.close()

    async def _served(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; says whether another may come on this connection."""
        line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        request = Request(self, line.split()[1], headers, reader, writer)
        began = time.monotonic()
        self.headers_seen.append(headers)
        self.asked[request.path] += 1
        self.num_asked += 1
        try:
            await sleep(self.latency_s)
            await BEHAVIOURS.get(request.parts[0].partition("?")[0], missing)(request)
        except (ValueError, IndexError):  # a path that is none of ours
            await missing(request)
        finally:
            self.spans[request.path] = (self.spans.get(request.path, (began, 0.0))[0], time.monotonic())
        return not request.hangs_up
