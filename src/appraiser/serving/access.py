"""The outermost layers: every request is counted and logged, and only those with a key, for this host, come further.

What is asked for is not looked at, so no spelling of an address gets around the key.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import secrets
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from appraiser.serving.failures import ApiError
from appraiser.serving.measures import Measures
from appraiser.serving.settings import ServiceSettings, key_hash

logger = logging.getLogger(__name__)

UNREAD_TIMEOUT_S, MAX_UNREAD_BYTES = 2.0, 64 << 20
"""For how long, and how much of a body is thrown away after a request was refused."""
SAFE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class Access:
    """Asks for a key and the right host, before anything else is looked at.

    A key comes as `Authorization: Bearer KEY`, or as the password of HTTP Basic, which is how a browser asks for it.
    """

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        problem = self._problem(Headers(scope=scope))
        await (problem.response() if problem else self.app)(scope, receive, send)

    def _problem(self, headers: Headers) -> ApiError | None:
        hosts = headers.getlist("host")
        if self.settings.hosts and (len(hosts) != 1 or _name(hosts[0]) not in self.settings.hosts):
            return ApiError(421, "wrong_host", "the request is addressed to a host that this service is not")
        if self.settings.key_hashes and not self._has_key(headers.getlist("authorization")):
            return ApiError(401, "no_key", "send a key of this service: Authorization: Bearer KEY")
        origin = headers.get("origin")
        if origin is not None and _name(origin.partition("://")[2]) != _name(hosts[0] if hosts else ""):
            return ApiError(421, "wrong_origin", "pages of other hosts cannot use this service")
        return None

    def _has_key(self, given: list[str]) -> bool:
        if len(given) != 1:
            return False
        found = key_hash(_key_of(given[0]))
        # All are compared, so that time tells nothing.
        return any([secrets.compare_digest(found, known) for known in self.settings.key_hashes])


def _key_of(authorization: str) -> str:
    """The key in a header of either form; empty if there is none."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).decode("utf-8").partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""


def _name(host: str) -> str:
    """A host without its port, in lower case."""
    host = host.strip().lower()
    return host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]


class Unread:
    """Ends connections well on which an answer came before the body was read.

    A connection that is closed on unread bytes is reset, and the client may lose the answer. So the answer is sent,
    then what still comes is thrown away for a while, then the connection ends.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_read = False

        async def receiving() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = is_read or not message.get("more_body", False)
            return message

        async def sending(message: Message) -> None:
            has_body = bool({"content-length", "transfer-encoding"} & set(Headers(scope=scope)))
            if is_read or not has_body:
                await send(message)
            elif message["type"] == "http.response.start":
                MutableHeaders(scope=message)["connection"] = "close"
                await send(message)
            elif message.get("more_body", False):
                await send(message)
            else:
                await send({**message, "more_body": True})
                with suppress(TimeoutError):
                    async with asyncio.timeout(UNREAD_TIMEOUT_S):
                        await _throw_away(receiving)
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self.app(scope, receiving, sending)


async def _throw_away(receive: Receive) -> None:
    left = MAX_UNREAD_BYTES
    while left > 0:
        message = await receive()
        if not message.get("more_body", False):
            return
        left -= len(message.get("body", b""))


class RequestLog:
    """Counts and logs every request: route, status, time. Never a picture, a prompt, a key, or an address as sent."""

    def __init__(self, app: ASGIApp, measures: Measures) -> None:
        self.app = app
        self.measures = measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 0
        number = secrets.token_hex(8)

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = number
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except asyncio.CancelledError:
            if status:
                raise
            # The grace is over: whoever still waits is told.
            error = ApiError(503, "ending", "the service ends", retry_after_s=1)
            await error.response()(scope, receive, sending)
        except Exception:
            # The answer, a 500 without a word of it, is sent already.
            logger.exception("request failed", extra={"facts": {"request": number}})
        finally:
            seconds = time.monotonic() - began
            route = getattr(scope.get("route"), "path", "none")
            self.measures.requests.labels(route, str(status)).inc()
            self.measures.seconds.labels(route).observe(seconds)
            facts: dict[str, Any] = {"request": number, "route": route, "status": status}
            logger.info("request", extra={"facts": facts | {"ms": round(1000 * seconds, 1)}})


class JsonLines(logging.Formatter):
    """One JSON object a line, whatever stands in it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True)


def log_as_json(names: Iterable[str] = ("appraiser", "uvicorn.error")) -> None:
    """Let these loggers write JSON lines to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in names:
        found = logging.getLogger(name)
        found.handlers = [handler]
        found.setLevel(logging.INFO)
        found.propagate = False
