"""The daemon's own sweeps: a blob goes once its grace period is over, without a request and without a search for it.

The store notes each blob that loses a name, so a sweep knows which blobs to look at, and when. A walk over the whole
store finds the rest: what other tools left, downloads that no job finished, old partials and quarantine. It is rare.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from modeld.store.catalog.history import rfc3339
from modeld.store.catalog.unnamed import Unnamed
from modeld.store.maintain.sweep import Sweeper
from modelwire.errors import WireError
from modelwire.values import SweepView, Swept

WALK_SECONDS: Final = 6 * 3600.0
"""A walk over 100,000 blobs takes a second or two of one core."""

FIRST_WALK_SECONDS: Final = 600.0
"""After the start of a daemon that does not know when the last walk was."""

ROUND_SECONDS: Final = 10.0
"""Between two rounds at least: removals that come one after the other share one look at the manifests."""

RETRY_SECONDS: Final = 60.0
"""After a fault: a disk that fails is not read all the time."""

AT_ONCE: Final = 2000
"""Blobs of one round: the event loop makes the list, in a few milliseconds."""

LOOK_AGAIN_SECONDS: Final = 600.0
"""While a blob waits, the clock is read this often: timers do not count the time of a suspended machine."""

_LAST: Final = sys.maxsize
"""Its place in the publisher's queue: behind every job."""

OnSwept = Callable[[Swept], Awaitable[None]]


class AutomaticSweep:
    """For the event loop."""

    def __init__(
        self,
        sweeper: Sweeper,
        unnamed: Unnamed,
        grace: float,
        *,
        on: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sweeper = sweeper
        self._unnamed = unnamed
        self._grace = grace
        self.on = on
        self._clock = clock
        self._started = clock()
        self._next_round = float("-inf")
        """Not before this time of the event loop's clock."""
        self._running = False
        self._last: tuple[float, int] | None = None
        self._fault: str | None = None
        self._news = anyio.Event()

    def next_in(self) -> float | None:
        """Seconds until a blob that lost its name is due; None when none waits."""
        earliest = self._unnamed.earliest()
        return None if earliest is None or not self.on else max(0.0, earliest + self._grace - self._clock())

    def view(self) -> SweepView:
        seconds = self.next_in()
        return SweepView(
            mode="auto" if self.on else "off",
            running=self._running,
            waiting=len(self._unnamed),
            next_at=None if seconds is None else rfc3339(self._clock() + seconds),
            last_at=None if self._last is None else rfc3339(self._last[0]),
            last_freed_bytes=0 if self._last is None else self._last[1],
            error=self._fault,
        )

    async def keep(self, on_swept: OnSwept) -> None:
        """Sweeps until it is cancelled, and reports each sweep that removed something. While nothing waits, it wakes
        for the rare walk only."""
        self._unnamed.on_loss = lambda: self._news.set()
        while self.on:
            await self._until_due()
            self._running = True
            try:
                await self.round(on_swept)
                self._fault = None
            except WireError as fault:
                # The root is away, or the disk fails: the next round tries again.
                self._fault = fault.message
            finally:
                self._running = False
                pause = ROUND_SECONDS if self._fault is None else RETRY_SECONDS
                self._next_round = anyio.current_time() + pause

    async def round(self, on_swept: OnSwept) -> None:
        """One look at the blobs that are due, and the walk when its time has come."""
        due = self._unnamed.before(self._clock() - self._grace, AT_ONCE)
        if due:
            await self._report(await self._sweeper.sweep_blobs(due, order=_LAST), on_swept)
        if self._walk_in() <= 0:
            await self._report(await self._sweeper.sweep(order=_LAST), on_swept)

    async def _report(self, swept: Swept, on_swept: OnSwept) -> None:
        if swept.removed:
            self._last = self._clock(), swept.freed_bytes
            await on_swept(swept)

    async def _until_due(self) -> None:
        await anyio.sleep(max(0.0, self._next_round - anyio.current_time()))
        while True:
            self._news = anyio.Event()
            due, walk = self.next_in(), self._walk_in()
            seconds = walk if due is None else min(due, walk, LOOK_AGAIN_SECONDS)
            if seconds <= 0:
                return
            with anyio.move_on_after(seconds):
                await self._news.wait()

    def _walk_in(self) -> float:
        now, walked = self._clock(), self._unnamed.walked_at
        if walked is None:
            return self._started + FIRST_WALK_SECONDS - now
        return min(walked, now) + WALK_SECONDS - now
