"""A host that fails is not asked for a while, and then by one request, not by all.

A request counts once, with all its retries. An answer that refuses a request (4xx) shows that the host works; one that
reports a fault (5xx) counts only when the host has answered nothing well of late. A request that comes while the
breaker is open does not pay for the failures of others: it is the probe, or waits for the outcome of the one under way.

`Breaker` is pure: the clock is passed in, the caller holds the lock. `Breakers` keeps one for each host.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from modelwire.errors import WireError

FAILURES: Final = 3
WITHIN_SECONDS: Final = 60.0
OPEN_SECONDS: Final = 30.0
BETWEEN_PROBES: Final = 1.0
"""Seconds that new requests leave a host after it failed: a thousand of them probe it no more often than this."""

MOST_KEPT: Final = 256
"""Origins, before those of which nothing need be remembered are forgotten."""

State = Literal["closed", "open", "half-open"]
Admission = Literal["yes", "wait", "no"]


class Trouble(NamedTuple):
    """A breaker that is not closed: since when (in calendar time), and in how many seconds the host may be asked."""

    state: State
    since: float
    wait: float
    probing: bool


class Breaker:
    """Closed until `FAILURES` within `WITHIN_SECONDS`; then open; then exactly one probe decides."""

    __slots__ = ("_failures", "_open_seconds", "_opened_at", "_probing", "_worked_at")

    def __init__(self, open_seconds: float = OPEN_SECONDS) -> None:
        self._open_seconds = open_seconds
        self._failures: deque[float] = deque()
        self._opened_at: float | None = None
        self._probing = False
        self._worked_at: float | None = None

    @property
    def probing(self) -> bool:
        """A probe is under way."""
        return self._probing

    def state(self, now: float) -> State:
        if self._opened_at is None:
            return "closed"
        return "open" if now - self._opened_at < self._open_seconds else "half-open"

    def admit(self, now: float, came: float | None = None) -> Admission:
        """Whether to ask. While the breaker is not closed "yes" is returned to one caller, who must report the outcome.
        `came` is when a new request came: after the breaker opened, it is the probe, or is told to wait for the one
        under way. "no" ends it when that fails."""
        if self._opened_at is None:
            return "yes"
        new = came is not None and came >= self._opened_at
        pause = min(BETWEEN_PROBES, self._open_seconds) if new else self._open_seconds
        if now - self._opened_at >= pause and not self._probing:
            self._probing = True
            return "yes"
        return "wait" if new else "no"

    def wait(self, now: float) -> float:
        """Seconds until the host may be asked; 0 for now."""
        if self._opened_at is None:
            return 0.0
        left = self._opened_at + self._open_seconds - now
        if left > 0:
            return left
        return min(1.0, self._open_seconds) if self._probing else 0.0

    def succeeded(self, now: float) -> None:
        """The success of a probe closes the breaker. One while it is closed removes no failure: failures expire."""
        if self._opened_at is not None:
            self._failures.clear()
        self._opened_at = None
        self._probing = False
        self._worked_at = now

    def failed(self, now: float, *, answered: bool = False) -> bool:
        """True when this failure opens the breaker. `answered` says that the host reported the fault itself."""
        if self._opened_at is not None:
            if not self._probing:
                return False  # of a request from before it opened
            self._probing = False
            self._opened_at = now
            return True
        if answered and self._worked_at is not None and now - self._worked_at <= WITHIN_SECONDS:
            return False  # the fault of one address
        self._failures.append(now)
        while now - self._failures[0] > WITHIN_SECONDS:
            self._failures.popleft()
        if len(self._failures) < FAILURES:
            return False
        self._failures.clear()
        self._opened_at = now
        return True

    def clean(self, now: float) -> bool:
        """Closed, without failures, and nothing known that counts: it need not be stored."""
        known = [*self._failures, *([] if self._worked_at is None else [self._worked_at])]
        return self._opened_at is None and all(now - moment > WITHIN_SECONDS for moment in known)

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
        if origin not in self._by_origin and len(self._by_origin) >= MOST_KEPT:
            now = self._clock()
            self._by_origin = {known: each for known, each in self._by_origin.items() if not each.clean(now)}
        return self._by_origin.setdefault(origin, Breaker(self._open_seconds))

    def admit(self, origin: str | None, came: float | None = None) -> Admission:
        """As `Breaker.admit`."""
        if origin is None:
            return "yes"
        with self._lock:
            return self._of(origin).admit(self._clock(), came)

    def allow(self, origin: str | None) -> bool:
        return self.admit(origin) == "yes"

    def is_closed(self, origin: str | None) -> bool:
        if origin is None:
            return True
        with self._lock:
            return self._of(origin).state(self._clock()) == "closed"

    def wait(self, origin: str | None) -> float:
        if origin is None:
            return 0.0
        with self._lock:
            return self._of(origin).wait(self._clock())

    def succeeded(self, origin: str | None) -> None:
        if origin is not None:
            with self._lock:
                self._of(origin).succeeded(self._clock())
                self._troubled_since.pop(origin, None)

    def judge(self, origin: str | None, fault: WireError, *, last: bool) -> bool:
        """Takes the fault of a try; `last` says that the request ends with it. True when it opens the breaker."""
        status = fault.details.get("status")
        if not fault.retryable or (isinstance(status, int) and 400 <= status < 500):
            self.succeeded(origin)
            return False
        if not last and self.is_closed(origin):
            return False
        return self.failed(origin, answered=isinstance(status, int))

    def failed(self, origin: str | None, *, answered: bool = False) -> bool:
        if origin is None:
            return False
        with self._lock:
            opened = self._of(origin).failed(self._clock(), answered=answered)
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
