"""The only place that opens a URL.

One guarded request: http and https only, every address of the host checked before a connection is made to exactly that
address, redirects followed by hand with the same check on every hop, a byte cap while reading and one deadline for
everything. Robots rules are kept. No proxy or credentials are taken from the environment.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urljoin

import httpx

from appraiser.data.addresses import is_public
from appraiser.data.pictures import MAX_BYTES
from appraiser.data.reasons import FetchReason
from appraiser.data.robots import RobotRules, opt_outs, parse_robots

T = TypeVar("T")
MAX_REDIRECTS = 5
USER_AGENT = "appraiser (builds a data set from the user's own table)"
ROBOT_NAME = "appraiser"
MAX_ROBOTS_BYTES = 512 * 1024  # what a crawler has to read at least (RFC 9309)
MAX_RECENT, MAX_RECENT_BYTES = 4096, 64 * 1024 * 1024

_PASSING: tuple[FetchReason, ...] = ("connection", "http_5xx", "rate_limited")
"""Worth another try at once; a timeout has used up the deadline."""
_NO_ANSWER: tuple[FetchReason, ...] = ("connection", "timeout", "dns")
"""A server that gives no answer at all; many in a row end further requests to it."""


@dataclass(frozen=True)
class Fetched:
    """What a URL gave: bytes, or the reason why not."""

    url: str
    data: bytes | None = None
    reason: FetchReason | None = None
    detail: str = ""


@dataclass(frozen=True)
class FetchPolicy:
    """Limits of one fetch job.

    Args:
        allow_private: `host:port` of one's own servers that may have private or loopback addresses.
        deadline_s: seconds for one URL, retries and redirects included.
        num_parallel_per_host: strangers' servers are asked for few pictures at a time; one's own can take more.
        respect_robots: keep robots.txt and X-Robots-Tag; False where the servers are one's own.
        max_host_faults: that many URLs of a host failing in a row end all further requests to it; None never.
    """

    allow_private: frozenset[str] = frozenset()
    deadline_s: float = 30.0
    connect_timeout_s: float = 5.0
    max_bytes: int = MAX_BYTES
    num_parallel: int = 64
    num_parallel_per_host: int = 4
    num_retries: int = 2
    respect_robots: bool = True
    max_host_faults: int | None = 20


class _Refused(Exception):
    """A request that gives no bytes."""

    def __init__(self, reason: FetchReason, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.reason: FetchReason = reason
        self.detail = detail
        self.retry_after_s = retry_after_s


def fetch_all(urls: Sequence[str], policy: FetchPolicy) -> list[Fetched]:
    """Fetch all URLs with bounded parallelism, in the order given. Never raises for a URL."""

    async def fetch() -> list[Fetched]:
        async with Fetcher(policy) as fetcher:
            return list(await asyncio.gather(*map(fetcher.fetch, urls)))

    return run_to_end(fetch())


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """Run in an event loop of its own, also where one is running already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1, "event loop") as thread:
        return thread.submit(asyncio.run, work).result()


class _Host:
    """What is known about one host name, and its idle connections.

    Connections are kept per name: a pool knows them by address, and one that was opened (and, with TLS, checked) for
    one name must not be handed to another name at the same address. A pool serves one request at a time, because
    httpx's pools take time quadratic in their connections: 200 requests over 128 of them took 8 s.
    """

    def __init__(self, num_parallel: int) -> None:
        self.slots = asyncio.Semaphore(num_parallel)
        self.faults_in_a_row = 0
        self.idle: list[httpx.AsyncHTTPTransport] = []


def _has_leftovers(pool: httpx.AsyncHTTPTransport) -> bool:
    """Whether more came than the answer: the next request on that connection would take it for its own answer.

    httpx 0.28 does not look, and has no public way to ask. Where its inside changes, connections are not used again.
    """
    try:
        return any(connection._connection._h11_state.trailing_data[0] for connection in pool._pool.connections)  # type: ignore[attr-defined]
    except AttributeError:
        return True


