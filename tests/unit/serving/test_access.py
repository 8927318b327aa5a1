"""Who comes in: keys in two forms, the host that is meant, and a log that cannot be written by strangers."""

import base64
import json
import logging

import httpx
import pytest
from services import tiny_service

from appraiser.errors import ConfigError
from appraiser.serving.access import JsonLines
from appraiser.serving.app import create_app
from appraiser.serving.settings import ServiceSettings, check_bind, key_hash

pytestmark = pytest.mark.anyio
KEY = "0123456789abcdef-very-secret"


@pytest.fixture
def anyio_backend():
    return "asyncio"


def client(app, host="127.0.0.1:8000"):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=f"http://{host}")


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A service with two keys, of which only hashes are kept."""
    folder = tmp_path_factory.mktemp("model")
    return tiny_service(folder, key_hashes=(key_hash("another-key-of-it"), key_hash(KEY)), hosts=frozenset())


def routes(app) -> list[tuple[str, str]]:
    """Every route of the application, with the one under the page."""
    found = [(method, route.path) for route in app.app.app.app.routes for method in (route.methods or {"GET"})]
    assert len(found) > 10
    return found


async def test_no_route_answers_without_a_key(locked):
    app = create_app(locked)
    async with client(app) as asking:
        for method, path in [*routes(app), ("GET", "/nothing"), ("GET", "//v1/models"), ("GET", "/V1/models"),
                             ("GET", "/v1/models/"), ("OPTIONS", "/v1/appraise"), ("TRACE", "/"), ("GET", "/%2e%2e/x"),
                             ("POST", "/v1/appraise?key=" + KEY), ("GET", "/page.css/../v1/models")]:  # fmt: skip
            answer = await asking.request(method, path)
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"].startswith("Basic")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"Bearer {KEY}", 200),
        (f"bearer  {KEY}", 200),
        ("Basic " + base64.b64encode(f"anybody:{KEY}".encode()).decode(), 200),
        (f"Bearer {KEY}x", 401),
        (f"Bearer {KEY[:-1]}", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        (KEY, 401),
        ("Basic " + base64.b64encode(KEY.encode()).decode(), 401),
        ("Basic !!!", 401),
        ("Basic " + base64.b64encode(b"\xff\xfe:\xff").decode(), 401),
    ],
)
async def test_a_key_opens_in_two_forms(locked, header, status):
    async with client(create_app(locked)) as asking:
        assert (await asking.get("/health", headers={"authorization": header})).status_code == status


async def test_two_keys_at_once_are_none(locked):
    async with client(create_app(locked)) as asking:
        headers = [("authorization", "Bearer x"), ("authorization", f"Bearer {KEY}")]
        assert (await asking.get("/health", headers=headers)).status_code == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:9", 200), ("localhost", 200), ("[::1]:80", 200), ("LOCALHOST:1", 200), ("evil.example", 421),
     ("127.0.0.1.evil.example", 421), ("10.0.0.1", 421)],
)  # fmt: skip
async def test_a_service_on_loopback_is_addressed_by_its_own_names(tmp_path, host, status):
    async with client(create_app(tiny_service(tmp_path))) as asking:
        assert (await asking.get("/health", headers={"host": host})).status_code == status


async def test_pages_of_other_hosts_are_refused(tmp_path):
    async with client(create_app(tiny_service(tmp_path))) as asking:
        for origin, status in (("http://127.0.0.1:5", 200), ("https://evil.example", 421), ("null", 421)):
            assert (await asking.get("/health", headers={"origin": origin})).status_code == status, origin


def test_the_network_needs_a_key(tmp_path):
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.com"):
        with pytest.raises(ConfigError, match="no key"):
            check_bind(host, ServiceSettings())
        check_bind(host, ServiceSettings(key_hashes=(key_hash(KEY),)))
    for host in ("127.0.0.1", "::1", "localhost"):
        check_bind(host, ServiceSettings())


async def test_the_log_holds_facts_and_nothing_that_was_sent(locked, caplog):
    caplog.set_level(logging.INFO, logger="appraiser.serving.access")
    async with client(create_app(locked)) as asking:
        await asking.get("/v1/samples/7%0a{}?secret=canary1", headers={"authorization": f"Bearer {KEY}"})
        await asking.get("/canary2%0a", headers={"authorization": "Bearer canary3"})
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records]
    assert [line["status"] for line in lines] == [404, 401]
    assert lines[0]["route"] == "/v1/samples/{number}"
    told = json.dumps(lines)
    assert "canary" not in told
    assert KEY not in told


def test_a_log_line_is_one_line_whatever_stands_in_it():
    record = logging.LogRecord("x", logging.INFO, "", 0, 'two\nlines "\u2028', (), None)
    text = JsonLines().format(record)
    assert "\n" not in text
    assert "\u2028" not in text
    assert json.loads(text)["event"] == 'two\nlines "\u2028'
