"""Work stops when it is not wanted any more, and only then."""

from __future__ import annotations

import pytest

from modeld.store.observer import Observer, Stopped, Unwatched, check


class Unwanted(Unwatched):
    def stopped(self) -> bool:
        return True


def test_unwatched_work_never_stops() -> None:
    observer: Observer = Unwatched()
    observer.phase("copy")
    observer.total(None)
    observer.advance(done=1, verified=1, reused=1, committed=1)
    check(observer)


def test_unwanted_work_is_stopped() -> None:
    with pytest.raises(Stopped):
        check(Unwanted())