@dataclass(frozen=True)
class _Rules:
    """What robots.txt of one origin allows; `unreadable` says why it could not be read, and then it is nothing."""

    rules: RobotRules
    unreadable: str = ""

    def check(self, target: httpx.URL) -> None:
        if self.unreadable:
            raise _Refused("robots", f"robots.txt cannot be read ({self.unreadable}), so nothing there is fetched")
        if not self.rules.allows(target.raw_path.decode("ascii")):
            raise _Refused("robots", "robots.txt asks not to fetch this")


class Fetcher:
    """Fetches URLs in one event loop; an async context manager that closes its connections."""

    def __init__(self, policy: FetchPolicy) -> None:
        self.policy = policy
        self._slots = asyncio.Semaphore(policy.num_parallel)
        self._hosts: dict[str, _Host] = {}
        self._robots: dict[tuple[str, str, int], asyncio.Task[_Rules]] = {}
        self._under_way: dict[str, asyncio.Task[Fetched]] = {}
        self._recent: dict[str, Fetched] = {}
        self._recent_bytes = 0
        self._idle: dict[httpx.AsyncHTTPTransport, _Host] = {}
        self._tls = ssl.create_default_context()
        # One for each request: names that hang must not keep others from being looked up.
        self._resolvers = ThreadPoolExecutor(policy.num_parallel, "resolve")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [*self._robots.values(), *self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with AsyncExitStack() as stack:
            for pool in self._idle:
                stack.push_async_callback(pool.aclose)
        self._resolvers.shutdown(wait=False, cancel_futures=True)

    async def fetch(self, url: str) -> Fetched:
        """Bytes of a URL, or why there are none. Never raises for a URL.

        An address that is being fetched, or was a moment ago, is not asked for again: variants of a product share it.
        """
        if url in self._recent:
            return self._recent[url]
        if url not in self._under_way:
            self._under_way[url] = asyncio.create_task(self._fetch(url))
            self._under_way[url].add_done_callback(lambda task: self._finish(url, task))
        return await self._under_way[url]

    def _finish(self, url: str, task: asyncio.Task[Fetched]) -> None:
        del self._under_way[url]
        if task.cancelled():
            return
        self._recent[url] = task.result()
        self._recent_bytes += len(task.result().data or b"")
        while self._recent_bytes > MAX_RECENT_BYTES or len(self._recent) > MAX_RECENT:
            oldest = self._recent.pop(next(iter(self._recent)))
            self._recent_bytes -= len(oldest.data or b"")

    async def _fetch(self, url: str) -> Fetched:
        try:
            target = _parsed(url)
        except _Refused as refusal:
            return Fetched(url, reason=refusal.reason, detail=refusal.detail)
        host = self._host(target.host)
        # The host's own slot first: a slow host must not sit on slots that other hosts could use.
        async with host.slots, self._slots:
            limit = self.policy.max_host_faults
            if limit is not None and host.faults_in_a_row >= limit:
                what = f"{target.host} failed {host.faults_in_a_row} times in a row and was not asked again"
                return Fetched(url, reason="host_down", detail=what)
            try:
                async with asyncio.timeout(self.policy.deadline_s):
                    result = Fetched(url, await self._with_retries(url))
            except TimeoutError:
                result = Fetched(url, reason="timeout", detail=f"no answer within {self.policy.deadline_s:g} s")
            except _Refused as refusal:
                result = Fetched(url, reason=refusal.reason, detail=refusal.detail)
        host.faults_in_a_row = host.faults_in_a_row + 1 if result.reason in _NO_ANSWER else 0
        return result

    def _host(self, name: str) -> _Host:
        if name not in self._hosts:
            self._hosts[name] = _Host(self.policy.num_parallel_per_host)
        return self._hosts[name]

    @asynccontextmanager
    async def _pool(self, host: _Host) -> AsyncIterator[httpx.AsyncHTTPTransport]:
        """A pool for one request; the host's last one, as its connection is the most likely to be open still."""
        pool = host.idle.pop() if host.idle else self._new_pool()
        self._idle.pop(pool, None)
        try:
            yield pool
        finally:
            if _has_leftovers(pool):
                await pool.aclose()
            else:
                host.idle.append(pool)
                self._idle[pool] = host
            if len(self._idle) > self.policy.num_parallel:  # of a table of many hosts, each would keep one open
                oldest = next(iter(self._idle))
                self._idle.pop(oldest).idle.remove(oldest)
                await oldest.aclose()

    def _new_pool(self) -> httpx.AsyncHTTPTransport:
        # Not a client: that would also read cookies and take redirects apart, and raise what its parsers raise.
        # trust_env=False: a proxy from the environment would resolve names itself, behind the check.
        limits = httpx.Limits(max_keepalive_connections=1, keepalive_expiry=10.0)
        return httpx.AsyncHTTPTransport(verify=self._tls, trust_env=False, limits=limits)

    async def _with_retries(self, url: str) -> bytes:
        ends = time.monotonic() + self.policy.deadline_s
        attempt = 0
        while True:
            try:
                return await self._get(url, ends, self.policy.max_bytes, self.policy.respect_robots)
            except _Refused as refusal:
                if refusal.reason not in _PASSING or attempt == self.policy.num_retries:
                    raise
                wait = min(2.0**attempt * 0.5, 8.0) * random.uniform(0.75, 1.25)
                if refusal.retry_after_s is not None:
                    wait = max(wait, refusal.retry_after_s)
                if time.monotonic() + wait >= ends:  # it would be asked before it wants to be
                    raise
            attempt += 1
            await asyncio.sleep(wait)

    async def _get(self, url: str, ends: float, max_bytes: int, respect_robots: bool) -> bytes:
        """One request with its redirects; `ends` is the moment of its deadline."""
        current = url
        for _ in range(MAX_REDIRECTS + 1):
            target = _parsed(current)
            port = target.port or (443 if target.scheme == "https" else 80)
            if respect_robots:
                (await self._rules(target, port)).check(target)
            address = await self._checked_address(target, port)
            async with self._pool(self._host(target.host)) as pool:
                answer = await _answer(pool, self._request(target, address, ends), max_bytes, respect_robots)
            if isinstance(answer, bytes):
                return answer
            try:
                current = urljoin(current, answer.location)
            except ValueError:
                raise _Refused("bad_url", "the server redirects to something that is no address") from None
        raise _Refused("redirects", f"more than {MAX_REDIRECTS} redirects")

    async def _rules(self, target: httpx.URL, port: int) -> _Rules:
        """Robots rules of an origin, read once however many pictures come from there."""
        origin = (target.scheme, target.host, port)
        if origin not in self._robots:
            reading = asyncio.create_task(self._read_robots(target.join("/robots.txt")))
            self._robots[origin] = reading
            reading.add_done_callback(lambda task: self._keep_robots(origin, task))
        try:
            return await asyncio.shield(self._robots[origin])
        except _Refused as refusal:
            if refusal.reason == "dns":
                raise
            raise _Refused(refusal.reason, f"robots.txt cannot be read: {refusal.detail}") from None

    def _keep_robots(self, origin: tuple[str, str, int], task: asyncio.Task[_Rules]) -> None:
        if task.cancelled() or task.exception():  # the next picture, or the next try, asks anew
            del self._robots[origin]

    async def _read_robots(self, url: httpx.URL) -> _Rules:
        """A server that says it has no rules has none; one that cannot say so is asked for nothing (RFC 9309, 2.3.1).

        Raises:
            _Refused: it did not answer; no picture of it would fare better.
        """
        ends = time.monotonic() + self.policy.deadline_s
        try:
            async with asyncio.timeout(self.policy.deadline_s):
                data = await self._get(str(url), ends, MAX_ROBOTS_BYTES, False)
            return _Rules(parse_robots(data, ROBOT_NAME))
        except TimeoutError:
            raise _Refused("timeout", f"no answer within {self.policy.deadline_s:g} s") from None
        except _Refused as refusal:
            if refusal.reason in _NO_ANSWER:
                raise
            is_unreadable = refusal.reason in ("http_5xx", "rate_limited", "too_large")
            return _Rules(RobotRules(), refusal.detail if is_unreadable else "")

    async def _checked_address(self, target: httpx.URL, port: int) -> str:
        """The address to connect to; refused if any address of the host is not public."""
        loop = asyncio.get_running_loop()
        try:
            # raw_host: Python writes some names in letters (straße.example) otherwise than httpx, as another host.
            answers = await loop.run_in_executor(self._resolvers, _addresses, target.raw_host.decode("ascii"), port)
        except (OSError, OverflowError, UnicodeError) as error:  # UnicodeError: labels that are too long or empty
            raise _Refused("dns", str(error)) from None
        if f"{target.host}:{port}" in self.policy.allow_private or all(map(is_public, answers)):
            return answers[0]
        raise _Refused(
            "blocked_address",
            f"{target.host}:{port} is not on the public internet; your own server: --allow-private",
        )

    def _request(self, target: httpx.URL, address: str, ends: float) -> httpx.Request:
        """A request to the address that was checked, in the name of the host."""
        # Connecting and the TLS handshake have this limit each, and both have to end before the deadline cuts them
        # off: httpcore 1.0 closes the socket of a handshake that timed out, and not of one that was cancelled.
        connect = min(self.policy.connect_timeout_s, max(ends - time.monotonic(), 0.0) / 2)
        timeout = httpx.Timeout(self.policy.deadline_s, connect=connect)
        return httpx.Request(
            "GET",
            target.copy_with(host=address),
            headers={
                "Host": target.netloc.decode("ascii"),
                "User-Agent": USER_AGENT,
                "Accept": "*/*",
                "Accept-Encoding": "identity",
            },
            extensions={"sni_hostname": target.raw_host.decode("ascii"), "timeout": timeout.as_dict()},
        )


@dataclass(frozen=True)
class _Redirect:
    location: str


async def _answer(
    pool: httpx.AsyncHTTPTransport, request: httpx.Request, max_bytes: int, respect_robots: bool
) -> bytes | _Redirect:
    """Send one request and read what comes."""
    try:
        response = await pool.handle_async_request(request)
        try:
            if response.has_redirect_location:
                return _Redirect(response.headers["location"])
            return await _read(response, max_bytes, respect_robots)
        finally:
            await response.aclose()
    except httpx.TimeoutException:
        raise _Refused("timeout", "the server stopped answering") from None
    except _Refused:
        raise
    except Exception as error:  # an HTTPError, or what the layers beneath httpx let through on odd input: one row lost
        raise _Refused("connection", type(error).__name__) from None


def _addresses(host: str, port: int) -> list[str]:
    """All addresses of a name."""
    return [str(answer[4][0]) for answer in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _parsed(url: str) -> httpx.URL:
    try:
        target = httpx.URL(url.strip())  # cells have blanks and line breaks around their text
        host = target.host  # decodes the name, which may fail too
    except (httpx.InvalidURL, ValueError) as error:
        raise _Refused("bad_url", str(error)) from None
    if target.scheme not in ("http", "https") or not host or target.userinfo:
        raise _Refused("bad_url", "only http and https addresses without credentials are fetched")
    if target.port is not None and not 0 < target.port < 65536:
        raise _Refused("bad_url", f"there is no port {target.port}")
    return target


async def _read(response: httpx.Response, max_bytes: int, respect_robots: bool) -> bytes:
    status = response.status_code
    if status != 200:
        wait = _retry_after(response.headers.get("retry-after"))
        asks = "" if wait is None else f"; it asks to wait {wait:.0f} s"
        if status in (429, 503):
            raise _Refused("rate_limited" if status == 429 else "http_5xx", f"HTTP {status}{asks}", wait)
        raise _Refused("http_5xx" if status >= 500 else "http_4xx", f"HTTP {status}")
    if respect_robots:
        words = opt_outs(response.headers.get_list("x-robots-tag"), ROBOT_NAME)
        if words:
            raise _Refused("opted_out", f"X-Robots-Tag says {', '.join(sorted(words))}")
    declared = response.headers.get("content-length", "")
    body = bytearray()
    num_chunks = 0
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > max_bytes:
            raise _Refused("too_large", f"more than {max_bytes / 2**20:.3g} MiB")
        num_chunks += 1
        if num_chunks % 64 == 0:  # chunks of a byte: thousands come at once, and deadlines would wait for them
            await asyncio.sleep(0)
    if declared.isascii() and declared.isdigit() and len(body) != int(declared):
        raise _Refused("connection", "the body ended early")
    return bytes(body)


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header, which holds a number or a date; None where it holds neither."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # OverflowError: a year of eleven digits
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
