"""The only place that opens a URL.

One guarded request: http and https only, every address of the host checked before a connection is made to exactly that
address, redirects followed by hand with the same check on every hop, a byte cap while reading and one deadline for
everything. Robots rules are kept. No proxy or credentials are taken from the environment.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
import ssl
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urljoin
from urllib.robotparser import RobotFileParser

import httpx

from appraiser.data.pictures import MAX_BYTES
from appraiser.data.reasons import FetchReason

T = TypeVar("T")
MAX_REDIRECTS = 5
USER_AGENT = "appraiser (builds a data set from the user's own table)"
ROBOT_NAME = "appraiser"
MAX_ROBOTS_BYTES = 512 * 1024  # what a crawler has to read at least (RFC 9309)
MAX_RECENT, MAX_RECENT_BYTES = 4096, 64 * 1024 * 1024
OPT_OUTS = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
"""Words of X-Robots-Tag that ask not to keep a picture, or not to train on it."""

_PASSING: tuple[FetchReason, ...] = ("connection", "http_5xx", "rate_limited")
"""Worth another try at once; a timeout has used up the deadline."""
_HOST_FAULTS: tuple[FetchReason, ...] = ("connection", "timeout", "dns")
# Ranges that the standard library calls global or leaves out: 6to4 relays, site-local, IPv4-compatible, NAT64, CGNAT,
# protocol assignments, documentation.
EXTRA_BLOCKED = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",
        "192.88.99.0/24",
        "100.64.0.0/10",
        "fec0::/10",
        "::/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2002::/16",
        "3fff::/20",
    )
)


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


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, also when it hides in an IPv6 form of IPv4."""
    ip = ipaddress.ip_address(address.split("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    if mapped is not None:
        ip = mapped
    if any(ip.version == network.version and ip in network for network in EXTRA_BLOCKED):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not ip.is_unspecified


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
    """What is known about one host name, and its connections.

    Connections are kept per name: a pool knows them by address, and one that was opened (and, with TLS, checked) for
    one name must not be handed to another name at the same address. A client serves one request at a time, because
    httpx's pools take time quadratic in their connections: 200 requests over 128 of them took 8 s.
    """

    def __init__(self, policy: FetchPolicy, tls: ssl.SSLContext) -> None:
        self.slots = asyncio.Semaphore(policy.num_parallel_per_host)
        self.faults_in_a_row = 0
        self.clients: list[httpx.AsyncClient] = []
        self._idle: list[httpx.AsyncClient] = []
        self._policy = policy
        self._tls = tls

    @contextmanager
    def client(self) -> Iterator[httpx.AsyncClient]:
        """A client for one request; the one used last, as its connection is the most likely to be open still."""
        client = self._idle.pop() if self._idle else self._new_client()
        try:
            yield client
        finally:
            self._idle.append(client)

    def _new_client(self) -> httpx.AsyncClient:
        # trust_env=False: a proxy from the environment would resolve names itself, behind the check.
        client = httpx.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(self._policy.deadline_s, connect=self._policy.connect_timeout_s),
            limits=httpx.Limits(max_keepalive_connections=1, keepalive_expiry=10.0),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            verify=self._tls,
        )
        self.clients.append(client)
        return client


@dataclass(frozen=True)
class _Rules:
    """What robots.txt of one origin allows; `unreadable` says why it could not be read, and then it is nothing."""

    parser: RobotFileParser
    unreadable: str

    def check(self, url: str) -> None:
        if self.unreadable:
            raise _Refused("robots", f"robots.txt cannot be read ({self.unreadable}), so nothing there is fetched")
        if not self.parser.can_fetch(ROBOT_NAME, url):
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
        self._tls = ssl.create_default_context()
        self._resolvers = ThreadPoolExecutor(min(policy.num_parallel, 32), "resolve")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in (*self._robots.values(), *self._under_way.values()):
            task.cancel()
        async with AsyncExitStack() as stack:
            for host in self._hosts.values():
                for client in host.clients:
                    stack.push_async_callback(client.aclose)
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
        host.faults_in_a_row = host.faults_in_a_row + 1 if result.reason in _HOST_FAULTS else 0
        return result

    def _host(self, name: str) -> _Host:
        if name not in self._hosts:
            self._hosts[name] = _Host(self.policy, self._tls)
        return self._hosts[name]

    async def _with_retries(self, url: str) -> bytes:
        ends = time.monotonic() + self.policy.deadline_s
        attempt = 0
        while True:
            try:
                return await self._get(url, self.policy.max_bytes, respect_robots=self.policy.respect_robots)
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

    async def _get(self, url: str, max_bytes: int, *, respect_robots: bool) -> bytes:
        """One request with its redirects."""
        current = url
        for _ in range(MAX_REDIRECTS + 1):
            target = _parsed(current)
            port = target.port or (443 if target.scheme == "https" else 80)
            if respect_robots:
                (await self._rules(target, port)).check(current)
            address = await self._checked_address(target.host, port)
            with self._host(target.host).client() as client:
                answer = await _answer(client, target, address, max_bytes, respect_robots)
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
            host = f"[{target.host}]" if ":" in target.host else target.host
            self._robots[origin] = asyncio.create_task(self._read_robots(f"{target.scheme}://{host}:{port}/robots.txt"))
        return await asyncio.shield(self._robots[origin])

    async def _read_robots(self, url: str) -> _Rules:
        parser, unreadable = RobotFileParser(), ""
        try:
            async with asyncio.timeout(self.policy.deadline_s):
                text = await self._get(url, MAX_ROBOTS_BYTES, respect_robots=False)
            parser.parse(text.decode("utf-8", "replace").splitlines())
        except _Refused as refusal:
            parser.parse([])
            if refusal.reason in ("http_5xx", "rate_limited"):  # then nothing may be fetched (RFC 9309, 2.3.1.4)
                unreadable = refusal.detail
        except TimeoutError:
            parser.parse([])  # a server that is down says so again for each picture, with the right cause
        return _Rules(parser, unreadable)

    async def _checked_address(self, host: str, port: int) -> str:
        """The address to connect to; refused if any address of the host is not public."""
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self._resolvers, _addresses, host, port)
        except (OSError, OverflowError, UnicodeError) as error:  # UnicodeError: names that IDNA cannot write
            raise _Refused("dns", str(error)) from None
        if f"{host}:{port}" in self.policy.allow_private or all(map(is_public, answers)):
            return answers[0]
        raise _Refused(
            "blocked_address", f"{host}:{port} is not on the public internet; your own server: --allow-private"
        )


