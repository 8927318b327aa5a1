"""Everything a running service consists of, and what its routes ask of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import torch
from fastapi import Request
from PIL import Image
from starlette.requests import ClientDisconnect

from appraiser.backbone import SMALL_MODEL, Views
from appraiser.data.fetch import Fetcher, FetchPolicy
from appraiser.data.pictures import encode
from appraiser.predict import TOKENS_PER_BATCH, Predictor
from appraiser.serving.answering import Appraisal, Appraiser, AppraiseWork, Chat, ChatAnswer
from appraiser.serving.bodies import Bodies
from appraiser.serving.engine import Answerer, Busy, Engine, Expired, Job, Kind, Place
from appraiser.serving.evidence import Evidence
from appraiser.serving.failures import ApiError
from appraiser.serving.measures import Measures
from appraiser.serving.settings import ServiceSettings

T = TypeVar("T")
READY_FOR_S = 5.0
"""An answer proves for so long that the model answers."""
CANARY_DEADLINE_S = 10.0
CANARY = encode(Image.new("RGB", (64, 64), (120, 90, 60)))


class Service:
    """One loaded model with its engine, limits and numbers.

    Args:
        evidence: of similar products; may be filled later.
        answerers: what the engine calls instead of the model, in tests.
    """

    def __init__(
        self,
        predictor: Predictor,
        settings: ServiceSettings,
        evidence: Evidence | None = None,
        samples: list[bytes] | None = None,
        answerers: dict[Kind, Answerer] | None = None,
    ) -> None:
        self.predictor = predictor
        self.settings = settings
        self.samples = samples or []
        """Picture files to try."""
        self.measures = Measures()
        self.appraiser = Appraiser(predictor, evidence or Evidence.none())
        backbone = predictor.backbone
        is_small = backbone.device.type == "cpu" and backbone.num_parameters <= SMALL_MODEL
        self.engine = Engine(
            answerers or {"appraise": self.appraiser, "chat": Chat(backbone)},
            num_places=settings.num_places,
            max_rows=settings.max_rows,
            max_tokens=TOKENS_PER_BATCH,
            num_workers=min(2, torch.get_num_threads()) if is_small else 1,
            num_threads=1 if is_small else None,
        )
        self.engine.batch_sizes = self.measures.batch_rows.observe
        self.measures.watch(self.engine)
        self.bodies = Bodies(settings, None)
        self.is_ending = False
        self._answered_at = 0.0
        self._canary: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start the engine and what fetches pictures; end them with the block."""
        async with AsyncExitStack() as stack:
            if self.settings.allow_urls:
                policy = FetchPolicy(
                    allow_private=self.settings.allow_private,
                    deadline_s=min(10.0, self.settings.deadline_s),
                    num_retries=0,
                    respect_robots=False,  # a person asks for one picture; robots.txt is for crawlers
                )
                self.bodies.fetcher = await stack.enter_async_context(Fetcher(policy))
            self.engine.start()
            try:
                yield
            finally:
                self.is_ending = True
                await asyncio.to_thread(self.engine.stop)

    def take_place(self) -> Place:
        """A place for a request.

        Raises:
            ApiError: 429 if all are taken.
        """
        try:
            return self.engine.take_place()
        except Busy as busy:
            self.measures.refused.inc()
            raise ApiError(429, "busy", "all places are taken", retry_after_s=busy.retry_after_s) from None

    def check_free(self) -> None:
        """Refuse before a body is read, where it would be refused afterwards.

        Raises:
            ApiError: as `take_place`.
        """
        self.take_place().give_back()

    def deadline(self, request: Request, began_at: float) -> float:
        """`time.monotonic()` at which a request ends: the server's deadline, or an earlier one that it asks for."""
        seconds, asked = self.settings.deadline_s, request.headers.get("x-deadline-s")
        if asked is not None:
            try:
                earlier = float(asked)
            except ValueError:
                earlier = 0.0
            if not earlier > 0:  # nor a NaN
                raise ApiError(422, "bad_deadline", "X-Deadline-S holds a number of seconds above 0")
            seconds = min(seconds, earlier)
        return began_at + seconds

    async def appraise(self, job: Job) -> Appraisal:
        """The answer of a job of kind `appraise`."""
        appraisal: Appraisal = await self._answer(job)
        self.measures.tokens.inc(appraisal.prediction.num_tokens)
        return appraisal

    async def chat(self, job: Job) -> ChatAnswer:
        """The answer of a job of kind `chat`."""
        answer: ChatAnswer = await self._answer(job)
        self.measures.tokens.inc(answer.num_tokens)
        return answer

    async def _answer(self, job: Job) -> Any:
        try:
            answer = await self.engine.answer(job)
        except Expired:
            raise too_late() from None
        except asyncio.CancelledError:
            if self.is_ending:  # the grace is over
                raise ApiError(503, "ending", "the service ends", retry_after_s=1) from None
            raise
        self._answered_at = time.monotonic()
        return answer

    async def check_ready(self) -> None:
        """Prove that the model answers, by its last answer or by one to a picture of its own.

        Raises:
            ApiError: 503 where it does not.
        """
        if self.is_ending or not self.engine.is_alive:
            raise ApiError(503, "not_ready", "the service starts or ends", retry_after_s=1)
        if time.monotonic() - self._answered_at < READY_FOR_S:
            return
        if self._canary is None or self._canary.done():  # one at a time, whoever asks
            self._canary = asyncio.create_task(self._ask_canary())
        try:
            await asyncio.shield(self._canary)
        except asyncio.CancelledError:
            raise
        except Exception:
            raise ApiError(503, "not_ready", "the model does not answer", retry_after_s=5) from None

    async def _ask_canary(self) -> None:
        pictures = await self.bodies.views([CANARY], self.predictor.backbone)  # by the decoders, which may be ill too
        await self.appraise(
            Job("appraise", AppraiseWork(pictures), self.num_tokens(pictures), time.monotonic() + CANARY_DEADLINE_S)
        )

    def num_tokens(self, pictures: tuple[Views, ...]) -> int:
        """Tokens of the trained prompt with these pictures, about; what batches are bounded by."""
        return 32 + sum(self.predictor.backbone.num_image_tokens(*reversed(picture.size)) for picture in pictures)


async def while_connected(request: Request, work: Coroutine[Any, Any, T], expires_at: float) -> T:
    """Do the work of a request whose body is read, unless its client leaves or its deadline passes.

    Raises:
        ClientDisconnect: it left; the work was cancelled.
        ApiError: 503, the deadline passed; the work was cancelled.
    """
    doing = asyncio.ensure_future(work)
    leaving = asyncio.create_task(gone(request))
    try:
        seconds = max(0.0, expires_at - time.monotonic())
        await asyncio.wait({doing, leaving}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise ClientDisconnect if leaving.done() else too_late()
    finally:
        leaving.cancel()
        doing.cancel()
        # Until it is over it may hold pictures; what it ends with is nobody's concern any more.
        await asyncio.gather(doing, return_exceptions=True)


def too_late() -> ApiError:
    """The deadline passed."""
    return ApiError(503, "deadline", "there was no answer within the deadline", retry_after_s=1)


async def gone(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
