"""When a peer counts as not reading, by a transport and a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from modeld.server.stall import WriteWatch

PATIENCE = 60.0


class Loop:
    """As much of an event loop as a timer needs: it runs out when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[Callable[[], None]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        assert delay == PATIENCE
        self.timers.append(callback)
        return Timer(self.timers, self.now + delay)

    def time_runs_out(self, late: float = 0.0) -> None:
        (run,) = self.timers
        self.timers.clear()
        self.now += PATIENCE + late
        run()


class Timer:
    def __init__(self, timers: list[Callable[[], None]], when: float) -> None:
        self._timers = timers
        self._when = when

    def when(self) -> float:
        return self._when

    def cancel(self) -> None:
        self._timers.clear()


class Transport(asyncio.WriteTransport):
    """Knows how much waits, and no more."""

    waiting = 0

    def get_write_buffer_size(self) -> int:
        return self.waiting


class Case:
    def __init__(self) -> None:
        self.loop, self.transport, self.cuts = Loop(), Transport(), 0
        self.watch = WriteWatch(self.transport, cast(asyncio.AbstractEventLoop, self.loop), PATIENCE, self.cut)

    def cut(self) -> None:
        self.cuts += 1

    def send(self, size: int, *, taken: int = 0) -> None:
        self.transport.waiting += size - taken
        self.watch.sent(size)


def test_what_is_taken_at_once_starts_no_timer() -> None:
    case = Case()
    case.send(1000, taken=1000)
    assert case.loop.timers == []


def test_nothing_taken_for_the_whole_time_is_a_cut() -> None:
    case = Case()
    case.send(1000)
    case.send(500)
    case.loop.time_runs_out()
    assert case.cuts == 1
    assert case.loop.timers == []


def test_one_byte_taken_is_another_period() -> None:
    case = Case()
    case.send(1000)
    case.transport.waiting -= 1
    case.loop.time_runs_out()
    assert case.cuts == 0
    case.loop.time_runs_out()
    assert case.cuts == 1


def test_a_slow_reader_may_have_more_waiting_than_before() -> None:
    """It has taken 100 bytes, and been sent 5000 more: it reads."""
    case = Case()
    case.send(1000)
    case.send(5000, taken=100)
    case.loop.time_runs_out()
    assert case.cuts == 0
    assert len(case.loop.timers) == 1


def test_who_has_caught_up_is_watched_no_more_until_something_waits_again() -> None:
    case = Case()
    case.send(1000)
    case.transport.waiting = 0
    case.loop.time_runs_out()
    assert (case.cuts, case.loop.timers) == (0, [])
    case.send(10)
    assert len(case.loop.timers) == 1
    case.loop.time_runs_out()
    assert case.cuts == 1


def test_a_peer_is_not_cut_for_the_time_in_which_this_daemon_was_stopped() -> None:
    """The loop runs its timers before it writes what the peer would have taken."""
    case = Case()
    case.send(1000)
    case.loop.time_runs_out(late=60.0)
    assert case.cuts == 0
    assert len(case.loop.timers) == 1
    case.loop.time_runs_out(late=0.01)
    assert case.cuts == 1


def test_a_stopped_watch_has_no_timer() -> None:
    case = Case()
    case.send(1000)
    case.watch.stop()
    case.watch.stop()
    assert case.loop.timers == []
