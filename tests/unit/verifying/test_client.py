"""Addresses, keys, and answers of servers, without one."""

from types import SimpleNamespace

import httpx
import pytest

from appraiser.errors import CheckpointError, ConfigError
from appraiser.verifying import client
from appraiser.verifying.client import Server, is_url


def test_an_address_may_end_in_v1_or_not():
    for url in ("http://h:8000", "http://h:8000/", "http://h:8000/v1", "http://h:8000/v1/", " http://h:8000 "):
        with Server(url) as server:
            assert server.address == "http://h:8000"
    with Server("https://h/models/v1") as server:
        assert server.address == "https://h/models"
    assert [is_url(text) for text in ("http://h", "HTTPS://h", "runs/http", "ftp://h")] == [True, True, False, False]


@pytest.mark.parametrize("url", ["http://", "http://u:secret@h", "http://h?key=1", "http://h:x"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ConfigError) as caught:
        Server(url)
    assert "secret" not in str(caught.value)


def answering(server: Server, *answers: httpx.Response) -> list[httpx.Request]:
    """Let a server answer from a list."""
    left, seen = list(answers), []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return left.pop(0)

    server._client._transport = httpx.MockTransport(handle)
    return seen


GOOD = {"choices": [{"message": {"content": " Red Bag\n"}, "logprobs": {"content": [{"logprob": -0.5}]}}],
        "usage": {"prompt_tokens": 30}}  # fmt: skip


def test_a_busy_server_is_asked_again(monkeypatch):
    waited: list[float] = []
    # The client's own name only: other threads of this process sleep as well.
    monkeypatch.setattr(client, "time", SimpleNamespace(sleep=waited.append))
    with Server("http://h", key="the-key", model="m") as server:
        seen = answering(
            server,
            httpx.Response(429, headers={"retry-after": "3"}),
            httpx.Response(503),
            httpx.Response(200, json=GOOD),
        )
        answer = server.ask("What?", [b"\x89PNG", b"\xff\xd8"], 9)
    assert (answer.text, answer.num_prompt_tokens, answer.logprobs) == ("Red Bag", 30, (-0.5,))
    assert waited == [3.0, 1.0]
    assert seen[0].headers["authorization"] == "Bearer the-key"
    assert b"data:image/png;base64," in seen[0].content
    assert b"data:image/jpeg;base64," in seen[0].content


def test_a_server_that_stays_busy_is_an_error(monkeypatch):
    monkeypatch.setattr(client, "time", SimpleNamespace(sleep=lambda seconds: None))
    with Server("http://h", model="m") as server:
        answering(server, *[httpx.Response(503, text="loading")] * client.NUM_TRIES)
        with pytest.raises(CheckpointError, match="HTTP 503: loading"):
            server.ask("What?", [b""], 9)


def test_an_endless_answer_is_cut_off():
    with Server("http://h", model="m") as server:
        answering(server, httpx.Response(200, content=b"0" * (client.MAX_ANSWER_BYTES + 1)))
        with pytest.raises(CheckpointError, match="more than 4 MiB"):
            server.ask("What?", [b""], 9)


@pytest.mark.parametrize("names", [[], ["a", "b"]])
def test_a_model_is_chosen_where_there_is_one(names):
    with Server("http://h") as server:
        answering(server, httpx.Response(200, json={"data": [{"id": name} for name in names]}))
        with pytest.raises(ConfigError, match=f"has {len(names)} models") as caught:
            server.ask("What?", [b""], 9)
    assert "--model NAME" in caught.value.fix
