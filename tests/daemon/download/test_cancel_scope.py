"""The scope of a thread: who cancels it wakes what blocks, in it and in scopes within it, and nothing else."""

from __future__ import annotations

import threading

import pytest

from modeld.download.cancel_scope import CancelScope, Overdue
from modeld.progress import Stopped


def test_a_cancel_wakes_what_blocks_in_a_scope_within() -> None:
    outer, entered, woken = CancelScope(), threading.Event(), threading.Event()
    ended: list[type[BaseException]] = []

    def work() -> None:
        try:
            with outer, CancelScope(60), CancelScope() as inner, inner.woken_by(woken.set):
                entered.set()
                woken.wait(inner.wait(20))
                inner.wait()
        except BaseException as fault:
            ended.append(type(fault))

    thread = threading.Thread(target=work)
    thread.start()
    assert entered.wait(20)
    outer.cancel()
    thread.join(20)
    assert ended == [Stopped]
    assert woken.is_set()


def test_what_begins_after_the_cancel_is_refused() -> None:
    scope = CancelScope()
    scope.cancel()
    with scope:
        for blocking in (scope.wait, lambda: scope.register(1, lambda: None)):
            with pytest.raises(Stopped):
                blocking()
        with CancelScope() as inner, pytest.raises(Stopped):
            inner.wait()


def test_what_was_released_or_left_is_not_woken() -> None:
    woken: list[str] = []
    with CancelScope() as outer:
        with CancelScope() as inner:
            inner.register("left", lambda: woken.append("left"))
        outer.register("released", lambda: woken.append("released"))
        outer.release("released")
        outer.register("held", lambda: woken.append("held"))
        outer.cancel()
    assert woken == ["held"]


def test_the_nearest_end_counts() -> None:
    with CancelScope(1000) as outer, CancelScope(2000) as inner:
        assert inner.until == outer.until
        assert inner.limit == 1000
        assert inner.wait(5) == 5
        with CancelScope(0.0) as over:
            with pytest.raises(Overdue, match="within 0 s"):
                over.wait(5)
            assert isinstance(over.cause(OSError()), Overdue)
        assert isinstance(inner.cause(KeyError()), KeyError)
        assert CancelScope.current() is inner
    assert CancelScope.current() is not CancelScope.current(), "none is entered"
