"""How byte work in a thread tells what it does, and learns that nobody wants it any more."""

from __future__ import annotations

import threading
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


class JobObserver(Observer, Protocol):
    """Of everything that one model needs, which may be many files."""

    def files(self, *, total: int | None = None, done: int = 0) -> None:
        """How many there are, and how many more are done."""


class Unwatched:
    """For work that nobody follows and nobody can stop."""

    def files(self, *, total: int | None = None, done: int = 0) -> None:
        pass

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


class SharedObserver:
    """What several threads tell about the files of one model: the totals are the whole's, and told by it."""

    def __init__(self, whole: JobObserver) -> None:
        self._whole = whole
        self._lock = threading.Lock()
        self._phase: Phase | None = None
        self.failed = False
        """One thread's work has failed: that of the others is not wanted any more."""

    def phase(self, phase: Phase) -> None:
        # Each file has its own small steps; of the whole only the one that takes time is of interest.
        if phase in ("copy", "link", "verify", "quarantine") and phase != self._phase:
            self._phase = phase
            self._whole.phase(phase)

    def total(self, size: int | None) -> None:
        pass

    def advance(self, *, done: int = 0, verified: int = 0, reused: int = 0, committed: int = 0) -> None:
        with self._lock:
            self._whole.advance(done=done, verified=verified, reused=reused, committed=committed)

    def file_done(self) -> None:
        with self._lock:
            self._whole.files(done=1)

    def stopped(self) -> bool:
        return self.failed or self._whole.stopped()


class HashingIsDoing:
    """Where hashing is all there is to do to a file, it is the progress."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.phase = observer.phase
        self.total = observer.total
        self.stopped = observer.stopped

    def advance(self, *, done: int = 0, verified: int = 0, reused: int = 0, committed: int = 0) -> None:
        self._observer.advance(done=done + verified, verified=verified, reused=reused, committed=committed)
