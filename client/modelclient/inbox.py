"""Replies to one request that have arrived and were not yet taken. Pure, and bounded however slow the taker is.

Progress of a job replaces older progress of that job. Events are kept up to a limit; those beyond it are counted and
reported as one `lagged`, in their place, as the daemon does for a watcher that does not read. Everything else is kept:
there is one terminal reply, and an `accepted` for each new position.
"""

from __future__ import annotations

from collections import deque

from modelwire import limits
from modelwire.errors import ModeldError
from modelwire.replies import Event, Lagged, Progress, Received

EVENTS_HELD = 4 * limits.WATCHER_QUEUE
"""Events on this side: enough for a taker that stops to print, small against a program's memory."""


class _Gap:
    __slots__ = ("dropped", "resume_from")

    def __init__(self, resume_from: int) -> None:
        self.dropped = 0
        self.resume_from = resume_from


class Inbox:
    """Rules: put until `end`; take until it gives None (nothing yet) or, when ended, raises the fault."""

    __slots__ = ("_events", "_fault", "_items", "_last_seq", "_limit", "_progress", "id")

    def __init__(self, id: str, *, events_held: int = EVENTS_HELD) -> None:  # noqa: A002 - the wire's word
        self.id = id
        self._items: deque[Received | _Gap | str] = deque()
        self._progress: dict[str, Progress] = {}
        self._events = 0
        self._last_seq = 0
        self._limit = events_held
        self._fault: ModeldError | None = None

    def put(self, reply: Received) -> None:
        if isinstance(reply, Progress):
            if reply.job not in self._progress:
                self._items.append(reply.job)
            self._progress[reply.job] = reply
        elif isinstance(reply, Event):
            self._put_event(reply)
        else:
            self._items.append(reply)

    def _put_event(self, event: Event) -> None:
        if self._events < self._limit:
            self._events += 1
            self._last_seq = event.seq
            self._items.append(event)
            return
        if not (self._items and isinstance(self._items[-1], _Gap)):
            self._items.append(_Gap(self._last_seq))
        gap = self._items[-1]
        assert isinstance(gap, _Gap)
        gap.dropped += 1

    def end(self, fault: ModeldError) -> None:
        """Nothing more will come: what is held can still be taken, then the fault is raised."""
        self._fault = self._fault or fault

    def take(self) -> Received | None:
        if not self._items:
            if self._fault is not None:
                raise self._fault
            return None
        item = self._items.popleft()
        if isinstance(item, str):
            return self._progress.pop(item)
        if isinstance(item, _Gap):
            return Lagged(id=self.id, dropped=item.dropped, resume_from=item.resume_from)
        if isinstance(item, Event):
            self._events -= 1
        return item
