"""What a picture server does when it is asked for `/NAME/NUMBER`: one function per behaviour, good, bad and hostile.

Nothing here goes on for ever: every loop ends when the client leaves, or at a bound.
"""

from __future__ import annotations

import gzip
import io
import socket
import struct
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from shop_server import Request

BLOCK = b"x" * 65536
MAX_BLOCKS = 2000
"""125 MiB: far more than any test reads."""
DRIP_S, MAX_DRIPS = 0.02, 3000
REDIRECTS = (301, 302, 303, 307, 308)
ODD_WAITS = (
    "86400",
    "9" * 400,
    "9" * 5000,
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Fri, 31 Dec 99999999999 23:59:59 GMT",  # more than a date can hold
    "Fri, 31 Dec 9999 23:59:59 -2359",
)
"""Retry-After that nobody can keep."""
ODD_TARGETS = (
    "file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/", "data:image/png;base64,AA", "mailto:x", "http://[::1",
    "http://xn--a.example/", "http://user:word@127.0.0.1/", "http://h:abc/", "http://127.0.0.1:99999/",
    "http://\u2100/", "http://" + "a" * 70_000,
)  # fmt: skip
"""Redirect targets that are no address to fetch."""


def in_http_date(seconds: float) -> str:
    """The moment in so many seconds, as headers write it."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


# --- answers that are answers


async def picture(request: Request) -> None:
    status = request.server.broken.get(request.number, 200)
    if status == 200:
        await request.answer_picture(Content_Type="image/jpeg")
    else:
        await request.answer(status)


async def changing(request: Request) -> None:
    """Another picture every time."""
    await request.answer(200, request.server.picture(request.number + 1_000_000 * request.tries))


async def hasty(request: Request) -> None:
    """Hangs up behind the picture without having said so."""
    await request.answer_picture()
    request.hangs_up = True


async def early(request: Request) -> None:
    """Hints before the answer."""
    await request.send(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
    await request.answer_picture()


async def old(request: Request) -> None:
    """HTTP/1.0: the body ends with the connection."""
    await request.send(b"HTTP/1.0 200 OK\r\n\r\n" + request.server.picture(request.number))
    request.hangs_up = True


async def html(request: Request) -> None:
    await request.answer(200, b"<html>sold out</html>", Content_Type="text/html")


async def empty(request: Request) -> None:
    await request.answer(200)


async def status(request: Request) -> None:
    """/status/404/7"""
    await request.answer(int(request.parts[1]))


async def missing(request: Request) -> None:
    await request.answer(404)


async def robots(request: Request) -> None:
    host = request.headers.get("host", "").rpartition(":")[0]
    code, rules = request.server.robots.get(host, request.server.robots.get("", (404, b"")))
    if code == 0:
        await drip(request)
    elif code in REDIRECTS:
        await request.answer(code, Location=rules.decode())
    else:
        await request.answer(code, rules)


async def tagged(request: Request) -> None:
    await request.answer(200, b"ok", X_Robots_Tag=request.server.tag)


async def opted_out(request: Request) -> None:
    await request.answer_picture(X_Robots_Tag="noai")


async def cookie(request: Request) -> None:
    await request.answer(200, b"ok", Set_Cookie="session=secret; Path=/")


async def cookie_bomb(request: Request) -> None:
    """A date in a cookie that careless patterns take minutes for."""
    await request.answer_picture(Set_Cookie=f"a=b; expires=Thu, 01{' ' * 60_000}x")


async def truncated(request: Request) -> None:
    await request.answer(200, request.server.picture(request.number)[:400])


async def huge_picture(request: Request) -> None:
    await request.answer(200, _pixel_bomb())


# --- bodies that are not what their headers say


async def endless(request: Request) -> None:
    await request.head()
    await request.repeat(BLOCK, MAX_BLOCKS)


async def endless_chunks(request: Request) -> None:
    await request.head(Transfer_Encoding="chunked")
    await request.repeat(b"%x\r\n%s\r\n" % (len(BLOCK), BLOCK), MAX_BLOCKS)


async def lying(request: Request) -> None:
    await request.head(Content_Length="100000000000")
    await request.repeat(BLOCK, MAX_BLOCKS)


async def short(request: Request) -> None:
    """Ends before the length it named."""
    await request.head(Content_Length="500")
    await request.send(b"x" * 100)
    request.hangs_up = True


async def longer(request: Request) -> None:
    """More than the length it named, on a connection that stays open."""
    await request.send(_with_more(request, b"and some more\r\n\r\n"))


async def split(request: Request) -> None:
    """Two answers to one request: the second waits for the next request."""
    await request.send(_with_more(request, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nsmuggled!!"))


async def chunked(request: Request) -> None:
    body = request.server.picture(request.number)
    await request.head(Transfer_Encoding="chunked")
    await request.send(b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:99], body[99:], b"")))


async def tiny_chunks(request: Request) -> None:
    """A byte at a time."""
    await request.head(Transfer_Encoding="chunked")
    await request.repeat(b"1\r\nx\r\n" * 500, MAX_DRIPS, 0.05)


async def cut_chunks(request: Request) -> None:
    await request.head(Transfer_Encoding="chunked")
    await request.send(b"400\r\nhalf of it")
    request.hangs_up = True


async def odd_chunks(request: Request) -> None:
    await request.head(Transfer_Encoding="chunked")
    await request.send((b"zz\r\n", b"-5\r\nhello\r\n", b"f" * 40 + b"\r\nx")[request.number % 3])
    request.hangs_up = True


async def compressed(request: Request) -> None:
    """A gzip bomb: 50 kB that unpack to 50 MB."""
    await request.answer(200, _bomb(), Content_Encoding="gzip")


async def reset(request: Request) -> None:
    """Connection reset before anything, within the head, or within the body."""
    before, head = b"", b"HTTP/1.1 200 OK\r\nContent-Len"
    await request.send((before, head, head + b"gth: 5000\r\n\r\nsome")[request.number % 3])
    sock: socket.socket = request.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.writer.transport.abort()
    request.hangs_up = True


# --- servers that take their time


async def drip(request: Request) -> None:
    await request.head(Content_Length="100000")
    await request.repeat(b"x", MAX_DRIPS, DRIP_S)


async def drip_head(request: Request) -> None:
    await request.send(b"HTTP/1.1 200 OK\r\nX: ")
    await request.repeat(b"x", MAX_DRIPS, DRIP_S)


async def silent(request: Request) -> None:
    request.hangs_up = True
    await request.reader.read()


async def interim(request: Request) -> None:
    """`100 Continue` without end."""
    await request.repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 10, MAX_DRIPS, 0.01)


# --- servers that are busy or down


async def flaky(request: Request) -> None:
    """503 none, one or two times; then the picture."""
    if request.tries <= request.number % 3:
        await request.answer(503)
    else:
        await request.answer_picture()


async def down(request: Request) -> None:
    await request.answer((500, 502, 503, 504)[request.number % 4])


async def patient(request: Request) -> None:
    """Asks once to wait a while, as the test says."""
    first = request.tries == 1
    wait = {"Retry_After": request.server.retry_after} if first else {}
    await request.answer(429 if first else 200, b"" if first else b"at last", **wait)


async def busy(request: Request) -> None:
    """429 once: wait a second, said as a number or as a date; then the picture."""
    if request.tries == 1:
        await request.answer(429, Retry_After="1" if request.number % 2 else in_http_date(1))
    else:
        await request.answer_picture()


async def too_busy(request: Request) -> None:
    """429 always, with a wait that nobody can keep."""
    await request.answer(429, Retry_After=ODD_WAITS[request.number % len(ODD_WAITS)])


# --- what is no HTTP, or too much of it


async def nonsense(request: Request) -> None:
    await request.send(b"\x00\x01\x02 not http\r\n\r\n")
    request.hangs_up = True


async def http09(request: Request) -> None:
    await request.send(request.server.picture(request.number))
    request.hangs_up = True


async def two_lengths(request: Request) -> None:
    await request.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!")
    request.hangs_up = True


async def huge_head(request: Request) -> None:
    await request.send(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 300_000 + b"\r\nContent-Length: 0\r\n\r\n")
    request.hangs_up = True


async def endless_head(request: Request) -> None:
    await request.send(b"HTTP/1.1 200 OK\r\n")
    await request.repeat(b"X-Field: y\r\n" * 100, MAX_BLOCKS)


# --- servers that send one elsewhere


async def loop(request: Request) -> None:
    await request.answer(302, Location=request.path)


async def hops(request: Request) -> None:
    """/hops/3/7: three more hops to picture 7."""
    left = int(request.parts[1])
    if left:
        await request.answer(302, Location=f"/hops/{left - 1}/{request.number}")
    else:
        await request.answer_picture()


async def to(request: Request) -> None:
    """/to/307/7: to the server's seventh target."""
    targets = request.server.targets
    await request.answer(int(request.parts[1]), Location=targets[request.number % len(targets)])


async def to_nothing(request: Request) -> None:
    target = ODD_TARGETS[request.number % len(ODD_TARGETS)]
    await request.send(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + target.encode() + b"\r\n\r\n")


async def nowhere(request: Request) -> None:
    await request.answer(302)


def _with_more(request: Request, more: bytes) -> bytes:
    body = request.server.picture(request.number)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s%s" % (len(body), body, more)


@cache
def _bomb() -> bytes:
    return gzip.compress(bytes(50_000_000))


@cache
def _pixel_bomb() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(buffer, "PNG")
    return buffer.getvalue()


Behaviour = Callable[["Request"], Awaitable[None]]
BEHAVIOURS: dict[str, Behaviour] = {"robots.txt": robots} | {
    function.__name__: function
    for function in (
        picture, changing, hasty, early, old, html, empty, status, missing, tagged, opted_out, cookie, cookie_bomb,
        truncated, huge_picture, endless, endless_chunks, lying, short, longer, split, chunked, tiny_chunks, cut_chunks,
        odd_chunks, compressed, reset, drip, drip_head, silent, interim, flaky, down, patient, busy, too_busy, nonsense,
        http09, two_lengths, huge_head, endless_head, loop, hops, to, to_nothing, nowhere,
    )
}  # fmt: skip
