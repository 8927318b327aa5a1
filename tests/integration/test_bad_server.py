"""Every way in which a picture server can misbehave costs its own rows, by the right cause, in bounded time and memory.

A few URLs per behaviour in the suite, 50 in `make soak`.
"""

from __future__ import annotations

import csv
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from network import Names, watched_connections
from shop_server import ShopServer, picture

from appraiser.data.building.build import build_dataset
from appraiser.data.dataset import open_dataset
from appraiser.data.fetch import Fetcher, FetchPolicy
from appraiser.data.reasons import REASONS

DEADLINE_S = 6.0
MAX_BYTES = 2 * 2**20
PATH_URL = "http://{host}:{port}/{name}/{number}"
HOST_URL = "http://{host}:{port}/picture/{name}/{number}"


@dataclass(frozen=True)
class Case:
    """One behaviour: where it is met, and what must become of a row.

    Args:
        reason: why the row is left out; None where it is kept.
        tries: how often its path is asked for, where that is one number.
    """

    name: str
    reason: str | None = None
    tries: int | None = 1
    url: str = PATH_URL


CASES = (
    Case("picture"),
    Case("changing"),
    Case("hasty", tries=None),
    Case("early"),
    Case("old"),
    Case("chunked"),
    Case("longer"),
    Case("split"),
    Case("cookie_bomb"),
    Case("busy", tries=2),
    Case("flaky", tries=None),
    Case("hops/5", tries=None),
    Case("robots_odd", url=HOST_URL),
    Case("html", "not_an_image"),
    Case("compressed", "not_an_image"),
    Case("empty", "empty"),
    Case("truncated", "truncated"),
    Case("huge_picture", "too_many_pixels"),
    Case("endless", "too_large"),
    Case("endless_chunks", "too_large"),
    Case("lying", "too_large"),
    Case("status/204", "http_4xx"),
    Case("status/206", "http_4xx"),
    Case("status/304", "http_4xx"),
    Case("status/403", "http_4xx"),
    Case("status/404", "http_4xx"),
    Case("nowhere", "http_4xx"),
    Case("down", "http_5xx", 3),
    Case("too_busy", "rate_limited", None),
    Case("short", "connection", 3),
    Case("cut_chunks", "connection", 3),
    Case("odd_chunks", "connection", 3),
    Case("reset", "connection", 3),
    Case("nonsense", "connection", 3),
    Case("http09", "connection", 3),
    Case("two_lengths", "connection", 3),
    Case("huge_head", "connection", 3),
    Case("endless_head", "connection", 3),
    Case("dead", "connection", 0, "http://{host}:{dead}/{number}"),
    Case("plain_to_tls", "connection", 0, "http://{host}:{tls}/{number}"),
    Case("self_signed", "connection", 0, "https://{host}:{tls}/picture/{name}/{number}"),
    Case("tls_to_plain", "timeout", 0, "https://{host}:{port}/{number}"),
    Case("drip", "timeout"),
    Case("drip_head", "timeout"),
    Case("silent", "timeout"),
    Case("interim", "timeout"),
    Case("tiny_chunks", "timeout"),
    Case("slow_name", "timeout", 0, HOST_URL),
    Case("robots_hang", "timeout", 0, HOST_URL),
    Case("robots_forbid", "robots", 0, HOST_URL),
    Case("robots_down", "robots", 0, HOST_URL),
    Case("opted_out", "opted_out"),
    Case("loop", "redirects", 6),
    Case("hops/6", "redirects"),
    Case("to/307", "blocked_address"),
    Case("to_nothing", "bad_url"),
    Case("credentials", "bad_url", 0, "http://user:word@{host}:{port}/{number}"),
    Case("nameless", "dns", 0, "http://nobody.invalid:{port}/{number}"),
)
PRIVATE_HOSTS = ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "0", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1",
                 "169.254.169.254", "100.100.100.200", "[fd00:ec2::254]", "[64:ff9b::7f00:1]")  # fmt: skip


