"""How many bytes a second all jobs and each job may read. The limits can be changed while they run.

A token bucket. A read takes its bytes from the budget first, so that what is not read stays with the sender. Reads that
wait are served by priority, then in the order of their arrival; a job at its own limit does not hold back others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

BURST_SECONDS: Final = 0.25
"""How much may be saved up: it evens out a busy machine, and is 2.5 % of ten seconds."""

GRANT_SECONDS: Final = 0.02
SMALLEST_GRANT: Final = 4 * 1024
SMALLEST_WINDOW: Final = 64 * 1024

_LONGEST_WAIT: Final = 0.1
"""After this many seconds a read that waits checks whether it was stopped."""


class _Bucket:
    __slots__ = ("_at", "_tokens", "rate")

    def __init__(self, rate: int | None, now: float) -> None:
        self.rate = rate
        self._tokens = 0.0
        self._at = now

    def set_rate(self, rate: int | None, now: float) -> None:
        self.available(now)
        if self.rate is None:
            self._tokens = 0.0
        self.rate = rate
        self._at = now
        if rate is not None:
            self._tokens = min(self._tokens, rate * BURST_SECONDS)

    def available(self, now: float) -> float:
        if self.rate is None:
            return float("inf")
        burst = max(self.rate * BURST_SECONDS, float(SMALLEST_GRANT))
        self._tokens = min(burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        return self._tokens

    def grant(self) -> float:
        """The most that one read gets at once: little enough that other reads have their turn."""
        return float("inf") if self.rate is None else max(SMALLEST_GRANT, self.rate * GRANT_SECONDS)

    def spend(self, size: int) -> None:
        if self.rate is not None:
            self._tokens -= size

    def wait(self, now: float) -> float:
        """Seconds until there are enough tokens for a grant."""
        if self.rate is None:
            return 0.0
        return max(0.0, (self.grant() - self.available(now)) / self.rate)


class Pace(Protocol):
    """What a connection takes from before each read."""

    waited: float
    """Seconds that all reads together have waited."""

    @property
    def priority(self) -> int: ...

    @property
    def window(self) -> int | None:
        """How many bytes the kernel may hold for one connection. The network has carried them already: with the usual
        megabytes for each of ten connections no limit would be kept. None: no limit."""

    def take(self, want: int, stopped: Callable[[], bool], /) -> int: ...

    def refund(self, size: int, /) -> None: ...


class Share:
    """One job's part of the budget."""

    def __init__(self, budget: Budget, priority: int, rate: int | None) -> None:
        self._budget = budget
        self._bucket = _Bucket(rate, budget._clock())
        self._priority = priority
        self.waited = 0.0

    @property
    def rate(self) -> int | None:
        return self._bucket.rate

    @property
    def priority(self) -> int:
        return self._priority

    @property
    def limited(self) -> bool:
        return self._bucket.rate is not None or self._budget.rate is not None

    @property
    def window(self) -> int | None:
        rates = [rate for rate in (self.rate, self._budget.rate) if rate is not None]
        return max(SMALLEST_WINDOW, int(min(rates) * GRANT_SECONDS)) if rates else None

    def set_rate(self, rate: int | None) -> None:
        """Bytes a second, None for no limit."""
        with self._budget._changed:
            self._bucket.set_rate(_checked(rate), self._budget._clock())
            self._budget._changed.notify_all()

    def set_priority(self, priority: int) -> None:
        with self._budget._changed:
            self._priority = priority
            self._budget._changed.notify_all()

    def take(self, want: int, stopped: Callable[[], bool], *, behalf: Pace | None = None) -> int:
        """Blocks until some of `want` may be read, and returns how much; 0 only when stopped. `behalf`, when it is not
        the share itself, gives the priority while this waits, and the wait counts for it."""
        if not self.limited:
            return want
        return self._budget._take(_Waiting(self, behalf or self), want, stopped)

    def refund(self, size: int) -> None:
        """Gives back bytes that were granted and not read."""
        if size > 0 and self.limited:
            with self._budget._changed:
                self._bucket.spend(-size)
                self._budget._bucket.spend(-size)


