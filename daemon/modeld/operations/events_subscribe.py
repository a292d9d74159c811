"""events.subscribe: the events of the activity log after a number, then live ones, over one connection."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import anyio
import msgspec

from modeld.activity import Filter, Item, Lagged, Recorded, Subscription
from modeld.operations.loading import REQUESTED
from modeld.operations.operation import Call, SlowOperation
from modeld.store.names import MAX_STEM_BYTES
from modelwire import replies
from modelwire.encoding import splice
from modelwire.errors import InvalidRequest
from modelwire.requests import EventsSubscribe
from modelwire.values import EventsEnd
from modelwire.vocabulary import allows


class Subscribe(SlowOperation[EventsSubscribe, EventsEnd]):
    request, value = EventsSubscribe, EventsEnd

    async def run(self, call: Call, request: EventsSubscribe, /) -> EventsEnd:
        _check(request)
        activity = self._services.activity
        wanted = Filter(frozenset(request.events), request.model, request.job, request.progress)
        since = request.since
        if since is None and (request.last is not None or not request.follow):
            since = max(0, activity.last_seq - (request.last or 0))
        writer = _EventWriter(call)
        with activity.subscribe(since, wanted) as subscription:
            while items := await subscription.stored():
                writer.write(items)
                await call.until_writable()
            if request.follow:
                with self._as_engine(call, request):
                    await _follow(call, subscription, writer)
        return EventsEnd(last_seq=activity.last_seq, delivered=writer.delivered)

    def _as_engine(self, call: Call, request: EventsSubscribe) -> AbstractContextManager[None]:
        if REQUESTED in request.events and allows(call.caller.role, "write"):
            return self._services.loading.engine(call.caller.uid)
        return nullcontext()


async def _follow(call: Call, subscription: Subscription, writer: _EventWriter) -> None:
    """Writes live events in the very call that records them, until the request is cancelled.

    A peer that does not read falls behind in the ring. Once it reads again, it gets the number of events it missed.
    """
    held_up = anyio.Event()

    def deliver() -> None:
        if call.writable:
            writer.write(watcher.pending())
        else:
            held_up.set()

    watcher = subscription.hand_over(deliver)
    deliver()
    while True:
        await held_up.wait()
        held_up = anyio.Event()
        await call.until_writable()
        deliver()


class _EventWriter:
    """Writes frames made of lines that are encoded once for all watchers."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._id = msgspec.json.encode(call.id)
        self._event = splice(b"event", self._id, b"{").removesuffix(b"\n")
        self.delivered = 0

    def write(self, items: Sequence[Item]) -> None:
        if len(items) == 1 and isinstance(record := items[0], Recorded):
            self.delivered += 1
            self._call.send_frame(self._event + record.tail)
        elif items:
            self._call.send_frame(b"".join([self._frame(item) for item in items]))

    def _frame(self, item: Item) -> bytes:
        if isinstance(item, Recorded):
            self.delivered += 1
            return splice(b"event", self._id, item.line)
        if isinstance(item, Lagged):
            return self._call.frame(
                replies.Lagged(id=self._call.id, dropped=item.dropped, resume_from=item.resume_from)
            )
        return splice(b"progress", self._id, item.line)


def _check(request: EventsSubscribe) -> None:
    if request.since is not None and request.last is not None:
        raise InvalidRequest(
            "$.last: since and last exclude each other",
            hint="Give one of them: `since` starts after a seq, `last` counts from the end.",
        )
    for name in ("model", "job"):
        text = getattr(request, name)
        if text is not None and len(text) > MAX_STEM_BYTES:
            raise InvalidRequest(
                f"$.{name}: it has {len(text)} characters, and no {name} has a name of more than {MAX_STEM_BYTES}",
                hint="Give it as the events have it.",
            )
    for name in ("since", "last"):
        value = getattr(request, name)
        if value is not None and value < 0:
            raise InvalidRequest(
                f"$.{name}: {value} is negative", hint="Give 0 or more; the first event has the seq 1."
            )
