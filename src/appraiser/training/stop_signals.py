"""SIGTERM, SIGINT and SIGUSR1 end a run with its work saved.

Within a step a signal only leaves word, and the loop saves after the step. What takes longer than a step and can be
done again (preflight, validation, calibration) is left at once, whatever code the signal meets: a reader of pictures
that takes every exception for a damaged file must not take this one. A second signal of the same kind ends the process
as if nobody listened.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from appraiser.errors import AppraiserError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class RunStopped(AppraiserError):
    """A signal ended the run; what it had done is saved. The process ends with 128 + the signal's number."""

    def __init__(self, number: int, *, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}", where=where, fix=fix)
        self.number = number
        self.exit_code = 128 + number


class _Leave(BaseException):
    """Raised where the signal came; not an Exception, so that no reader of foreign data catches it."""


class StopSignals:
    """Listens while the body runs; in a thread other than the main one nothing can be heard, and nothing is changed."""

    def __init__(self) -> None:
        self.number: int | None = None
        """The signal that came."""
        self._leaves_at_once = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def leaving_at_once(self) -> Iterator[None]:
        """Leave the body as soon as a signal comes, or do not enter it if one has come, with `RunStopped`.

        What else the body ends with after a signal says nothing, neither an error nor a result: a library may have
        swallowed what the handler raised, or made something else of it.
        """
        if self.number is not None:
            raise RunStopped(self.number)
        try:
            self._leaves_at_once = True
            try:
                yield
            finally:
                self._leaves_at_once = False
        except BaseException as error:
            if self.number is None:
                raise
            raise RunStopped(self.number) from error
        if self.number is not None:
            raise RunStopped(self.number)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.number == number:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.number = number
        if self._leaves_at_once:
            raise _Leave
