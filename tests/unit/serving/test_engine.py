"""The engine: who is served with whom, who is refused, and what one bad request or a dead worker costs."""

import asyncio
import threading
import time
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from appraiser.serving import engine as engine_module
from appraiser.serving.engine import Abandoned, Busy, Engine, Expired, Job


def job(work: Any = None, kind: Any = "appraise", num_tokens: int = 10, seconds: float = 20.0) -> Job:
    return Job(kind, work, num_tokens, time.monotonic() + seconds)


class Held:
    """An answerer that waits for a sign, and remembers its batches."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = threading.Semaphore(0)
        self.batches: list[list[Any]] = []

    def __call__(self, jobs: Sequence[Job]) -> list[Any]:
        self.batches.append([one.work for one in jobs])
        self.begun.release()
        assert self.go.wait(20)
        return [one.work for one in jobs]


@contextmanager
def started(answerer: Any, **settings: Any):
    limits = {"num_places": 4, "max_rows": 8, "max_tokens": 1000} | settings
    engine = Engine({"appraise": answerer, "chat": answerer}, **limits)
    engine.start()
    try:
        yield engine
    finally:
        if isinstance(answerer, Held):
            answerer.go.set()
        engine.stop()


def test_places_are_bounded_and_come_back():
    engine = Engine({}, num_places=2, max_rows=1, max_tokens=1)
    first, second = engine.take_place(), engine.take_place()
    with pytest.raises(Busy) as refused:
        engine.take_place()
    assert 1 <= refused.value.retry_after_s <= 60
    first.give_back()
    first.give_back()  # once only
    with engine.take_place():
        assert engine.num_taken == 2
    second.give_back()
    assert engine.num_taken == 0


def test_what_waits_is_answered_together_oldest_first():
    held = Held()
    with started(held) as engine:
        jobs = [engine.submit(job(0))]
        assert held.begun.acquire(timeout=20)
        jobs += [engine.submit(job(number)) for number in range(1, 12)]
        held.go.set()
        assert [one.future.result(20) for one in jobs] == list(range(12))
    assert held.batches == [[0], [1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11]]


def test_a_batch_is_of_one_kind_and_of_bounded_width():
    held = Held()
    with started(held, max_tokens=100) as engine:
        engine.submit(job("first"))
        assert held.begun.acquire(timeout=20)
        jobs = [
            engine.submit(one)
            for one in (
                job("a", num_tokens=40),
                job("chat", "chat"),
                job("b", num_tokens=50),
                job("c"),
                job("long", num_tokens=900),
            )
        ]
        held.go.set()
        for one in jobs:
            one.future.result(20)
    assert held.batches == [["first"], ["a", "b"], ["chat"], ["c"], ["long"]]


def test_two_workers_share_what_waits():
    held = Held()
    engine = Engine({"appraise": held}, num_places=9, max_rows=8, max_tokens=1000, num_workers=2)
    jobs = [engine.submit(job(number)) for number in range(6)]
    engine._num_idle = 1  # the other worker, which comes a moment later
    with engine._changed:
        assert len(engine._take(3)) == 3
    engine._num_idle = 0
    engine.start()
    assert held.begun.acquire(timeout=20)
    held.go.set()
    assert [one.future.result(20) for one in jobs[3:]] == [3, 4, 5]
    engine.stop()


def test_a_job_that_is_given_up_is_not_answered():
    held = Held()
    with started(held) as engine:
        engine.submit(job("first"))
        assert held.begun.acquire(timeout=20)
        left, stays = engine.submit(job("left")), engine.submit(job("stays"))
        engine.give_up(left)
        assert engine.num_waiting == 1
        held.go.set()
        assert stays.future.result(20) == "stays"
        assert left.future.cancelled()
    assert held.batches == [["first"], ["stays"]]


def test_a_deadline_ends_the_wait_and_the_work():
    held = Held()

    async def ask(engine: Engine) -> float:
        began = time.monotonic()
        with pytest.raises(Expired):
            await engine.answer(job(seconds=0.2))
        return time.monotonic() - began

    with started(held) as engine:
        assert asyncio.run(ask(engine)) < 5
        late = engine.submit(job("late", seconds=0.0))
        held.go.set()
        after = engine.submit(job("after"))
        assert after.future.result(20) == "after"
        assert not late.future.done()
    assert ["late"] not in held.batches


def test_one_request_that_cannot_be_answered_fails_alone():
    held = Held()

    def answer(jobs: Sequence[Job]) -> list[Any]:
        found = held(jobs)
        if "bad" in found:
            raise ValueError("a tensor of the wrong shape")
        return found

    with started(answer) as engine:
        engine.submit(job("first"))
        assert held.begun.acquire(timeout=20)
        jobs = [engine.submit(job(work)) for work in ("good", "bad", "fine")]
        held.go.set()
        assert [jobs[0].future.result(20), jobs[2].future.result(20)] == ["good", "fine"]
        with pytest.raises(ValueError, match="wrong shape"):
            jobs[1].future.result(20)


def test_a_batch_that_nobody_waits_for_ends_quietly():
    def answer(jobs: Sequence[Job]) -> list[Any]:
        if jobs[0].work == "left":
            raise Abandoned
        return [one.work for one in jobs]

    with started(answer, max_rows=1) as engine:
        left = engine.submit(job("left"))
        assert engine.submit(job("next")).future.result(20) == "next"
        assert not left.future.done()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_dies_is_replaced_and_its_request_fails_once(monkeypatch):
    monkeypatch.setattr(engine_module, "WATCHDOG_S", 0.05)

    def answer(jobs: Sequence[Job]) -> list[Any]:
        if jobs[0].work == "deadly":
            raise SystemExit
        return [one.work for one in jobs]

    with started(answer) as engine:
        deadly = engine.submit(job("deadly"))
        with pytest.raises(RuntimeError, match="worker died"):
            deadly.future.result(20)
        assert engine.submit(job("next")).future.result(20) == "next"
        assert engine.is_alive


def test_the_end_releases_all_who_wait():
    held = Held()
    engine = Engine({"appraise": held}, num_places=4, max_rows=1, max_tokens=1000)
    engine.start()
    jobs = [engine.submit(job(number)) for number in range(3)]
    assert held.begun.acquire(timeout=20)
    threading.Timer(0.2, held.go.set).start()
    engine.stop()
    assert all(one.future.cancelled() for one in jobs)


def test_retry_after_follows_the_rate_of_answers():
    engine = Engine({}, num_places=200, max_rows=1, max_tokens=1)
    now = time.monotonic()
    engine._ended.extend(now - 20 + number for number in range(20))  # one a second
    places = [engine.take_place() for _ in range(30)]
    assert 25 <= engine.retry_after_s() <= 35
    places += [engine.take_place() for _ in range(170)]
    assert engine.retry_after_s() == 60
