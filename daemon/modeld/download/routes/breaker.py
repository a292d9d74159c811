"""A host that fails is not asked for a while, and then by one request, not by all.

`Breaker` is pure: the clock is passed in, the caller holds the lock. `Breakers` keeps one for each host.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

FAILURES: Final = 3
WITHIN_SECONDS: Final = 60.0
OPEN_SECONDS: Final = 30.0

State = Literal["closed", "open", "half-open"]


class Trouble(NamedTuple):
    """A breaker that is not closed: since when (in calendar time), and in how many seconds the host may be asked."""

    state: State
    since: float
    wait: float
    probing: bool


class Breaker:
    """Closed until `FAILURES` within `WITHIN_SECONDS`; then open; then exactly one probe decides."""

    __slots__ = ("_failures", "_open_seconds", "_opened_at", "_probing")

    def __init__(self, open_seconds: float = OPEN_SECONDS) -> None:
        self._open_seconds = open_seconds
        self._failures: deque[float] = deque()
        self._opened_at: float | None = None
        self._probing = False

    @property
    def probing(self) -> bool:
        """A probe is under way."""
        return self._probing

    def state(self, now: float) -> State:
        if self._opened_at is None:
            return "closed"
        return "open" if now - self._opened_at < self._open_seconds else "half-open"

    def allow(self, now: float) -> bool:
        """Whether to ask. In the half-open state True is returned once, and that caller must report the outcome."""
        state = self.state(now)
        if state == "half-open" and not self._probing:
            self._probing = True
            return True
        return state == "closed"

    def wait(self, now: float) -> float:
        """Seconds until the host may be asked; 0 for now."""
        if self._opened_at is None:
            return 0.0
        left = self._opened_at + self._open_seconds - now
        if left > 0:
            return left
        return min(1.0, self._open_seconds) if self._probing else 0.0

    def succeeded(self) -> None:
        """The success of a probe closes the breaker. One while it is closed removes no failure: failures expire."""
        if self._opened_at is not None:
            self._failures.clear()
        self._opened_at = None
        self._probing = False

    def failed(self, now: float) -> bool:
        """True when this failure opens the breaker."""
        if self._opened_at is not None:
            if not self._probing:
                return False  # of a request from before it opened
            self._probing = False
            self._opened_at = now
            return True
        self._failures.append(now)
        while now - self._failures[0] > WITHIN_SECONDS:
            self._failures.popleft()
        if len(self._failures) < FAILURES:
            return False
        self._failures.clear()
        self._opened_at = now
        return True

    @property
    def clean(self) -> bool:
        """Closed, and without failures: it need not be stored."""
        return self._opened_at is None and not self._failures

    def abandoned(self) -> None:
        """The probe ended without an outcome, because it was cancelled for example. The next request is the probe."""
        self._probing = False


class Breakers:
    """One breaker for each origin. A source without a network (None) has none, and is always allowed."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        open_seconds: float = OPEN_SECONDS,
        calendar: Callable[[], float] = time.time,
    ) -> None:
        self._open_seconds = open_seconds
        self._clock = clock
        self._calendar = calendar
        self._troubled_since: dict[str, float] = {}
        self._lock = threading.Lock()
        self._by_origin: dict[str, Breaker] = {}

    def _of(self, origin: str) -> Breaker:
        return self._by_origin.setdefault(origin, Breaker(self._open_seconds))

    def allow(self, origin: str | None) -> bool:
        if origin is None:
            return True
        with self._lock:
            return self._of(origin).allow(self._clock())

    def wait(self, origin: str | None) -> float:
        if origin is None:
            return 0.0
        with self._lock:
            return self._of(origin).wait(self._clock())

    def succeeded(self, origin: str | None) -> None:
        if origin is not None:
            with self._lock:
                breaker = self._of(origin)
                breaker.succeeded()
                self._troubled_since.pop(origin, None)
                if breaker.clean:
                    del self._by_origin[origin]

    def failed(self, origin: str | None) -> bool:
        if origin is None:
            return False
        with self._lock:
            opened = self._of(origin).failed(self._clock())
            if opened:  # also by a probe that failed: the trouble is the same
                self._troubled_since.setdefault(origin, self._calendar())
            return opened

    def abandoned(self, origin: str | None) -> None:
        if origin is not None:
            with self._lock:
                self._of(origin).abandoned()

    def troubles(self) -> dict[str, Trouble]:
        """Of the origins whose breaker is not closed."""
        now = self._clock()
        with self._lock:
            return {
                origin: Trouble(state, self._troubled_since[origin], breaker.wait(now), breaker.probing)
                for origin, breaker in self._by_origin.items()
                if (state := breaker.state(now)) != "closed"
            }
