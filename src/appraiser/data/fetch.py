"""The only place that opens a URL.

One guarded request: http and https only, every address of the host checked before a connection is made to exactly that
address, redirects followed by hand with the same check on every hop, a byte cap while reading and one deadline for
everything. No proxy or credentials are taken from the environment.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Literal
from urllib.parse import urljoin

import httpx

from appraiser.data.pictures import MAX_BYTES

MAX_REDIRECTS = 5
RETRIED_STATUS = (429, 500, 502, 503, 504)
USER_AGENT = "appraiser (builds a data set from the user's own table)"

FetchReason = Literal[
    "bad_url", "dns", "blocked_address", "connection", "timeout", "http_4xx", "http_5xx", "redirects", "too_large"
]
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
    """

    allow_private: frozenset[str] = frozenset()
    deadline_s: float = 30.0
    connect_timeout_s: float = 5.0
    max_bytes: int = MAX_BYTES
    num_parallel: int = 32
    num_parallel_per_host: int = 4
    num_retries: int = 2


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
    return asyncio.run(_fetch_all(urls, policy))


async def _fetch_all(urls: Sequence[str], policy: FetchPolicy) -> list[Fetched]:
    everywhere = asyncio.Semaphore(policy.num_parallel)
    per_host: dict[str, asyncio.Semaphore] = {}
    timeout = httpx.Timeout(policy.deadline_s, connect=policy.connect_timeout_s)
    # trust_env=False: a proxy from the environment would resolve names itself, behind the check.
    # No connection is kept: the pool knows it by address, and would hand one that was checked for one name to another.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(
        trust_env=False, follow_redirects=False, timeout=timeout, limits=limits, cookies=_no_cookies()
    ) as client:

        async def one(url: str) -> Fetched:
            host = _host_of(url)
            own = per_host.setdefault(host, asyncio.Semaphore(policy.num_parallel_per_host))
            async with own, everywhere:
                try:
                    async with asyncio.timeout(policy.deadline_s):
                        return await _fetch_with_retries(client, url, policy)
                except TimeoutError:
                    return Fetched(url, reason="timeout", detail=f"no answer within {policy.deadline_s:g} s")

        return list(await asyncio.gather(*(one(url) for url in urls)))


def _no_cookies() -> CookieJar:
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


def _host_of(url: str) -> str:
    try:
        return httpx.URL(url).host
    except (httpx.InvalidURL, ValueError):
        return ""


async def _fetch_with_retries(client: httpx.AsyncClient, url: str, policy: FetchPolicy) -> Fetched:
    result = Fetched(url, reason="connection", detail="not tried")
    for attempt in range(policy.num_retries + 1):
        result = await _fetch_once(client, url, policy)
        if result.reason not in ("connection", "http_5xx") or attempt == policy.num_retries:
            break
        await asyncio.sleep(min(2.0**attempt * 0.5, 8.0))
    return result


async def _fetch_once(client: httpx.AsyncClient, url: str, policy: FetchPolicy) -> Fetched:
    current = url
    for _ in range(MAX_REDIRECTS + 1):
        try:
            target = httpx.URL(current)
            host = target.host  # decodes the name, which may fail too
        except (httpx.InvalidURL, ValueError) as error:
            return Fetched(url, reason="bad_url", detail=str(error))
        if target.scheme not in ("http", "https") or not host or target.userinfo:
            return Fetched(
                url, reason="bad_url", detail="only http and https addresses without credentials are fetched"
            )
        port = target.port or (443 if target.scheme == "https" else 80)
        try:
            address = await _checked_address(host, port, policy)
        except (OSError, OverflowError, UnicodeError) as error:  # UnicodeError: names that IDNA cannot write
            return Fetched(url, reason="dns", detail=str(error))
        if address is None:
            return Fetched(
                url,
                reason="blocked_address",
                detail=f"{host}:{port} is not on the public internet; your own server: --allow-private",
            )
        try:
            request = client.build_request(
                "GET",
                target.copy_with(host=address),
                headers={"Host": target.netloc.decode(), "User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
                extensions={"sni_hostname": target.host},
            )
            response = await client.send(request, stream=True)
            try:
                if response.has_redirect_location:
                    current = urljoin(current, response.headers["location"])
                    continue
                return await _read(url, response, policy)
            except ValueError:
                return Fetched(url, reason="bad_url", detail="the server redirects to something that is no address")
            finally:
                await response.aclose()
        except httpx.TimeoutException:
            return Fetched(url, reason="timeout", detail="the server stopped answering")
        except httpx.HTTPError as error:
            return Fetched(url, reason="connection", detail=type(error).__name__)
    return Fetched(url, reason="redirects", detail=f"more than {MAX_REDIRECTS} redirects")


async def _checked_address(host: str, port: int, policy: FetchPolicy) -> str | None:
    """The address to connect to; None if any address of the host is not public. Raises OSError if there is none."""
    loop = asyncio.get_running_loop()
    answers = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(answer[4][0]) for answer in answers]
    if f"{host}:{port}" in policy.allow_private or all(is_public(address) for address in addresses):
        return addresses[0]
    return None


async def _read(url: str, response: httpx.Response, policy: FetchPolicy) -> Fetched:
    status = response.status_code
    if status != 200:
        is_servers = status >= 500 or status in RETRIED_STATUS
        return Fetched(url, reason="http_5xx" if is_servers else "http_4xx", detail=f"HTTP {status}")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > policy.max_bytes:
            return Fetched(url, reason="too_large", detail=f"more than {policy.max_bytes >> 20} MiB")
    declared: Mapping[str, str] = response.headers
    if "content-length" in declared and len(body) != int(declared["content-length"]):
        return Fetched(url, reason="connection", detail="the body ended early")
    return Fetched(url, bytes(body))
