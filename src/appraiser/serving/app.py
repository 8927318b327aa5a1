"""The routes of the service, and the description of its API."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from appraiser import __version__
from appraiser.backbone import Views
from appraiser.serving.access import Access, RequestLog, Unread
from appraiser.serving.answering import AppraiseWork, ChatWork
from appraiser.serving.appraise import AppraiseAnswer, AppraiseRequest, answer_of
from appraiser.serving.bodies import PICTURE_TYPES, content_of, media_type, read_json
from appraiser.serving.chat import (
    ChatCompletion,
    ChatRequest,
    TextStream,
    chunk,
    completion_of,
    new_id,
    prompt_ids,
    usage_of,
)
from appraiser.serving.engine import Job, Place
from appraiser.serving.failures import ApiError, declared
from appraiser.serving.measures import Measures
from appraiser.serving.service import Service, gone, while_connected

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
logger = logging.getLogger(__name__)

ANY = declared(401, 421)
MISTAKE = ApiError(500, "internal", "this is a mistake of the service; its log knows more, by X-Request-Id")
LEFT = Response(status_code=499)
"""Nobody reads it; the log does."""


class Model(BaseModel):
    """A model that the service answers with."""

    model_config = ConfigDict(frozen=True)

    id: str
    object: str = "model"
    created: int
    owned_by: str = "appraiser"


class Models(BaseModel):
    """All of them: one."""

    model_config = ConfigDict(frozen=True)

    object: str = "list"
    data: list[Model]


class About(BaseModel):
    """What the page shows of the model and its limits."""

    model_config = ConfigDict(frozen=True)

    model: str
    fields: list[str]
    currency: str | None
    num_samples: int
    max_pictures: int
    max_body_bytes: int
    num_known_products: int
    version: str


class Status(BaseModel):
    """That all is well."""

    model_config = ConfigDict(frozen=True)

    status: str = "ok"


def create_app(service: Service) -> ASGIApp:
    """The application of a service, which runs while the application does."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="appraiser",
        version=__version__,
        description="Name, category and price of a product from its picture.",
        lifespan=lifespan,
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        responses=ANY,
        redirect_slashes=False,  # a redirect would repeat what was sent
    )
    _add_operations(app, service)
    _add_appraise(app, service)
    _add_chat(app, service)
    _add_page(app, service)
    app.add_exception_handler(ApiError, _told)
    app.add_exception_handler(HTTPException, _told_by_starlette)
    app.add_exception_handler(ClientDisconnect, _left(service))
    app.add_exception_handler(Exception, _told_nothing)
    app.openapi = lambda: _description(app)  # type: ignore[method-assign]
    return Unread(RequestLog(Access(app, service.settings), service.measures))


def _add_appraise(app: FastAPI, service: Service) -> None:
    binary = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in PICTURE_TYPES}

    @app.post(
        "/v1/appraise",
        response_model=AppraiseAnswer,
        responses=declared(400, 408, 413, 415, 422, 429, 503),
        openapi_extra={"requestBody": {"required": True, "content": binary | content_of(AppraiseRequest)}},
    )
    async def appraise(request: Request) -> Response:
        """Name, sort and price one product: its picture as the body, or several as JSON with data: URLs."""
        began_at = time.monotonic()
        expires_at = service.deadline(request, began_at)
        service.check_free()
        kind = media_type(request)
        if kind not in (*PICTURE_TYPES, "application/json"):
            raise ApiError(415, "unsupported_type", f"send {', '.join(PICTURE_TYPES)} or application/json")
        async with AsyncExitStack() as held:
            async with service.bodies.read(request) as body:
                held.enter_context(service.take_place())
                work = _appraise_work(service, body, kind)
                pictures = await while_connected(request, work, expires_at)
            del body  # it counts no longer, so it must not stay
            return await while_connected(request, _appraise(service, pictures, began_at, expires_at), expires_at)


async def _appraise_work(service: Service, body: bytes, kind: str) -> tuple[Views, ...]:
    """The pictures of a body, as the model sees them."""
    given: list[Any] = [body]
    if kind == "application/json":
        given = (await asyncio.to_thread(read_json, body, AppraiseRequest)).pictures
    return await service.bodies.views(given, service.predictor.backbone)


async def _appraise(service: Service, pictures: tuple[Views, ...], began_at: float, expires_at: float) -> Response:
    job = Job("appraise", AppraiseWork(pictures), service.num_tokens(pictures), expires_at)
    appraisal = await service.appraise(job)
    answer = answer_of(job, appraisal, service.appraiser.evidence.ranges, service.settings.model_name, began_at)
    return Response(answer.model_dump_json(), media_type="application/json")


