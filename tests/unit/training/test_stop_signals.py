"""What a signal does to code that it meets."""

from __future__ import annotations

import signal
from contextlib import suppress

import pytest

from appraiser.data.pictures import PictureError
from appraiser.training import stop_signals
from appraiser.training.stop_signals import RunStopped, StopSignals


def _read_a_picture() -> None:
    """As the readers of pictures do: every exception means a damaged file."""
    try:
        signal.raise_signal(signal.SIGTERM)
    except Exception as error:
        raise PictureError("truncated", f"damaged ({type(error).__name__})") from None


def _make_something_else_of_it() -> None:
    try:
        signal.raise_signal(signal.SIGTERM)
    except BaseException as error:
        raise ValueError("bad file") from error


def _swallow() -> None:
    with suppress(BaseException):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("meets", [_read_a_picture, _make_something_else_of_it, _swallow])
def test_no_code_takes_a_signal_for_something_else(meets):
    with StopSignals() as stop:
        with pytest.raises(RunStopped) as caught, stop.leaving_at_once():
            meets()
        assert caught.value.exit_code == 128 + signal.SIGTERM
        with pytest.raises(RunStopped), stop.leaving_at_once():
            pytest.fail("the body is not entered after a signal")


def test_a_signal_outside_only_leaves_word():
    with StopSignals() as stop:
        with stop.leaving_at_once():
            pass
        signal.raise_signal(signal.SIGUSR1)
        assert stop.number == signal.SIGUSR1


def test_the_bodys_own_error_stays_its_own():
    with StopSignals() as stop, pytest.raises(ZeroDivisionError), stop.leaving_at_once():
        raise ZeroDivisionError


def test_handlers_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in stop_signals.SIGNALS]
    with StopSignals():
        assert [signal.getsignal(number) for number in stop_signals.SIGNALS] != before
    assert [signal.getsignal(number) for number in stop_signals.SIGNALS] == before