@dataclass(frozen=True)
class _Redirect:
    location: str


async def _answer(
    client: httpx.AsyncClient, target: httpx.URL, address: str, max_bytes: int, respect_robots: bool
) -> bytes | _Redirect:
    """One request to the address that was checked."""
    request = client.build_request(
        "GET",
        target.copy_with(host=address),
        headers={"Host": target.netloc.decode(), "User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        extensions={"sni_hostname": target.host},
    )
    try:
        response = await client.send(request, stream=True)
        try:
            if response.has_redirect_location:
                return _Redirect(response.headers["location"])
            return await _read(response, max_bytes, respect_robots)
        finally:
            await response.aclose()
    except httpx.TimeoutException:
        raise _Refused("timeout", "the server stopped answering") from None
    except httpx.HTTPError as error:
        raise _Refused("connection", type(error).__name__) from None


def _addresses(host: str, port: int) -> list[str]:
    """All addresses of a name."""
    return [str(answer[4][0]) for answer in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _parsed(url: str) -> httpx.URL:
    try:
        target = httpx.URL(url)
        host = target.host  # decodes the name, which may fail too
    except (httpx.InvalidURL, ValueError) as error:
        raise _Refused("bad_url", str(error)) from None
    if target.scheme not in ("http", "https") or not host or target.userinfo:
        raise _Refused("bad_url", "only http and https addresses without credentials are fetched")
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
        _refuse_opted_out(response.headers.get_list("x-robots-tag"))
    declared = response.headers.get("content-length", "")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > max_bytes:
            raise _Refused("too_large", f"more than {max_bytes / 2**20:.3g} MiB")
    if declared.isascii() and declared.isdigit() and len(body) != int(declared):
        raise _Refused("connection", "the body ended early")
    return bytes(body)


def _refuse_opted_out(tags: Sequence[str]) -> None:
    """`X-Robots-Tag: noai` or `appraiser: noai`; what is said to another robot by name does not count."""
    for tag in tags:
        name, colon, rest = tag.partition(":")
        if colon and name.strip().lower() not in (ROBOT_NAME, "*") and "," not in name:
            continue
        words = {word.strip().lower() for word in (rest if colon else tag).split(",")}
        if words & OPT_OUTS:
            raise _Refused("opted_out", f"X-Robots-Tag says {', '.join(sorted(words & OPT_OUTS))}")


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header, which holds a number or a date; None where it holds neither."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
