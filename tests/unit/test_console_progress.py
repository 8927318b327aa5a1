"""Bars of long work: what was done before is not in the rate, and without a terminal there is a line a minute."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from appraiser import console


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the test moves on by itself."""
    now = [1000.0]
    # The console's own name only: a clock that stands still would hold up other threads of this process.
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def lines(monkeypatch, clock, reports: list[tuple[float, int]], *, is_terminal: bool = False) -> list[str]:
    """What is printed when so many of 1,000 rows are done at these seconds."""
    stream = io.StringIO()
    monkeypatch.setattr(console, "stderr", Console(file=stream, force_terminal=is_terminal, width=120))
    with console.stages() as report:
        for second, done in reports:
            clock[0] = 1000.0 + second
            report("rows", done, 1000)
    return [line for line in stream.getvalue().splitlines() if line.startswith("rows:")]


def test_a_line_a_minute_tells_rate_and_time_left(monkeypatch, clock):
    found = lines(monkeypatch, clock, [(0, 0), (30, 50), (60, 100), (61, 110), (130, 220)])
    assert found == ["rows: 100 of 1,000, 1.67/s, 9 min left", "rows: 220 of 1,000, 1.69/s, 8 min left"]


def test_what_was_done_before_does_not_make_it_look_fast(monkeypatch, clock):
    assert lines(monkeypatch, clock, [(0, 900), (100, 950)]) == ["rows: 950 of 1,000, 0.5/s, 2 min left"]
    assert lines(monkeypatch, clock, [(0, 900), (100, 900)]) == ["rows: 900 of 1,000, 0/s, time left unknown"]


def test_a_terminal_has_its_bar_and_no_lines(monkeypatch, clock):
    assert lines(monkeypatch, clock, [(0, 0), (100, 500)], is_terminal=True) == []
