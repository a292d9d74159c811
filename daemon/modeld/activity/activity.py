"""The events of the daemon: recorded durably and delivered live, both from one encoding.

`record` is synchronous and quick: it numbers the event, queues its line for the disk and wakes the watchers, in that
order and without waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import anyio

from modeld.activity.encode import Stamp, event_line, progress_line
from modeld.activity.fanout import Fanout
from modeld.activity.log import KEEP, MAX_BYTES, Log
from modeld.activity.record import Filter, Latest, Recorded
from modeld.activity.subscription import Subscription
from modelwire.limits import WATCHER_QUEUE
from modelwire.values import LogView

READING_THREADS = 2
"""Threads that read the log, however many watchers catch up at once: the disk and the interpreter have other users."""

EVERYTHING = Filter()


class Activity:
    """Not thread-safe: for the event loop's thread."""

    def __init__(self, log: Log, *, clock: Callable[[], float] = time.time, watcher_queue: int = WATCHER_QUEUE) -> None:
        self._log = log
        self._clock = clock
        self._stamp = Stamp()
        self._fanout = Fanout(log.last_seq, limit=watcher_queue)
        self._limiter: anyio.CapacityLimiter | None = None

    @classmethod
    def open(
        cls,
        path: str,
        *,
        max_bytes: int = MAX_BYTES,
        generations: int = KEEP,
        watcher_queue: int = WATCHER_QUEUE,
        user_of: Callable[[int], int] = lambda uid: uid,
        clock: Callable[[], float] = time.time,
    ) -> Activity:
        """Opens the log, in which the lines of each user have a share: those of all uids for which `user_of` returns
        the same one. Blocks. Raises a WireError that names the path when the log cannot be written."""
        log = Log.open(path, max_bytes=max_bytes, keep=generations, user_of=user_of)
        return cls(log, clock=clock, watcher_queue=watcher_queue)

    @property
    def last_seq(self) -> int:
        return self._fanout.last_seq

    @property
    def watchers(self) -> int:
        return len(self._fanout)

    def record(self, event: str, **fields: Any) -> Recorded:
        """Numbers, dates, stores and delivers one event. An event with `job` and `outcome` is the end of that job."""
        seq = self._fanout.last_seq + 1
        line = event_line(seq, self._stamp(self._clock()), event, fields)
        stored = line + b"\n"
        record = Recorded(seq, event, _text(fields.get("job")), _text(fields.get("model")), line, stored[1:])
        self._log.append(seq, stored)
        self._fanout.publish(record, ends_job=fields.get("outcome") is not None)
        return record

    def progress(self, job: str, *, model: str | None = None, **fields: Any) -> None:
        """Delivers progress live; it is never stored. A slow watcher gets the newest only."""
        self._fanout.publish_progress(Latest(job, model, progress_line(job, fields)))

    def forget_progress(self, job: str) -> None:
        """For a job that stops without an end, paused or parked."""
        self._fanout.forget_progress(job)

    def subscribe(self, since: int | None = None, wanted: Filter = EVERYTHING) -> Subscription:
        """The events recorded after `since`, then live ones; without `since`, live ones from this moment on."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(READING_THREADS)
        return Subscription(self._log, self._fanout, self._limiter, wanted, since)

    async def flush(self) -> bool:
        """Waits until everything recorded so far is in the file or was refused; reports whether it is in the file."""
        return await self._log.written(self.last_seq, durable=False)

    async def settled(self) -> bool:
        """As `flush`, and on the disk: it survives a loss of power. Never waits for a disk that fails."""
        return await self._log.written(self.last_seq, durable=True)

    def view(self) -> LogView:
        return LogView(
            path=self._log.path, last_seq=self.last_seq, lost=self._log.lost, last_error=self._log.last_error
        )

    def close(self) -> None:
        """Writes what is recorded to the disk. Blocks for a few seconds at most."""
        self._log.close()


def _text(value: object) -> str | None:
    return None if value is None else str(value)
