"""The moment that a job has ended is passed on once, to those who wait and to those who come later."""

from __future__ import annotations

from modeld.jobs.job import Moment


def test_what_follows_a_moment_is_called_once() -> None:
    moment, calls = Moment(), list[int]()
    moment.then(lambda: calls.append(1))
    assert calls == []
    moment.set()
    moment.set()
    assert calls == [1]


def test_after_a_moment_it_is_called_at_once() -> None:
    moment, calls = Moment(), list[int]()
    moment.set()
    moment.then(lambda: calls.append(1))
    assert calls == [1]