class CommonPace:
    """Of one download for several jobs: as fast as the fastest of them may be, as urgent as the most urgent.

    Jobs join and leave on one thread, connections take on theirs. The last share stays after it has left: the download
    is ending then, and the bytes that it still takes must count for a share.
    """

    def __init__(self) -> None:
        self._shares: tuple[Share, ...] = ()
        self.waited = 0.0

    @property
    def priority(self) -> int:
        return min(share.priority for share in self._shares)

    @property
    def window(self) -> int | None:
        return self._fastest().window

    def join(self, share: Share) -> None:
        self._shares = (*self._shares, share)

    def leave(self, share: Share) -> None:
        if len(self._shares) > 1 and share in self._shares:
            at = self._shares.index(share)
            self._shares = self._shares[:at] + self._shares[at + 1 :]

    def take(self, want: int, stopped: Callable[[], bool], /) -> int:
        while not stopped():
            size = self._take_from(self._fastest(), want, stopped)
            if size:
                return size
        return 0

    def _take_from(self, share: Share, want: int, stopped: Callable[[], bool]) -> int:
        """0 also when another share has become the fastest: a read must not go on waiting for the slower one."""
        return share.take(want, lambda: stopped() or self._fastest() is not share, behalf=self)

    def refund(self, size: int, /) -> None:
        self._fastest().refund(size)

    def _fastest(self) -> Share:
        return max(self._shares, key=lambda share: float("inf") if share.rate is None else share.rate)


class _Waiting:
    """One read that waits. Two of them are never equal."""

    __slots__ = ("number", "pace", "share")

    def __init__(self, share: Share, pace: Pace) -> None:
        self.share = share
        self.pace = pace
        self.number = 0


class Budget:
    def __init__(self, rate: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._bucket = _Bucket(_checked(rate), clock())
        self._waiting: list[_Waiting] = []
        self._last_number = 0

    @property
    def rate(self) -> int | None:
        return self._bucket.rate

    def set_rate(self, rate: int | None) -> None:
        with self._changed:
            self._bucket.set_rate(_checked(rate), self._clock())
            self._changed.notify_all()

    def share(self, *, priority: int = 3, rate: int | None = None) -> Share:
        """For one job; `priority` 1 is served before 5."""
        return Share(self, priority, _checked(rate))

    def _take(self, waiting: _Waiting, want: int, stopped: Callable[[], bool]) -> int:
        share = waiting.share
        with self._changed:
            self._last_number += 1
            waiting.number = self._last_number
            self._waiting.append(waiting)
            began = self._clock()
            try:
                while not stopped():
                    now = self._clock()
                    wait = max(self._bucket.wait(now), share._bucket.wait(now))
                    if wait <= 0 and self._next(now) is waiting:
                        return self._grant(share, want, now)
                    self._changed.wait(min(wait, _LONGEST_WAIT) if wait > 0 else _LONGEST_WAIT)
                return 0
            finally:
                waiting.pace.waited += self._clock() - began
                self._waiting.remove(waiting)
                self._changed.notify_all()

    def _next(self, now: float) -> _Waiting | None:
        ready = [each for each in self._waiting if each.share._bucket.wait(now) <= 0]
        return min(ready, key=lambda each: (each.pace.priority, each.number), default=None)

    def _grant(self, share: Share, want: int, now: float) -> int:
        own, common = share._bucket, self._bucket
        # A little of the common bucket, so that all reads have their turn; of its own all that the job has saved up.
        size = int(min(want, common.grant(), own.available(now), common.available(now)))
        size = max(1, size)
        own.spend(size)
        common.spend(size)
        return size


def _checked(rate: int | None) -> int | None:
    if rate is not None and rate < 1:
        raise ValueError("a rate is at least one byte a second, or None for no limit")
    return rate
