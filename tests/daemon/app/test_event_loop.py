"""The loop that polls before it sleeps: when it polls, when it sleeps, and that it misses nothing."""

from __future__ import annotations

import os
import selectors
import sys
import threading
from collections.abc import Iterator

import pytest

from modeld.app.event_loop import BUSY_POLL_SECONDS, event_loop

if sys.platform != "linux":
    pytest.skip("other systems have the plain loop", allow_module_level=True)

from modeld.app.event_loop import BusyPollSelector


class Clock:
    """Advances by a third of the polling time at each read."""

    def __init__(self) -> None:
        self.reads = 0

    def __call__(self) -> float:
        self.reads += 1
        return self.reads * BUSY_POLL_SECONDS / 3


class Watched:
    """A selector with one pipe in it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.selector = BusyPollSelector(self.clock)
        self.reader, self.writer = os.pipe()
        self.selector.register(self.reader, selectors.EVENT_READ)

    def say(self) -> None:
        os.write(self.writer, b"x")

    def heard(self, timeout: float | None) -> bool:
        ready = self.selector.select(timeout)
        if ready:
            assert [key.fd for key, _ in ready] == [self.reader]
            os.read(self.reader, 1)
        return bool(ready)


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.selector.close()
    os.close(made.reader)
    os.close(made.writer)


def test_without_events_it_sleeps_at_once(watched: Watched) -> None:
    assert not watched.heard(0.001)
    assert not watched.heard(0.001)
    assert watched.clock.reads == 0


def test_after_an_event_it_polls_for_a_while_and_then_sleeps(watched: Watched) -> None:
    watched.say()
    assert watched.heard(None)
    assert not watched.heard(0.001)
    assert watched.clock.reads == 4, "one read to begin, then until the time is over"
    assert not watched.heard(0.001)
    assert watched.clock.reads == 4, "nothing came: no more polling"


def test_what_comes_while_it_polls_is_seen(watched: Watched) -> None:
    watched.say()
    assert watched.heard(None)
    watched.say()
    assert watched.heard(None)
    assert watched.clock.reads == 2, "found at the first poll"


def test_what_comes_while_it_sleeps_is_seen(watched: Watched) -> None:
    for _ in range(3):
        later = threading.Timer(0.02, watched.say)
        later.start()
        assert watched.heard(20)
        later.join()


@pytest.mark.parametrize("timeout", [0, -1, BUSY_POLL_SECONDS / 2])
def test_a_loop_that_has_work_to_do_does_not_poll(watched: Watched, timeout: float) -> None:
    watched.say()
    assert watched.heard(None)
    assert not watched.heard(timeout)
    assert watched.clock.reads == 0


@pytest.mark.parametrize(("processors", "busy_poll"), [({0}, False), ({0, 1}, True)])
def test_on_one_processor_the_loop_is_the_plain_one(
    monkeypatch: pytest.MonkeyPatch, processors: set[int], busy_poll: bool
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: processors)
    loop = event_loop()
    assert isinstance(vars(loop)["_selector"], BusyPollSelector) is busy_poll
    loop.close()