def _add_chat(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        responses=declared(400, 404, 408, 413, 415, 422, 429, 503),
        openapi_extra={"requestBody": {"required": True, "content": content_of(ChatRequest)}},
    )
    async def chat(request: Request) -> Response:
        """Go on with a chat about pictures, in the OpenAI form; `stream: true` sends the text as it is written."""
        began_at = time.monotonic()
        expires_at = service.deadline(request, began_at)
        service.check_free()
        if media_type(request) != "application/json":
            raise ApiError(415, "unsupported_type", "send application/json")
        place = None
        try:
            async with service.bodies.read(request) as body:
                place = service.take_place()
                asked, work = await while_connected(request, _chat_work(service, body), expires_at)
            del body
            job = Job("chat", work, len(work.input_ids), expires_at)
            if asked.stream:
                events = _events(service, request, asked, job)
                # Refusals come before the status is sent.
                return EventStream(await anext(events), events, place, service.measures)
            answer = await while_connected(request, service.chat(job), expires_at)
        except BaseException:
            if place is not None:
                place.give_back()
            raise
        place.give_back()
        completion = completion_of(answer, asked, service.predictor.backbone, len(work.input_ids))
        return Response(completion.model_dump_json(), media_type="application/json")


async def _chat_work(service: Service, body: bytes) -> tuple[ChatRequest, ChatWork]:
    """What is asked, without its messages, and the prompt that they make, within the server's limits."""
    asked = await asyncio.to_thread(read_json, body, ChatRequest)
    if asked.model != service.settings.model_name:
        raise ApiError(404, "model_not_found", f"this service has one model: {service.settings.model_name}")
    urls = [url for message in asked.messages for url in message.pictures]
    pictures: tuple[Views, ...] = ()
    if urls:
        pictures = await service.bodies.views(urls, service.predictor.backbone)
    backbone, settings = service.predictor.backbone, service.settings
    ids = await asyncio.to_thread(prompt_ids, backbone, asked.messages, pictures)
    most = min(settings.max_prompt_tokens, backbone.config.max_position_embeddings - settings.max_answer_tokens)
    if len(ids) > most:
        raise ApiError(
            400, "context_length_exceeded", f"the prompt has {len(ids)} tokens, pictures included; {most} are taken"
        )
    max_tokens = asked.asked_tokens or min(service.predictor.max_new_tokens, settings.max_answer_tokens)
    if max_tokens > settings.max_answer_tokens:
        raise ApiError(
            422, "too_many_tokens", f"an answer may have {settings.max_answer_tokens} tokens", param="max_tokens"
        )
    work = ChatWork(
        input_ids=ids,
        pictures=pictures,
        max_tokens=max_tokens,
        temperature=asked.temperature,
        seed=secrets.randbelow(2**62) if asked.seed is None else asked.seed,
        top_logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
    )
    return asked.model_copy(update={"messages": []}), work


async def _events(service: Service, request: Request, asked: ChatRequest, job: Job) -> AsyncGenerator[str]:
    """Server-sent events of an answer as it is written."""
    loop = asyncio.get_running_loop()
    tokens: asyncio.Queue[int | None] = asyncio.Queue()

    def hand_over(token: int | None) -> None:
        loop.call_soon_threadsafe(tokens.put_nowait, token)

    job.on_token = hand_over
    job.future.add_done_callback(lambda _: hand_over(None))
    text = TextStream(service.predictor.backbone)
    name, completion_id = asked.model, new_id()
    wants_usage = bool(asked.stream_options and asked.stream_options.include_usage)

    def event(delta: dict[str, Any] | None, **more: Any) -> str:
        return _event(chunk(completion_id, name, delta, wants_usage=wants_usage, **more))

    answering = asyncio.ensure_future(service.chat(job))
    leaving = asyncio.create_task(gone(request))
    # The deadline cancels the job's future, whose end is the queue's end.
    try:
        token = await _next(tokens, leaving)
        if token is None:
            await answering  # raises, unless the answer is empty
        yield event({"role": "assistant", "content": ""})
        while token is not None:
            if new := text.add(token):
                yield event({"content": new})
            token = await _next(tokens, leaving)
        try:
            answer = await answering
        except ApiError as error:
            yield _event(error.body)
            return
        except RuntimeError:
            logger.exception("a stream could not be ended")
            yield _event(MISTAKE.body)
            return
        if rest := text.rest(answer.text):
            yield event({"content": rest})
        yield event({}, finish_reason=answer.finish_reason)
        if wants_usage:
            yield event(None, usage=usage_of(answer, len(job.work.input_ids)))
        yield "data: [DONE]\n\n"
    finally:
        leaving.cancel()
        answering.cancel()
        service.engine.give_up(job)


