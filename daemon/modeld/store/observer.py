"""How byte work in a thread tells what it does, and learns that nobody wants it any more."""

from __future__ import annotations

from typing import Protocol

from modelwire.vocabulary import Phase


class Stopped(Exception):
    """Raised by byte work after `observer.stopped()` turned true; nothing of the work is left behind."""


class Observer(Protocol):
    """Called from byte threads, at least once for each 4 MiB: every method must be cheap.

    The counters are increments. One piece of work calls from one thread only.
    """

    def phase(self, phase: Phase) -> None: ...

    def total(self, size: int | None) -> None: ...

    def advance(self, *, done: int = 0, verified: int = 0, reused: int = 0, committed: int = 0) -> None: ...

    def stopped(self) -> bool: ...


class Unwatched:
    """For work that nobody follows and nobody can stop."""

    def phase(self, phase: Phase) -> None:
        pass

    def total(self, size: int | None) -> None:
        pass

    def advance(self, *, done: int = 0, verified: int = 0, reused: int = 0, committed: int = 0) -> None:
        pass

    def stopped(self) -> bool:
        return False


def check(observer: Observer) -> None:
    """Raises Stopped when the work is not wanted any more."""
    if observer.stopped():
        raise Stopped
