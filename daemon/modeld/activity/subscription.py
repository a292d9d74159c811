"""From the stored log to the live events without a gap and without a duplicate.

The number of the last delivered record is the whole state. Later records are read from the files until the subscription
is as close to the newest as a watcher has to be; then the ring has all of the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import anyio
import anyio.to_thread

from modeld.activity.fanout import Fanout, Item, Watcher
from modeld.activity.generations import Replay
from modeld.activity.log import Log
from modeld.activity.record import Filter, Lagged
from modelwire.errors import LocalError

T = TypeVar("T")


class Subscription:
    """`stored` returns recorded items, then `hand_over` the watcher of live ones. For one task; `close` ends it."""

    def __init__(
        self, log: Log, fanout: Fanout, limiter: anyio.CapacityLimiter, wanted: Filter, since: int | None
    ) -> None:
        self._log = log
        self._fanout = fanout
        self._limiter = limiter
        self._wanted = wanted
        self._last = fanout.last_seq if since is None else max(0, min(since, fanout.last_seq))
        """Every record up to this number was delivered, reported as dropped, or not wanted."""
        self._until = 0
        self._replay: Replay | None = None
        self._watcher: Watcher | None = None
        self._closed = False
        if since is None:
            self._go_live()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def stored(self) -> Sequence[Item]:
        """The next recorded items. When there are none, the subscription is live from here on."""
        while self._watcher is None and not self._closed:
            if self._replay is None:
                if self._last >= self._fanout.reach():
                    return self._go_live().pending()
                await self._open_replay()
            elif items := await self._from_replay(self._replay):
                return items
        return ()

    def hand_over(self, wake: Callable[[], None]) -> Watcher:
        """Returns the watcher of a live subscription, which calls `wake` from now on. For a reader that needs no task:
        with 100 watchers of single events that is a fifth of the cost."""
        if self._watcher is None:
            raise LocalError("the stored records have to be read before the watcher is handed over")
        self._watcher.wake = wake
        return self._watcher

    def close(self) -> None:
        """Ends the subscription at once; call it from anywhere on the loop. A `stored` that waits returns nothing."""
        self._closed = True
        if self._watcher is not None:
            self._watcher.close()
        if self._replay is not None:
            self._replay.close()

    def _go_live(self) -> Watcher:
        self._watcher = self._fanout.watch(self._wanted, _ignore_wake, since=self._last)
        return self._watcher

    async def _open_replay(self) -> None:
        """Opens the files for all records up to now, after the writer has written them."""

        def open_it() -> None:
            # Stored before anything else, so that a reader that is cancelled here leaks no descriptor.
            self._replay = self._log.replay(self._last)
            if self._closed:
                self._replay.close()

        self._until = self._fanout.last_seq
        await self._log.written(self._until, durable=False)
        await self._in_thread(open_it)

    async def _from_replay(self, replay: Replay) -> list[Item]:
        records = await self._in_thread(replay.batch)
        if self._closed:
            return []
        if not records:
            replay.close()
            self._replay = None
            return self._missing()
        items: list[Item] = []
        for record in records:
            if record.seq > self._last + 1:
                items.append(Lagged(record.seq - self._last - 1, record.seq - 1))
            self._last = record.seq
            if self._wanted.wants(record):
                items.append(record)
        return items

    def _missing(self) -> list[Item]:
        """At the end of the files: reports the records that neither they nor the ring hold."""
        reach = self._fanout.reach()
        if self._last >= min(self._until, reach):
            return []
        gap = Lagged(reach - self._last, reach)
        self._last = reach
        return [gap]

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(function, limiter=self._limiter)


def _ignore_wake() -> None:
    """For events before the watcher is handed over: its first `pending` returns them."""