async def _next(tokens: asyncio.Queue[int | None], leaving: asyncio.Task[None]) -> int | None:
    """The next token; None after the last one.

    Raises:
        ClientDisconnect: nobody reads any more.
    """
    getting = asyncio.ensure_future(tokens.get())
    try:
        await asyncio.wait({getting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if getting.done():
            return getting.result()
        raise ClientDisconnect
    finally:
        getting.cancel()


class EventStream(StreamingResponse):
    """A stream of events, the first of which is known; gives its place back at its end, whoever ends it."""

    def __init__(self, first: str, events: AsyncGenerator[str], place: Place, measures: Measures) -> None:
        self.events, self.place, self.measures = events, place, measures
        super().__init__(self._all(first), media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.place.give_back()
            await self.events.aclose()

    async def _all(self, first: str) -> AsyncIterator[str]:
        yield first
        try:
            async for event in self.events:
                yield event
        except (ClientDisconnect, asyncio.CancelledError):
            self.measures.left.inc()
            raise


def _event(document: dict[str, Any]) -> str:
    return f"data: {json.dumps(document, ensure_ascii=False)}\n\n"


def _add_operations(app: FastAPI, service: Service) -> None:
    settings = service.settings
    started = int(time.time())

    @app.get("/health", response_model=Status)
    async def health() -> Status:
        """Whether the process answers."""
        return Status()

    @app.get("/ready", response_model=Status, responses=declared(503))
    async def ready() -> Status:
        """Whether the model answers: it did a moment ago, or does now, to a picture of the service's own."""
        await service.check_ready()
        return Status()

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Numbers for Prometheus."""
        return Response(service.measures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models", response_model=Models)
    async def models() -> Models:
        """The model, as OpenAI clients ask for it."""
        return Models(data=[Model(id=settings.model_name, created=started)])

    @app.get("/v1/about", response_model=About)
    async def about() -> About:
        """What the page shows of the model and its limits."""
        return About(
            model=settings.model_name,
            fields=list(service.predictor.task.fields),
            currency=service.predictor.trained.currency,
            num_samples=len(service.samples),
            max_pictures=settings.max_pictures,
            max_body_bytes=settings.max_body_bytes,
            num_known_products=len(service.appraiser.evidence.products),
            version=__version__,
        )

    @app.get(
        "/v1/samples/{number}",
        response_class=Response,
        responses=declared(404) | {200: {"content": {"image/jpeg": {}, "image/png": {}}}},
    )
    async def sample(number: str) -> Response:
        """A picture to try, counted from 0."""
        if not (number.isascii() and number.isdigit() and len(number) < 4 and int(number) < len(service.samples)):
            raise ApiError(404, "no_sample", f"there are {len(service.samples)} samples, counted from 0")
        data = service.samples[int(number)]
        return Response(data, media_type="image/png" if data.startswith(b"\x89PNG") else "image/jpeg")


def _add_page(app: FastAPI, service: Service) -> None:
    files = resources.files(__package__) / "page"
    for path, (name, kind) in PAGE.items():
        content = (files / name).read_bytes()

        def page(content: bytes = content, kind: str = kind) -> Response:
            return Response(content, media_type=kind)

        app.add_route(path, _plain(page), include_in_schema=False)


def _plain(page: Any) -> Any:
    async def route(_: Request) -> Response:
        answer: Response = page()
        return answer

    return route


async def _told(_: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    return error.response()


async def _told_nothing(_: Request, __: Exception) -> Response:
    """A mistake of ours; the log has the rest."""
    return MISTAKE.response()


async def _told_by_starlette(_: Request, error: Exception) -> Response:
    """Addresses and methods that are not there."""
    status = getattr(error, "status_code", 500)
    code, message = {
        404: ("not_found", "there is nothing at this address"),
        405: ("method_not_allowed", "this address does not take this method"),
    }.get(status, ("bad_request", "the request cannot be read"))
    return JSONResponse(ApiError(status, code, message).body, status, getattr(error, "headers", None))


def _left(service: Service) -> Any:
    async def left(_: Request, __: Exception) -> Response:
        service.measures.left.inc()
        return LEFT

    return left


def _description(app: FastAPI) -> dict[str, Any]:
    """The API's description, with the bodies that routes read by themselves."""
    if not app.openapi_schema:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        for model in (AppraiseRequest, ChatRequest):
            own = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= own.pop("$defs", {})
            schemas[model.__name__] = own
        app.openapi_schema = schema
    return app.openapi_schema
