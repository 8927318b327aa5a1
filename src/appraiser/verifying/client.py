"""Asks an OpenAI-compatible server that the user names; the only module that does.

Nothing is taken from the environment (no proxy, no key), no redirect is followed, and an answer is bounded in bytes and
time. The server's words are shortened before anybody sees them.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx

from appraiser.errors import CheckpointError, ConfigError

TIMEOUT = httpx.Timeout(120.0, connect=10.0)
"""Seconds for the next bytes of an answer: a large model on a CPU thinks for a minute before the first."""
MAX_ANSWER_BYTES = 4 << 20
NUM_TRIES, MAX_WAIT_S = 4, 10.0
_BUSY = (429, 503)
_REFUSED = (400, 422)
"""How servers refuse a field that they do not know."""


@dataclass(frozen=True)
class ServerAnswer:
    """What a server made of a product.

    Args:
        num_prompt_tokens, logprobs: None where the server does not say.
        logprobs: of the answer's tokens; the end may be among them.
    """

    text: str
    num_prompt_tokens: int | None
    logprobs: tuple[float, ...] | None


def is_url(target: str) -> bool:
    """Whether this names a server, not a folder."""
    return bool(re.match(r"https?://", target, re.IGNORECASE))


class Server:
    """A server under an address, which may end in `/v1`; use as a context manager.

    Args:
        key: bearer; None: none is sent.
        model: what the server calls the model; None: it is asked for.

    Raises:
        ConfigError: no such address, nobody there, a key that is refused, or several models and no choice.
        CheckpointError: the server answers, but not with an answer.
    """

    def __init__(self, url: str, key: str | None = None, model: str | None = None) -> None:
        self.address = _address(url)
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._client = httpx.Client(headers=headers, timeout=TIMEOUT, trust_env=False, follow_redirects=False)
        self._model = model
        self._takes_logprobs = True

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    @property
    def model(self) -> str:
        """What the server calls the model."""
        if self._model is None:
            self._model = self._only_model()
        return self._model

    def ask(self, question: str, pictures: Sequence[bytes], max_tokens: int) -> ServerAnswer:
        """The greedy answer to a question about pictures, which are sent as they are."""
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": _data_url(picture)}} for picture in pictures
        ]
        content.append({"type": "text", "text": question})
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        path = "/v1/chat/completions"
        status, found = self._request("POST", path, body | ({"logprobs": True} if self._takes_logprobs else {}))
        if status in _REFUSED and self._takes_logprobs:
            status, again = self._request("POST", path, body)
            if status == 200:
                self._takes_logprobs, found = False, again
        return _read(self._good("POST", path, status, found))

    def _only_model(self) -> str:
        status, found = self._request("GET", "/v1/models")
        listed = self._good("GET", "/v1/models", status, found).get("data")
        names = (
            [str(entry.get("id")) for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
        )
        if len(names) != 1:
            shown = ", ".join(name[:60] for name in names[:10]) or "none"
            raise ConfigError(f"the server has {len(names)} models: {shown}", fix="choose one: --model NAME")
        return names[0]

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
        """Status and body, after a few tries where the server is busy."""
        for left in range(NUM_TRIES - 1, -1, -1):
            status, data, wait_s = self._try(method, path, body)
            if status not in _BUSY or not left:
                break
            time.sleep(wait_s)
        return status, data

    def _try(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, bytes, float]:
        url, data = self.address + path, bytearray()
        try:
            with self._client.stream(method, url, json=body) as answer:
                for chunk in answer.iter_bytes():
                    data += chunk
                    if len(data) > MAX_ANSWER_BYTES:
                        raise CheckpointError(f"{url} answers with more than {MAX_ANSWER_BYTES >> 20} MiB")
        except httpx.TimeoutException:
            raise ConfigError(f"no answer from {url} in time", fix="see whether the server is still loading") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConfigError(
                f"nobody answers at {url}: {_short(str(error) or type(error).__name__)}",
                fix="start the server, or correct the address",
            ) from None
        return answer.status_code, bytes(data), _seconds(answer.headers.get("retry-after", ""))

    def _good(self, method: str, path: str, status: int, data: bytes) -> dict[str, Any]:
        """The JSON object of an answer with status 200."""
        what = f"{method} {self.address}{path}"
        said = _short(data.decode("utf-8", "replace"))
        if status in (401, 403):
            raise ConfigError(f"{what}: the key is refused (HTTP {status})", fix="name its file: --key-file FILE")
        if status == 404:
            raise ConfigError(
                f"{what}: not found (HTTP 404): {said}", fix="give the address without a path, and --model if needed"
            )
        if status != 200:
            raise CheckpointError(f"{what}: HTTP {status}: {said}", fix="look into the server's log")
        try:
            found = json.loads(data)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise CheckpointError(f"{what}: the answer is no JSON object: {said}", fix="is this an OpenAI-style API?")
        return found


def _address(url: str) -> str:
    try:
        parsed = httpx.URL(url.strip())
    except httpx.InvalidURL as error:
        raise ConfigError(f"no address: {url!r} ({error})", fix="for example http://127.0.0.1:8000") from None
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.userinfo:
        raise ConfigError(
            f"no address of a server: {url.split('@')[-1]!r}",
            fix="for example http://127.0.0.1:8000; a key comes from --key-file",
        )
    return str(parsed).rstrip("/").removesuffix("/v1").rstrip("/")


def _data_url(picture: bytes) -> str:
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _read(found: dict[str, Any]) -> ServerAnswer:
    """An answer in the OpenAI form; what is not there is None."""
    try:
        choice = found["choices"][0]
        text = choice["message"]["content"] or ""
        usage, logprobs = found.get("usage") or {}, (choice.get("logprobs") or {}).get("content")
        count = usage.get("prompt_tokens")
        return ServerAnswer(
            text=str(text).strip(),
            num_prompt_tokens=None if count is None else int(count),
            logprobs=None if logprobs is None else tuple(float(token["logprob"]) for token in logprobs),
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise CheckpointError(
            f"the server's answer is not in the OpenAI form: {_short(json.dumps(found))}",
            fix="is this an OpenAI-style API?",
        ) from None


def _seconds(retry_after: str) -> float:
    return min(float(retry_after), MAX_WAIT_S) if re.fullmatch(r"\d{1,6}", retry_after) else 1.0


def _short(text: str) -> str:
    """Words of a server, on one line and without control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()[:200]
