"""From the bytes of a request to pictures: read under limits, decoded apart, or fetched by the one guarded fetcher."""

from __future__ import annotations

import asyncio
import binascii
import re
from base64 import b64decode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from appraiser.backbone import Reader, Views
from appraiser.data.building.decoding import CORES, Undecodable, pixels_apart
from appraiser.data.fetch import Fetcher
from appraiser.data.pictures import MAX_BYTES
from appraiser.errors import ModelInputError
from appraiser.serving.failures import ApiError, unreadable
from appraiser.serving.settings import ServiceSettings

Model = TypeVar("Model", bound=BaseModel)
PICTURE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif")
DATA_URL = re.compile(r"data:image/[a-zA-Z0-9.+-]{1,40};base64,")
RETRY_AFTER_S = 1

PICTURE_PROBLEMS = {
    "empty": "it is empty",
    "too_large": f"its file is larger than {MAX_BYTES >> 20} MiB",
    "too_many_pixels": "it has more than 40 megapixels",
    "too_thin": "it is more than 100 times as long as wide",
    "truncated": "it is damaged or cut off",
    "unsupported_format": "its format is not read here; send JPEG, PNG, WebP or GIF",
    "not_an_image": "it is no JPEG, PNG, WebP or GIF picture",
    "decode_timeout": "it takes too long to decode",
    "decoder_died": "it cannot be decoded",
    "out_of_memory": "it needs too much memory to decode",
}


class Bodies:
    """Reads what clients send; counts the bytes that all of them together hold in memory."""

    def __init__(self, settings: ServiceSettings, fetcher: Fetcher | None) -> None:
        self.settings = settings
        self.fetcher = fetcher
        self.num_bytes = 0
        self._decoding = asyncio.Semaphore(CORES)

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The body, which counts as held until the block ends.

        Raises:
            ApiError: too large, too slow, or too much is held already.
        """
        body = bytearray()
        try:
            async with asyncio.timeout(self.settings.body_timeout_s):
                await self._fill(body, request)
        except TimeoutError:
            self.num_bytes -= len(body)
            seconds = self.settings.body_timeout_s
            raise ApiError(408, "body_timeout", f"the body has to arrive within {seconds:g} s") from None
        except BaseException:
            self.num_bytes -= len(body)
            raise
        size, data = len(body), bytes(body)
        body.clear()
        try:
            yield data
        finally:
            self.num_bytes -= size

    async def _fill(self, body: bytearray, request: Request) -> None:
        limit = self.settings.max_body_bytes
        async for chunk in request.stream():
            if len(body) + len(chunk) > limit:
                raise ApiError(413, "body_too_large", f"a body may have {limit >> 20} MiB")
            if self.num_bytes + len(chunk) > self.settings.max_bytes_in_memory:
                raise ApiError(429, "busy", "too much is being read now", retry_after_s=RETRY_AFTER_S)
            body += chunk
            self.num_bytes += len(chunk)

    async def views(self, pictures: Sequence[bytes | str], reader: Reader) -> tuple[Views, ...]:
        """What the model sees of pictures, given as bytes or as `data:` URLs; other URLs are fetched where allowed.

        Pictures are decoded in processes of their own, one of a request at a time and no more at once than there are
        cores: 40 megapixels need 120 MB each.

        Raises:
            ApiError: too many, none, or one that cannot be used; the message names it by its number.
        """
        check_number(len(pictures), self.settings)
        files = await asyncio.gather(*(self._bytes(picture, number) for number, picture in enumerate(pictures, 1)))
        names = [""] if len(files) == 1 else [f" {number}" for number in range(1, len(files) + 1)]
        return tuple([await self._view(data, name, reader) for data, name in zip(files, names, strict=True)])

    async def _view(self, data: bytes, name: str, reader: Reader) -> Views:
        async with self._decoding:
            try:
                decoded = await pixels_apart([data])
            except RuntimeError:  # the processes cannot be started
                raise ApiError(503, "no_decoder", "pictures cannot be decoded now", retry_after_s=5) from None
            if isinstance(decoded, Undecodable):
                status = 413 if decoded.reason in ("too_large", "too_many_pixels") else 422
                problem = PICTURE_PROBLEMS[decoded.reason]
                raise ApiError(status, decoded.reason, f"picture{name} cannot be used: {problem}")
            try:
                return await asyncio.to_thread(lambda: reader.views(decoded[0].image()))
            except ModelInputError:
                raise ApiError(
                    422, "too_thin", f"picture{name} cannot be used: {PICTURE_PROBLEMS['too_thin']}"
                ) from None

    async def _bytes(self, picture: bytes | str, number: int) -> bytes:
        if isinstance(picture, bytes):
            return picture
        if picture.startswith("data:"):
            return await asyncio.to_thread(from_data_url, picture, number)
        if self.fetcher is None:
            raise ApiError(
                422,
                "remote_urls_off",
                f"picture {number} is a URL, and this service fetches none: send the picture itself, as a data: URL",
            )
        fetched = await self.fetcher.fetch(picture)
        if fetched.data is None:
            raise ApiError(422, f"fetch_{fetched.reason}", f"picture {number} cannot be fetched ({fetched.reason})")
        return fetched.data


def check_number(count: int, settings: ServiceSettings) -> None:
    """Refuse too many pictures before any of them is looked at."""
    if not 0 < count <= settings.max_pictures:
        raise ApiError(422, "number_of_pictures", f"between 1 and {settings.max_pictures} pictures are taken at a time")


def from_data_url(url: str, number: int) -> bytes:
    """Bytes of a `data:image/...;base64,` URL."""
    head = DATA_URL.match(url)
    if head is None:
        raise ApiError(422, "bad_data_url", f"picture {number}: a data URL begins with data:image/jpeg;base64,")
    try:
        return b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(422, "bad_data_url", f"picture {number}: the data URL is no base64") from None


def read_json(body: bytes, model: type[Model]) -> Model:
    """A body of JSON.

    Raises:
        ApiError: no JSON, or not of this form.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise unreadable(error.errors(include_url=False, include_input=False)) from None


def media_type(request: Request) -> str:
    """What the client says that its body is, in lower case, without parameters."""
    return str(request.headers.get("content-type", "")).partition(";")[0].strip().lower()


def content_of(model: type[BaseModel]) -> dict[str, Any]:
    """`content` of a JSON body for the API's description."""
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}
