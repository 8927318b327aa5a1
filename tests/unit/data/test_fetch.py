"""The guarded fetch: a bad server on loopback costs one row, and no address behind the guard is ever connected to."""

import asyncio
import csv
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import get_args

import pytest
from behaviours import BEHAVIOURS, ODD_TARGETS, ODD_WAITS, in_http_date
from network import Names
from shop_server import Request, ShopServer, picture

from appraiser.data import fetch as fetch_module
from appraiser.data.building.build import build_dataset
from appraiser.data.dataset import open_dataset
from appraiser.data.fetch import FetchPolicy, fetch_all
from appraiser.data.reasons import FetchReason


@pytest.fixture
def server() -> Iterator[ShopServer]:
    with ShopServer() as server:
        yield server


@pytest.fixture
def canary() -> Iterator[ShopServer]:
    """A server that nobody may connect to."""
    with ShopServer() as server:
        yield server


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Retries wait a hundredth of what they would."""
    sleep = asyncio.sleep
    waits: list[float] = []

    async def short(seconds, *rest):
        waits.append(seconds)
        await sleep(seconds / 100, *rest)

    # The module's own name only: other threads of this process may sleep as well.
    monkeypatch.setattr(fetch_module, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": short}))
    return waits


def policy_for(*servers: ShopServer, **limits) -> FetchPolicy:
    own = frozenset(f"127.0.0.1:{server.port}" for server in servers)
    return FetchPolicy(own, **({"deadline_s": 5.0} | limits))


def fetch(server: ShopServer, path: str, **limits):
    return fetch_all([f"http://127.0.0.1:{server.port}{path}"], policy_for(server, **limits))[0]


def test_a_picture_comes_as_its_bytes_and_in_the_order_asked(server):
    urls = [f"http://127.0.0.1:{server.port}/picture/{number}" for number in range(20)]
    fetched = fetch_all(urls, policy_for(server))
    assert [result.url for result in fetched] == urls
    assert [result.data for result in fetched] == [picture(number) for number in range(20)]
    assert all(result.reason is None for result in fetched)


def test_only_what_a_fetch_needs_is_sent(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert fetch(server, "/picture/1").data
    headers = {name.lower(): value for name, value in server.headers_seen[0].items()}
    assert headers["host"] == f"127.0.0.1:{server.port}"
    assert headers["accept-encoding"] == "identity"
    assert "appraiser" in headers["user-agent"]
    assert not {"authorization", "cookie", "proxy-authorization"} & set(headers)


@pytest.mark.parametrize(
    ("path", "reason", "detail", "times"),
    [
        ("/nothing", "http_4xx", "HTTP 404", 1),
        ("/status/204", "http_4xx", "HTTP 204", 1),
        ("/status/304", "http_4xx", "HTTP 304", 1),
        ("/status/500", "http_5xx", "HTTP 500", 3),
        ("/too_busy/0", "rate_limited", "HTTP 429; it asks to wait 86400 s", 1),
        ("/short", "connection", "", 3),
        ("/nonsense", "connection", "RemoteProtocolError", 3),
        ("/loop", "redirects", "more than 5 redirects", 6),
    ],
)
def test_every_failure_has_a_reason_and_only_passing_ones_are_tried_again(server, path, reason, detail, times):
    result = fetch(server, path)
    assert (result.data, result.reason) == (None, reason)
    assert detail in result.detail
    assert server.asked[path] == times


def test_a_server_that_recovers_is_waited_for(server, no_waiting):
    assert fetch(server, "/flaky/2").data == picture(2)
    assert server.asked["/flaky/2"] == 3
    first, second = [wait for wait in no_waiting if wait >= 0.3]
    assert 0.375 <= first <= 0.625
    assert 0.75 <= second <= 1.25


def test_a_server_that_names_its_wait_is_asked_after_it_and_not_before(server, no_waiting):
    server.retry_after = "3"
    assert fetch(server, "/patient?seconds").data == b"at last"
    server.retry_after = in_http_date(4)
    assert fetch(server, "/patient?date").data == b"at last"
    server.retry_after = "soon"
    assert fetch(server, "/patient?nonsense").data == b"at last"
    waits = [wait for wait in no_waiting if wait >= 0.3]
    assert waits[0] == 3.0
    assert 2.5 < waits[1] <= 4.0
    assert waits[2] <= 0.625


def test_what_robots_txt_forbids_is_not_fetched_and_the_rules_are_read_once(server):
    server.robots[""] = 200, b"User-agent: *\nDisallow: /picture/3\n\nUser-agent: appraiser\nDisallow: /picture/1\n"
    urls = [f"http://127.0.0.1:{server.port}/picture/{number}" for number in (1, 2, 3)]
    fetched = fetch_all(urls, policy_for(server))
    assert [result.reason for result in fetched] == ["robots", None, None]
    assert server.asked["/robots.txt"] == 1
    assert server.asked["/picture/1"] == 0
    assert all(result.data for result in fetch_all(urls, policy_for(server, respect_robots=False)))
    assert server.asked["/robots.txt"] == 1


@pytest.mark.parametrize(("status", "reason"), [(404, None), (403, None), (500, "robots"), (503, "robots")])
def test_rules_that_are_not_there_allow_everything_and_unreadable_ones_nothing(server, status, reason):
    server.robots[""] = status, b"User-agent: *\nDisallow: /\n"
    assert fetch(server, "/picture/1").reason == reason


def test_rules_that_are_too_long_to_read_allow_nothing(server):
    server.robots[""] = 200, b"#" * (fetch_module.MAX_ROBOTS_BYTES + 1)
    assert "robots.txt cannot be read (more than 0.5 MiB)" in fetch(server, "/picture/1").detail


def test_without_an_answer_about_rules_no_picture_is_asked_for_and_the_next_one_asks_again(server):
    server.robots[""] = 0, b""  # drips
    urls = [server.url(f"/picture/{number}") for number in range(3)]
    fetched = fetch_all(urls, policy_for(server, deadline_s=0.3, num_parallel_per_host=1))
    assert [result.reason for result in fetched] == ["timeout"] * 3
    assert set(server.asked) == {"/robots.txt"}
    assert server.asked["/robots.txt"] >= 2
    with socket.create_server(("127.0.0.1", 0)) as gone:
        dead = gone.getsockname()[1]
    result = fetch_all([f"http://127.0.0.1:{dead}/"], FetchPolicy(frozenset({f"127.0.0.1:{dead}"})))[0]
    assert (result.reason, result.detail) == ("connection", "robots.txt cannot be read: ConnectError")


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ("noai", "opted_out"),
        ("nofollow, NoImageAI", "opted_out"),
        ("none", "opted_out"),
        ("appraiser: noindex", "opted_out"),
        ("otherbot: noai", None),
        ("nofollow, noarchive", None),
        ("unavailable_after: 25 Jun 2030 15:00:00 GMT", None),
    ],
)
def test_a_picture_whose_owner_opts_out_is_not_kept(server, tag, reason):
    server.tag = tag
    assert fetch(server, "/tagged").reason == reason
    assert fetch(server, "/tagged", respect_robots=False).data == b"ok"


def test_a_host_that_is_down_is_given_up_and_others_are_not(server):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        dead = gone.getsockname()[1]
    urls = [f"http://127.0.0.1:{dead}/{number}" for number in range(12)]
    policy = FetchPolicy(
        frozenset({f"127.0.0.1:{dead}", f"localhost:{server.port}"}),
        num_retries=0,
        num_parallel_per_host=1,
        max_host_faults=5,
        respect_robots=False,
    )
    fetched = fetch_all([*urls, f"http://localhost:{server.port}/picture/1"], policy)
    assert [result.reason for result in fetched] == ["connection"] * 5 + ["host_down"] * 7 + [None]
    assert "127.0.0.1 failed 5 times in a row" in fetched[5].detail


def test_one_good_answer_clears_a_host(server):
    urls = [
        f"http://127.0.0.1:{server.port}/{path}" for path in ("nonsense?1", "nonsense?2", "picture/1", "nonsense?3")
    ]
    policy = policy_for(server, num_retries=0, num_parallel_per_host=1, max_host_faults=3)
    assert [result.reason for result in fetch_all(urls, policy)] == ["connection", "connection", None, "connection"]
    urls += [f"http://127.0.0.1:{server.port}/nonsense?{number}" for number in (4, 5)]
    urls += [f"http://127.0.0.1:{server.port}/picture/2"]
    assert fetch_all(urls, policy)[-1].reason == "host_down"


def test_what_was_fetched_a_moment_ago_is_forgotten_by_its_bytes(server, monkeypatch):
    monkeypatch.setattr(fetch_module, "MAX_RECENT_BYTES", max(len(picture(1)), len(picture(2))))
    urls = [f"http://127.0.0.1:{server.port}/picture/{number}" for number in (1, 1, 2, 2, 1)]

    async def one_by_one():
        async with fetch_module.Fetcher(policy_for(server)) as fetcher:
            return [(await fetcher.fetch(url)).data for url in urls]

    assert asyncio.run(one_by_one()) == [picture(number) for number in (1, 1, 2, 2, 1)]
    assert (server.asked["/picture/1"], server.asked["/picture/2"]) == (2, 1)


def test_nothing_is_waited_for_after_the_last_try(server, no_waiting):
    fetch(server, "/status/500", num_retries=0)
    assert [wait for wait in no_waiting if wait >= 0.5] == []


def test_five_redirects_are_followed_and_six_are_not(server):
    assert fetch(server, "/hops/5/1").data == picture(1)
    assert fetch(server, "/hops/6/1").reason == "redirects"


def test_a_redirect_to_another_private_address_is_refused_without_a_connection(server, canary):
    for target in (
        f"http://127.0.0.1:{canary.port}/picture/1",
        f"//127.0.0.1:{canary.port}/picture/1",
        f"http://localhost:{canary.port}/picture/1",
        f"http://[::ffff:127.0.0.1]:{canary.port}/picture/1",
        f"http://2130706433:{canary.port}/picture/1",
        f"http://0.0.0.0:{canary.port}/picture/1",
    ):
        server.targets = [target]
        result = fetch(server, "/to/302/0")
        assert result.reason == "blocked_address", target
    assert canary.num_connections == 0


@pytest.mark.parametrize("number", range(len(ODD_TARGETS)), ids=[target[:30].encode() for target in ODD_TARGETS])
def test_a_redirect_to_what_is_not_fetched_is_refused(server, number):
    assert fetch(server, f"/to_nothing/{number}").reason == "bad_url"
    assert server.asked.total() == 2, "the address and robots.txt, once"
    server.targets = ["http://%5B/"]  # a name, if an odd one
    assert fetch(server, "/to/302/0").reason == "dns"


@pytest.mark.parametrize("number", range(len(ODD_WAITS)))
def test_a_wait_that_nobody_can_keep_is_not_waited_for(server, number):
    assert fetch(server, f"/too_busy/{number}").reason == "rate_limited"


STATUSES = (200, 200, 200, 100, 101, 103, 206, 301, 302, 307, 429, 503, 999, 0, 1000)
STATUS_LINES = (
    *(b"HTTP/1.1 %d X" % status for status in STATUSES), b"HTTP/1.0 200 OK", b"HTTP/2 200 OK", b"HTTP/1.1 200",
    b"HTTP/1.1 \xb2 X", b"ICY 200 OK", b"\xff\xfe", b"", b"<html>",
)  # fmt: skip
VALUES = {
    b"Content-Length": (b"5", b"5, 5", b"-1", b"+5", b"9" * 19, b"9" * 21, b"9" * 5000, b"\xb2"),
    b"Transfer-Encoding": (b"chunked", b"gzip, chunked", b"identity"),
    b"Location": (b"/x", b"", b"?", b"//", b"//[::1", b"HTTP:x", b"http://%5B/", b"\xff", b"/a" * 9999),
    b"Retry-After": (b"", b"-3", b"soon", b"\xb2", *(wait.encode() for wait in ODD_WAITS)),
    b"X-Robots-Tag": (b":", b"\xff", b"," * 999),
    b"Set-Cookie": (b"a=b; expires=Thu, 31 Dec 99999999999 23:59:59 GMT",),
    b"Connection": (b"upgrade", b"close"),
    b"Content-Encoding": (b"br", b"gzip"),
}
FIELDS = (
    *(name + b": " + value for name, values in VALUES.items() for value in values),
    b"A B: c", b": x", b" folded", b"X: \x00", b"X",
)  # fmt: skip
BODIES = (b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"5\r\nhel", b"f" * 20 + b"\r\nhello", b"-5\r\nhello\r\n")


def test_no_answer_makes_fetching_raise(server, monkeypatch):
    async def odd(request: Request) -> None:
        rng = random.Random(request.number)
        head = [rng.choice(STATUS_LINES), *rng.choices(FIELDS, k=rng.randrange(5)), b"", rng.choice(BODIES)]
        await request.send(b"\r\n".join(head))
        request.hangs_up = True

    monkeypatch.setitem(BEHAVIOURS, "odd", odd)
    urls = [server.url(f"/odd/{number}") for number in range(1500)]
    fetched = fetch_all(urls, policy_for(server, num_retries=0, num_parallel_per_host=16, max_host_faults=None))
    reasons = Counter(result.reason for result in fetched)
    assert all((result.data is None) == (result.reason in get_args(FetchReason)) for result in fetched)
    assert {None, "connection", "http_4xx", "http_5xx", "rate_limited", "redirects", "bad_url", "dns"} <= set(reasons)


def test_what_the_layers_beneath_raise_costs_one_row(server, monkeypatch):
    async def odd(self, request):
        raise ExceptionGroup("unhandled errors in a TaskGroup", [OverflowError("as for a port of six digits")])

    monkeypatch.setattr(fetch_module.httpx.AsyncHTTPTransport, "handle_async_request", odd)
    result = fetch(server, "/picture/1", num_retries=0, respect_robots=False)
    assert (result.reason, result.detail) == ("connection", "ExceptionGroup")


@pytest.mark.parametrize("behaviour", ["longer", "split"])
def test_what_comes_behind_an_answer_is_not_the_answer_to_the_next_request(server, behaviour):
    paths = [f"/{behaviour if number % 2 else 'picture'}/{number}" for number in range(10)]
    policy = policy_for(server, num_retries=0, num_parallel_per_host=1)
    fetched = fetch_all([server.url(path) for path in paths], policy)
    assert [result.data for result in fetched] == [picture(number) for number in range(10)]
    assert server.num_connections == 6, "one that brought too much is closed, others are used again"


def test_an_endless_body_is_cut_at_the_cap_and_no_more_is_read(server):
    result = fetch(server, "/endless", max_bytes=2**20)
    assert (result.data, result.reason) == (None, "too_large")
    assert server.num_sent_bytes < 30 * 2**20, "the rest of 125 MiB stays with the server"


def test_a_length_that_lies_is_cut_at_the_cap_too(server):
    assert fetch(server, "/lying", max_bytes=2**20).reason == "too_large"


def test_a_body_at_the_cap_is_kept(server):
    assert fetch(server, "/picture/1", max_bytes=len(picture(1))).data == picture(1)
    assert fetch(server, "/picture/1", max_bytes=len(picture(1)) - 1).reason == "too_large"


@pytest.mark.parametrize("path", ["/drip", "/silent"])
def test_a_server_that_drips_or_says_nothing_is_left_at_the_deadline(server, path):
    started = time.monotonic()
    result = fetch(server, path, deadline_s=0.4)
    assert result.reason == "timeout"
    assert time.monotonic() - started < 2.0


def test_a_body_in_many_chunks_lets_others_go_on(server, monkeypatch):
    async def in_chunks(request: Request) -> None:
        await request.head(Transfer_Encoding="chunked")
        await request.send(b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n")

    monkeypatch.setitem(BEHAVIOURS, "picture", in_chunks)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def fetched() -> bytes | None:
        async with fetch_module.Fetcher(policy_for(server)) as fetcher:
            counting = asyncio.create_task(count_turns())
            result = await fetcher.fetch(server.url("/picture/1"))
            counting.cancel()
            return result.data

    assert asyncio.run(fetched()) == b"x" * 20_000
    assert turns > 300


def test_names_that_hang_do_not_keep_others_from_being_looked_up(server):
    hanging = [f"hanging{number}.test" for number in range(40)]
    good = [f"good{number}.test" for number in range(8)]
    policy = FetchPolicy(frozenset(f"{name}:{server.port}" for name in good), deadline_s=1.0, respect_robots=False)
    with Names({name: [["127.0.0.1"]] for name in good}, hangs=hanging).instead():
        fetched = fetch_all([f"http://{name}:{server.port}/picture/1" for name in hanging + good], policy)
    assert [result.reason for result in fetched] == ["timeout"] * 40 + [None] * 8


def test_a_handshake_that_never_ends_leaves_no_connection_open(server):
    policy = policy_for(server, deadline_s=0.4)

    async def fetched_and_open() -> tuple[str | None, int]:
        async with fetch_module.Fetcher(policy) as fetcher:
            result = await fetcher.fetch(f"https://127.0.0.1:{server.port}/")
        until = time.monotonic() + 5
        while server.num_open and time.monotonic() < until:  # the server has to hear of it
            await asyncio.sleep(0.1)
        return result.reason, server.num_open

    assert asyncio.run(fetched_and_open()) == ("timeout", 0)


def test_a_compressed_body_is_not_unpacked(server):
    assert fetch(server, "/compressed").data[:2] == b"\x1f\x8b"


def test_one_slow_host_does_not_hold_up_the_others(server, canary):
    urls = [f"http://127.0.0.1:{server.port}/silent"] * 3 + [f"http://127.0.0.1:{canary.port}/picture/2"]
    fetched = fetch_all(urls, policy_for(server, canary, deadline_s=0.5, num_parallel_per_host=8))
    assert [result.reason for result in fetched] == ["timeout"] * 3 + [None]


def test_no_cookie_is_kept(server):
    urls = [f"http://127.0.0.1:{server.port}/cookie?{number}" for number in range(4)]
    fetched = fetch_all(urls, policy_for(server, num_parallel=1))
    assert [result.data for result in fetched] == [b"ok"] * 4
    assert not any("cookie" in map(str.lower, headers) for headers in server.headers_seen)


def test_a_connection_serves_one_name_alone(server, monkeypatch):
    # A pool knows connections by address: one that was opened (and, with TLS, checked) for one name is not good for
    # another name at the same address.
    monkeypatch.setattr(fetch_module, "_addresses", lambda host, port: ["127.0.0.1"])
    policy = FetchPolicy(
        frozenset(f"{name}:{server.port}" for name in ("one.example", "two.example")),
        num_parallel_per_host=1,
        respect_robots=False,
    )
    urls = [f"http://{name}.example:{server.port}/picture/{number}" for number in range(5) for name in ("one", "two")]
    assert all(result.data for result in fetch_all(urls, policy))
    assert server.num_connections == 2


def test_many_hosts_leave_few_connections_open(server, monkeypatch):
    monkeypatch.setattr(fetch_module, "_addresses", lambda host, port: ["127.0.0.1"])
    names = [f"shop{number}.example:{server.port}" for number in range(120)]
    policy = FetchPolicy(frozenset(names), num_parallel=4)
    fetched = fetch_all([f"http://{name}/picture/{number}" for number, name in enumerate(names)], policy)
    assert [result.data for result in fetched] == [picture(number) for number in range(120)]
    assert server.max_open <= 12


def test_a_private_address_is_refused_without_a_connection(canary):
    hosts = ["127.0.0.1", "localhost", "LOCALHOST", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "0.0.0.0",
             "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]", "127.0.0.1."]  # fmt: skip
    fetched = fetch_all([f"http://{host}:{canary.port}/picture/1" for host in hosts], FetchPolicy(num_retries=0))
    assert {result.reason for result in fetched} <= {"blocked_address", "dns", "bad_url"}
    assert all(result.data is None for result in fetched)
    assert canary.num_connections == 0
    assert "--allow-private" in fetched[0].detail


def test_an_allowed_server_is_that_host_and_port_alone(server, canary):
    policy = policy_for(server)
    for url in (f"http://127.0.0.1:{canary.port}/", f"http://localhost:{server.port}/picture/1"):
        assert fetch_all([url], policy)[0].reason == "blocked_address"
    assert (server.num_connections, canary.num_connections) == (0, 0)


@pytest.mark.parametrize(
    "addresses", [("127.0.0.1",), ("93.184.215.14", "127.0.0.1"), ("127.0.0.1", "93.184.215.14"), ("::1", "8.8.8.8")]
)
def test_a_name_with_any_private_answer_is_refused(canary, monkeypatch, addresses):
    monkeypatch.setattr(fetch_module, "_addresses", lambda host, port: list(addresses))
    assert fetch_all([f"http://shop.example:{canary.port}/"], FetchPolicy())[0].reason == "blocked_address"
    assert canary.num_connections == 0


def test_the_connection_goes_to_the_address_that_was_checked_and_names_are_asked_once(server, monkeypatch):
    # A name server that says "public" first and "private" at every later question (rebinding).
    asked = []

    def addresses(host, port):
        asked.append(host)
        return ["93.184.215.14" if len(asked) == 1 else "127.0.0.1"]

    monkeypatch.setattr(fetch_module, "_addresses", addresses)
    connected = []

    async def open_connection(self, host, port, **_):
        connected.append(host)
        raise httpcore.ConnectError

    import httpcore

    monkeypatch.setattr(httpcore._backends.auto.AutoBackend, "connect_tcp", open_connection)
    result = fetch_all(
        [f"http://shop.example:{server.port}/picture/1"], FetchPolicy(num_retries=0, respect_robots=False)
    )[0]
    assert result.reason == "connection"
    assert asked == ["shop.example"]
    assert connected == ["93.184.215.14"]
    assert server.num_connections == 0


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://shop.example/x.jpg", "data:image/png;base64,AA", "gopher://shop.example/", "javascript://x",
        "http://", "http:///x.jpg", "//shop.example/x.jpg", "://x", "", "http://user@shop.example/", "http://u:p@shop.example/",
        "http://127.0.0.1:6666\\@1.1.1.1/", "http://[::1/", "http://h\0st/", "http://h:abc/", "http://\u202e/", "http://a/\ud800",
        "http://xn--/", "http://①②⑦.⓪.⓪.①/", "http://8.8.8.8:65536/", "http://8.8.8.8:-1/", "http://8.8.8.8:0/",
    ],
)  # fmt: skip
def test_what_is_no_plain_web_address_is_refused(url):
    result = fetch_all([url], FetchPolicy(num_retries=0))[0]
    assert (result.url, result.reason) == (url, "bad_url")
    assert result.detail


def test_names_are_looked_up_as_httpx_writes_them(monkeypatch):
    # Python's own IDNA is the one of 2003, in which this is strasse.example, another host.
    asked = []
    monkeypatch.setattr(fetch_module, "_addresses", lambda host, port: asked.append(host) or ["127.0.0.1"])
    assert fetch_all(["http://straße.example/"], FetchPolicy(num_retries=0))[0].reason == "blocked_address"
    assert set(asked) == {"xn--strae-oqa.example"}


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..b", "a." * 200 + "x"])
def test_a_name_that_cannot_be_resolved_is_a_dns_failure_and_never_an_exception(host):
    assert fetch_all([f"http://{host}/x.jpg"], FetchPolicy(num_retries=0, deadline_s=5))[0].reason in ("dns", "timeout")


def write_table(folder, urls) -> str:
    path = folder / "products.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["title", "imageurl"])
        writer.writerows([f"Article {number}", url] for number, url in enumerate(urls))
    return str(path)


def test_a_table_of_addresses_is_built_and_broken_ones_are_quarantined(server, canary, tmp_path):
    base = f"http://127.0.0.1:{server.port}"
    urls = [f"{base}/picture/{number}" for number in range(20)]
    urls += [
        f"{base}/gone",
        f"{base}/html",
        f"http://127.0.0.1:{canary.port}/picture/1",
        "ftp://x.example/y.jpg",
        f"{base}/status/500",
    ]
    manifest = build_dataset(
        write_table(tmp_path, urls), tmp_path / "out", fetch=policy_for(server), max_quarantined=0.3
    )
    assert manifest.ok == 20
    assert manifest.quarantined_by_reason == {
        "bad_url": 1, "blocked_address": 1, "http_4xx": 1, "http_5xx": 1, "not_an_image": 1,
    }  # fmt: skip
    assert manifest.rows_in == manifest.ok + manifest.quarantined
    dataset = open_dataset(tmp_path / "out")
    kept = {r.title: r.images[0] for name in manifest.splits for r in dataset.split(name)}
    assert kept == {f"Article {number}": picture(number) for number in range(20)}
    assert canary.num_connections == 0


def test_an_address_that_stands_in_many_rows_is_fetched_once(server, tmp_path):
    urls = [f"http://127.0.0.1:{server.port}/picture/1"] * 10
    assert (
        build_dataset(
            write_table(tmp_path, urls), tmp_path / "out", fetch=policy_for(server), keep_placeholders=True
        ).ok
        == 10
    )
    assert server.asked["/picture/1"] == 1


def test_without_permission_a_table_of_private_addresses_is_refused(canary, tmp_path):
    from appraiser.errors import DataError

    path = write_table(tmp_path, [f"http://127.0.0.1:{canary.port}/picture/1"])
    with pytest.raises(DataError, match="1 blocked_address"):
        build_dataset(path, tmp_path / "out")
    assert canary.num_connections == 0