def host_of(case: Case) -> str:
    """A name of its own for every behaviour: limits and rules hold per host."""
    return case.name.replace("/", "-").replace("_", "-") + ".test"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A certificate that nobody trusts."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a self-signed certificate")
    folder = tmp_path_factory.mktemp("certificate")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x"
    subprocess.run(
        [*command.split(), "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("num_urls", [3, pytest.param(50, marks=pytest.mark.soak)])
def test_bad_servers_cost_their_own_rows_by_the_right_cause(certificate, tmp_path, monkeypatch, num_urls):
    spent: dict[str, float] = {}
    with_retries = Fetcher._with_retries

    async def timed(self: Fetcher, url: str) -> bytes:
        began = time.monotonic()
        try:
            return await with_retries(self, url)
        finally:
            spent[url] = time.monotonic() - began

    monkeypatch.setattr(Fetcher, "_with_retries", timed)
    names = Names({host_of(case): [["127.0.0.1"]] for case in CASES}, hangs={"slow-name.test"})
    with ShopServer(tls=certificate) as server, ShopServer() as canary, socket.create_server(("127.0.0.1", 0)) as gone:
        places = {"port": server.port, "tls": server.tls_port, "dead": gone.getsockname()[1]}
        gone.close()
        server.targets = [f"http://{host}:{canary.port}/" for host in PRIVATE_HOSTS]
        server.robots = {
            "robots-odd.test": (200, "User-agent: *\nCrawl-delay: ²\nDisallow: //[\n".encode()),
            "robots-forbid.test": (200, b"User-agent: *\nDisallow: /"),
            "robots-down.test": (503, b""),
            "robots-hang.test": (0, b""),
        }
        expected: list[Case] = [case for _ in range(num_urls) for case in CASES]
        urls = [
            case.url.format(
                host=host_of(case), name=case.name, number=number, **places
            )  # a picture of its own for each
            for number, case in enumerate(expected)
        ]
        policy = FetchPolicy(
            frozenset(f"{host_of(case)}:{port}" for case in CASES for port in places.values()),
            deadline_s=DEADLINE_S,
            max_bytes=MAX_BYTES,
            max_host_faults=None,
        )
        memory = [resident_mib()]
        began = time.monotonic()
        with names.instead(), watched_connections() as connected:
            manifest = build_dataset(
                write_table(tmp_path, urls),
                tmp_path / "out",
                fetch=policy,
                max_quarantined=1.0,
                progress=lambda _: memory.append(resident_mib()),
            )
        seconds = time.monotonic() - began

    by_row = {row["row"]: row["reason"] for row in pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()}
    wrong = Counter(
        (case.name, f"{case.reason} expected, {by_row.get(row)} found")
        for row, case in enumerate(expected, start=1)
        if by_row.get(row) != case.reason
    )
    assert not wrong
    reasons = Counter(case.reason for case in expected)
    assert manifest.quarantined_by_reason == {reason: count for reason, count in reasons.items() if reason}
    assert set(manifest.quarantined_by_reason) <= set(REASONS)
    assert (manifest.rows_in, manifest.ok) == (len(urls), reasons[None])
    assert manifest.rows_in == manifest.ok + manifest.quarantined

    for case, url in zip(expected, urls, strict=True):
        if case.tries is not None:
            path = "/" + url.split("/", 3)[3]
            assert server.asked[path] == case.tries, path
    kept = {
        r.extra["url"]: r.images[0]
        for split, n in manifest.splits.items()
        if n
        for r in open_dataset(tmp_path / "out").split(split)
    }
    assert {url for case, url in zip(expected, urls, strict=True) if case.reason is None} == set(kept)
    for url, data in kept.items():
        number = int(url.rpartition("/")[2])
        assert data == picture(number + 1_000_000 if "/changing/" in url else number), url

    slowest = max(spent, key=spent.__getitem__)
    spans = {path: last - first for path, (first, last) in server.spans.items() if path != "/robots.txt"}
    longest = max(spans, key=spans.__getitem__)
    print(f"\n{len(urls)} URLs of {len(CASES)} behaviours in {seconds:.1f} s: {dict(reasons)}")
    print(f"slowest by the fetcher {spent[slowest]:.3f} s {slowest}; by the server {spans[longest]:.3f} s {longest}")
    early, late = memory[: len(memory) // 2], memory[len(memory) // 2 :]
    print(
        f"MiB: {memory[0]:.0f} at the start, at most {max(early):.0f} then {max(late):.0f}, {memory[-1]:.0f} at the end"
    )
    print(f"at most {server.max_open} connections at a time")
    assert canary.num_connections == 0
    assert {port for _, port in connected} <= set(places.values())
    slack_s = 1 if num_urls == 50 else 5  # the suite runs on machines that have other things to do
    assert spent[slowest] <= DEADLINE_S + slack_s
    assert spans[longest] <= DEADLINE_S + slack_s
    assert max(memory) - memory[0] < 150
    assert max(late) - max(early) < 50
    # One that is never closed fails this test too: it is a ResourceWarning.
    assert server.max_open <= 2 * policy.num_parallel


def write_table(folder: Path, urls: list[str]) -> Path:
    path = folder / "products.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "image", "url"])
        writer.writerows([f"P{number}", f"Article {number}", url, url] for number, url in enumerate(urls))
    return path
