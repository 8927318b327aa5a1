"""One model, many requests: jobs wait in a bounded queue, and what waits when a worker is free is answered together.

request ─▶ a place? ─▶ waiting ─▶ taken with others by a worker ─▶ answered
             └─ no: `Busy` at once         └─ client gone, or deadline passed: out of the batch at the next token

Work is taken whenever a worker is free: nobody waits for a batch to fill, and under load batches fill by themselves. On
a CPU a small model has two workers, since one cannot keep two cores busy.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch

logger = logging.getLogger(__name__)

Kind = Literal["appraise", "chat"]
WATCHDOG_S = 1.0
RATE_WINDOW = 64
"""Answers over which the rate is taken that Retry-After is computed from."""


class Busy(Exception):
    """No place is free.

    Args:
        retry_after_s: when one may be.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class Expired(Exception):
    """The deadline passed before the answer was complete."""


class Abandoned(Exception):
    """Nobody waits for any row of a batch any more."""


@dataclass(eq=False)
class Job:
    """One request on its way through the model.

    Args:
        work: what the answerer of this kind takes.
        num_tokens: of the prompt; bounds what is answered together.
        expires_at: `time.monotonic()` of its deadline.
        on_token: called in a worker's thread with every token as it is chosen; None: nobody reads along.
    """

    kind: Kind
    work: Any
    num_tokens: int
    expires_at: float
    on_token: Callable[[int], None] | None = None
    future: Future[Any] = field(default_factory=Future)
    is_cancelled: bool = False
    began_at: float | None = None
    submitted_at: float = field(default_factory=time.monotonic)

    @property
    def is_wanted(self) -> bool:
        """Whether somebody still waits for its answer."""
        return not self.is_cancelled and time.monotonic() < self.expires_at


class Answerer(Protocol):
    """Answers jobs of one kind together; raises only if none of them can be answered."""

    def __call__(self, jobs: Sequence[Job]) -> Sequence[Any]: ...


