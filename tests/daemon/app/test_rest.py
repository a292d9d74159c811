"""Memory goes back when the last job has ended, and not between two that follow each other."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from modeld.app.interpreter import Pauses
from modeld.app.rest import AFTER_SECONDS, Rest
from modeld.platform import memory
from modelwire.errors import Interrupted
from rigs.waiting import wait_until


class Loop:
    """The time and the timers of an event loop, set forward by hand; also the board and the catalogue, as far as they
    are asked."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.runner = SimpleNamespace(last_end=0.0)
        self.is_working = False

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> object:
        self.timers.append((self.now + seconds, callback))
        return object()

    def give_back(self) -> None:
        raise Interrupted("the catalogue is closed")

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        for _, callback in due:
            callback()

    def end(self, resting: Rest) -> None:
        self.runner.last_end = self.now
        resting.job_ended()


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    calls: list[bool] = []
    monkeypatch.setattr(memory, "give_back", lambda: calls.append(True))
    return calls


def test_the_ends_of_many_jobs_give_back_once(given: list[bool]) -> None:
    loop = Loop()
    resting = Rest(loop, loop, loop, Pauses())  # type: ignore[arg-type]
    for _ in range(20):
        loop.end(resting)
        assert len(loop.timers) == 1
        loop.pass_time(AFTER_SECONDS / 2)
    assert given == []
    loop.pass_time(AFTER_SECONDS)
    wait_until(lambda: given == [True], what="the memory given back")
    assert loop.timers == [], "nothing wakes the daemon while nothing happens"
    loop.end(resting)
    loop.pass_time(AFTER_SECONDS)
    wait_until(lambda: given == [True, True], what="the memory given back again")


def test_nothing_is_given_back_while_another_job_runs(given: list[bool]) -> None:
    loop = Loop()
    resting = Rest(loop, loop, loop, Pauses())  # type: ignore[arg-type]
    loop.is_working = True
    loop.end(resting)
    loop.pass_time(AFTER_SECONDS)
    assert (given, loop.timers) == ([], [])
    loop.is_working = False
    loop.end(resting)
    loop.pass_time(AFTER_SECONDS)
    wait_until(lambda: given == [True], what="the memory given back")