class Place:
    """A place among the requests that are served at a time; given back at the end of a `with` block, or by hand."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back: Callable[[], None] | None = give_back

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *error: object) -> None:
        self.give_back()

    def give_back(self) -> None:
        """Once; further calls do nothing."""
        if self._give_back is not None:
            self._give_back()
            self._give_back = None


class Engine:
    """Runs jobs in threads of its own.

    Args:
        answerers: by kind of job; called in a worker's thread.
        num_places: requests that are served or wait at a time.
        max_rows: jobs that are answered together.
        max_tokens: of the prompts that are answered together; a single longer one goes alone.
        num_workers: batches at a time.
        num_threads: of each worker's operations; None: as they are.
    """

    def __init__(
        self,
        answerers: dict[Kind, Answerer],
        *,
        num_places: int,
        max_rows: int,
        max_tokens: int,
        num_workers: int = 1,
        num_threads: int | None = None,
    ) -> None:
        self.answerers = answerers
        self.num_places = num_places
        self.max_rows = max_rows
        self.max_tokens = max_tokens
        self.num_workers = num_workers
        self.num_threads = num_threads
        self.is_stopping = False
        self.batch_sizes: Callable[[int], None] = lambda _: None
        """Told the size of every batch."""
        self._num_taken = 0
        self._waiting: deque[Job] = deque()
        self._num_idle = 0
        self._changed = threading.Condition()
        self._ended: deque[float] = deque(maxlen=RATE_WINDOW)
        self._threads: list[threading.Thread] = []
        self._running: dict[int, list[Job]] = {}
        self._usual_threads = torch.get_num_threads()

    # -------------------------------------------------------------------------------------------- from the event loop

    @property
    def num_taken(self) -> int:
        """Places that are taken."""
        return self._num_taken

    @property
    def num_waiting(self) -> int:
        """Jobs that no worker has taken yet."""
        return len(self._waiting)

    def take_place(self) -> Place:
        """A place for a request.

        Raises:
            Busy: all are taken.
        """
        with self._changed:
            if self._num_taken >= self.num_places:
                raise Busy(self.retry_after_s())
            self._num_taken += 1
        return Place(self._free_place)

    def retry_after_s(self) -> int:
        """Whole seconds after which all that is here now will have been answered, by the rate of the last answers."""
        now = time.monotonic()
        recent = [moment for moment in self._ended if now - moment < 60]
        if len(recent) < 2:
            return 1
        rate = len(recent) / max(1e-3, now - recent[0])
        return min(60, max(1, round(self._num_taken / rate)))

    def submit(self, job: Job) -> Job:
        """Let a job wait for a worker."""
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()
        return job

    async def answer(self, job: Job) -> Any:
        """Submit a job and wait for its answer.

        Raises:
            Expired: the deadline passed.
            asyncio.CancelledError: whoever waits was cancelled; the job is given up as well.
        """
        self.submit(job)
        return await self.result(job)

    async def result(self, job: Job) -> Any:
        """Wait for the answer of a job that was submitted; raises as `answer`."""
        try:
            async with asyncio.timeout(max(0.0, job.expires_at - time.monotonic())):
                return await asyncio.wrap_future(job.future)
        except TimeoutError:
            raise Expired from None
        finally:
            self.give_up(job)

    def give_up(self, job: Job) -> None:
        """Nobody waits for this job any more: out of the queue, or out of its batch at the next token."""
        job.is_cancelled = True
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
        job.future.cancel()

    # ------------------------------------------------------------------------------------------------------- threads

    def start(self) -> None:
        """Start the workers, and what replaces a worker that died."""
        for number in range(self.num_workers):
            self._threads.append(self._new_thread(number))
        threading.Thread(target=self._watch, name="engine watchdog", daemon=True).start()

    def stop(self) -> None:
        """End the workers; whoever still waits gets a cancelled future."""
        with self._changed:
            self.is_stopping = True
            left = [*self._waiting, *(job for jobs in self._running.values() for job in jobs)]
            self._waiting.clear()
            self._changed.notify_all()
        for job in left:
            job.is_cancelled = True
            job.future.cancel()
        for thread in self._threads:
            thread.join(timeout=30)
        # The workers' number reaches libraries that keep one for the whole process.
        torch.set_num_threads(self._usual_threads)

    @property
    def is_alive(self) -> bool:
        """Whether every worker runs."""
        return all(thread.is_alive() for thread in self._threads) and bool(self._threads)

    def _new_thread(self, number: int) -> threading.Thread:
        thread = threading.Thread(target=self._work, args=(number,), name=f"engine {number}", daemon=True)
        thread.start()
        return thread

    def _watch(self) -> None:
        """Replace workers that died, and fail their jobs once: their requests end, the next ones are served."""
        while not self.is_stopping:
            time.sleep(WATCHDOG_S)
            for number, thread in enumerate(self._threads):
                if not thread.is_alive() and not self.is_stopping:
                    logger.error("a worker of the engine died and is replaced")
                    with self._changed:
                        lost = self._running.pop(number, [])
                    self._threads[number] = self._new_thread(number)
                    for job in lost:
                        _fail(job, RuntimeError("the worker died"))

    def _work(self, number: int) -> None:
        if self.num_threads is not None:
            torch.set_num_threads(self.num_threads)
        while True:
            jobs = self._next_batch(number)
            if jobs is None:
                return
            self.batch_sizes(len(jobs))
            self._run(jobs)
            with self._changed:
                del self._running[number]

    def _next_batch(self, number: int) -> list[Job] | None:
        """The jobs to answer next, all of the first one's kind; None: the engine stops."""
        with self._changed:
            self._num_idle += 1
            try:
                while True:
                    if self.is_stopping:
                        return None
                    if self._waiting:
                        jobs = self._take(-(-len(self._waiting) // self._num_idle))
                        if jobs:
                            self._running[number] = jobs
                            return jobs
                    else:
                        self._changed.wait()
            finally:
                self._num_idle -= 1

    def _take(self, share: int) -> list[Job]:
        """Up to a fair share of what waits, oldest first; called with the lock held."""
        jobs: list[Job] = []
        longest = 0
        left: deque[Job] = deque()
        while self._waiting:
            job = self._waiting.popleft()
            if not job.is_wanted:
                continue  # its request has ended, or will by its own deadline
            width = max(longest, job.num_tokens)
            fits = len(jobs) < min(share, self.max_rows) and width * (len(jobs) + 1) <= self.max_tokens
            if not jobs or (fits and job.kind == jobs[0].kind):
                jobs.append(job)
                longest = width
            else:
                left.append(job)
        self._waiting.extend(left)
        return jobs

    def _run(self, jobs: list[Job]) -> None:
        """Answer jobs; where that fails for several together, each on its own, so that one bad request fails alone."""
        now = time.monotonic()
        for job in jobs:
            job.began_at = job.began_at or now
        try:
            answers = self.answerers[jobs[0].kind](jobs)
        except Abandoned:
            return
        except Exception as error:
            if len(jobs) == 1:
                logger.exception("a request could not be answered")
                _fail(jobs[0], error)
                return
            for job in jobs:
                # What was streamed already must not come twice.
                if job.on_token is not None:
                    _fail(job, error)
                elif job.is_wanted:
                    self._run([job])
            return
        for job, answer in zip(jobs, answers, strict=True):
            with self._changed:
                self._ended.append(time.monotonic())
            with suppress(InvalidStateError):  # given up meanwhile
                job.future.set_result(answer)

    def _free_place(self) -> None:
        with self._changed:
            self._num_taken -= 1


def _fail(job: Job, error: Exception) -> None:
    with suppress(InvalidStateError):
        job.future.set_exception(error)
