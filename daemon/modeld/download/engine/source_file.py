"""One file at one source: what connections request of it, what its answers mean, and what its failures lead to.

The connections of an attempt share it, and so does the thread that runs the attempt.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from modeld.download.engine.assembly import Assembly
from modeld.download.engine.budget import Pace
from modeld.download.engine.connection_count import ConnectionCount
from modeld.download.engine.retry import RetryPolicy
from modeld.download.partials.segments import UNBOUNDED, Segment
from modeld.download.partials.shared_state import ConnectionBytes
from modeld.download.routes.events import EventKind, OnEvent, TransferEvent
from modeld.download.routes.outcomes import Changed, GaveUp, Network, Quit
from modeld.download.source import WEAK, Body, FileInfo, Opener, giver, giver_shown, strong
from modeld.download.tuning import REQUEST_SECONDS, SMALLEST_SPLIT
from modelwire.errors import SourceUnavailable, WireError

_TOO_MANY: Final = (429, 503)
"""Statuses with which a host answers when it wants fewer connections."""


class SourceFile:
    def __init__(
        self,
        network: Network,
        assembly: Assembly,
        opener: Opener,
        file: FileInfo,
        *,
        pace: Pace,
        attempted: Callable[[], None],
        on_event: OnEvent,
        has_alternative: Callable[[], bool],
    ) -> None:
        self.assembly = assembly
        self.opener = opener
        self.file = file
        self.pace = pace
        self.name = giver_shown(giver(opener, file))
        self.validator = file.validator
        # Without a version of the file, it comes in one answer: two answers may be of two versions.
        self.whole = not file.ranges or self._has_no_version()
        self.long = file.long_requests is not None
        self.uncached = not assembly.workspace.keep_cache
        self.stopping = False
        self.outcome: GaveUp | Changed | None = None
        self.connections: list[ConnectionBytes] = []
        """One for each connection that runs. Read and written under the lock of the state."""

        self._network = network
        self._tuning = network.tuning
        self._state = assembly.state
        self._on_event = on_event
        self._received_before = 0
        self.retry = RetryPolicy(
            network=network,
            state=self._state,
            origin=file.origin,
            tell=self._tell,
            attempted=attempted,
            give_up=self._stop_with,
            has_alternative=has_alternative,
            stopping=self.is_stopping,
        )
        found = assembly.partial.connections.get(self.name, 0)
        self.connection_count = ConnectionCount(network.tuning, network.clock(), found=found)

    @property
    def received(self) -> int:
        """Bytes that came over the network, in all."""
        with self._state.lock:
            return self._received_before + sum(connection.received for connection in self.connections)

    def is_stopping(self) -> bool:
        return self.stopping

    @property
    def open_ended(self) -> bool:
        return self._state.segments.size is None

    def end_of_request(self, segment: Segment, asked: int) -> int | None:
        """The end of the request that begins at the segment's position: `asked`, or for a long request the next bytes
        that are here already."""
        if self.open_ended:
            return None
        if not self.long:
            return asked
        with self._state.lock:
            gap = self._state.segments.have.gap(segment.position, self._state.segments.limit)
            return asked if gap is None else max(asked, gap[1])

    def next_segment(self, connection: ConnectionBytes) -> Segment | None:
        """None when the connection is to end. Blocks while it is too far ahead of the hash, or of the journal."""
        state = self._state
        with state.lock:
            while True:
                if self.stopping or state.fault is not None or self._is_surplus(connection):
                    return None
                now = self._network.clock()
                if self.whole:
                    return None if state.segments.busy or state.segments.complete else state.segments.take_all(now)
                if state.segments.size is None:
                    return None if state.segments.busy else state.segments.take(now, UNBOUNDED)
                if state.journalled and connection.unjournalled > self._tuning.unjournalled_bytes:
                    state.urgent = True
                    state.may_journal.notify()
                    state.may_fetch.wait()
                    continue
                free = state.segments.next_free()
                if free is not None and free[0] >= state.hashed + self._tuning.ahead_bytes:
                    state.stalled += 1
                    state.may_fetch.wait()
                    state.stalled -= 1
                    continue
                if free is None:
                    return state.segments.split(now)
                return state.segments.take(now, self._tuning.segment_bytes)

    def is_whole(self, segment: Segment) -> bool:
        return segment.start == 0 and segment.end >= self._state.segments.limit

    def ask(self, segment: Segment, rate: float | None) -> int:
        """The end of the connection's next request. `rate` is what it brought last, in bytes a second."""
        segments, most = self._state.segments, self._tuning.segment_bytes
        with self._state.lock:
            if self.whole or self.long or segments.size is None:
                return segments.ask(segment, UNBOUNDED)
            if rate is None and segments.size - segments.have.total <= most:
                return segments.ask(segment, most)  # too little for a second connection: one request will do
            return segments.ask(segment, min(most, max(SMALLEST_SPLIT, int((rate or 0.0) * REQUEST_SECONDS))))

    def _is_surplus(self, connection: ConnectionBytes) -> bool:
        wanted = 1 if self.whole or self.long else self.connection_count.target
        if len(self.connections) > wanted and self.connections[wanted:].count(connection) > 0:
            return True
        return len(self.connections) > 1 and self._network.hosts.give_up(self.file.origin)

    def ended(self, connection: ConnectionBytes) -> None:
        with self._state.lock:
            self.connections.remove(connection)
            self._received_before += connection.received
            self._state.changed.notify()
        self._network.hosts.release(self.file.origin)

    def judge(self, body: Body, segment: Segment, asked: str | None, *, whole: bool) -> int:
        """Checks the head of an answer; returns the number of the identity under which its bytes are recorded.
        `asked` is the validator of the request, `whole` whether the request was for the whole file."""
        self.retry.answered()
        total, size = body.total, self._state.segments.size
        known, shown = self.validator if asked is None else asked, strong(body.validator)
        changed = _differ(known, body.validator)
        resized = total is not None and size is not None and total != size
        if self.assembly.digest is None:
            # A part comes on the condition that the version is the known one; a whole file has to show it.
            unproven = not body.partial and known is not None and shown != known and self._state.segments.have.total > 0
            what = f"it has {total} bytes instead of {size}" if resized else "its validator is another one"
            if changed or resized or unproven or _differ(self.validator, body.validator):
                self._stop_with(Changed(what, total, shown))
                raise Quit
        if resized:
            raise SourceUnavailable(
                f"{self.name} has {total} bytes under {self.file.path}, not the {size} that were described",
                hint="It serves another file: pull the reference again, or use another source.",
                retryable=False,
            )
        if changed and self.validator != body.validator:
            self._tell("source.changed", "its validator is another one now; the digest decides about the bytes")
        if not body.partial and not whole:
            self._not_partial(body, segment, changed=changed)
        keeps = body.partial and not changed and known is not None and (shown is None or _is_tag(known))
        validator = self.validator = known if keeps else shown
        if body.start != segment.position:
            raise SourceUnavailable(f"{self.name} sent the bytes from {body.start}, not from {segment.position}")
        if size is None and total is not None:
            self._set_size(total, segment)
        with self._store_errors():
            return self.assembly.partial.identity(giver(self.opener, self.file), validator)

    @contextlib.contextmanager
    def _store_errors(self) -> Iterator[None]:
        """A WireError in here is a fault of the store, not of the source: no retry helps."""
        try:
            yield
        except WireError as fault:
            self._state.fail(fault)
            raise Quit from None

    def _set_size(self, total: int, segment: Segment) -> None:
        """The request was for the whole file before its size was known, so this answer holds all of it."""
        if total == 0:
            raise SourceUnavailable(
                f"{self.name} sent no bytes at all for {self.file.path}",
                hint="Check the address; the file may not be uploaded yet.",
                retryable=False,
            )
        with self._store_errors():
            self.assembly.size_is(total)
        with self._state.lock:
            segment.asked = segment.end = total

    def _not_partial(self, body: Body, segment: Segment, *, changed: bool) -> None:
        """The whole file came, although the request was for a part."""
        size = self._state.segments.size
        if changed:
            self.validator = strong(body.validator)
            raise SourceUnavailable(f"{self.name} has replaced {self.file.path}; it is requested again")
        if body.start == segment.position and (size is None or segment.asked >= size):
            self.whole = self.whole or size is None
            return
        with self._state.lock:
            first, self.whole = not self.whole, True
        if first:
            self._tell("transfer.ranges_ignored", "it sends the whole file only: one connection, from the first byte")
        raise Quit

    def ended_at(self, size: int) -> None:
        """The answer has ended at `size`, and its framing says that it was complete."""
        self.assembly.size_by_end = True
        self.assembly.size_is(size)

    def failed(self, fault: WireError, round_began: int) -> None:
        """Waits until the next try, or raises Quit."""
        with self._state.lock:
            others = len(self.connections) - 1
            if others > 0 and fault.details.get("status") in _TOO_MANY:
                self.connection_count.refused(self._network.clock(), others)
        self.retry.failed(fault, round_began)
        have = self._state.segments.have.total
        if have and self._has_no_version():
            self._stop_with(Changed("", self._state.segments.size, None, broke_off=True))
            raise Quit

    def _has_no_version(self) -> bool:
        """Without a digest and a validator the next answer may be of another version than the last one."""
        return self.assembly.digest is None and self.validator is None

    def _stop_with(self, outcome: GaveUp | Changed) -> None:
        with self._state.lock:
            if self.outcome is None:
                self.outcome = outcome
            self.stopping = True
            self._state.wake()

    def _tell(self, kind: EventKind, reason: str, *, attempt: int = 1, delay_s: float = 0.0) -> None:
        self._on_event(
            TransferEvent(
                kind=kind,
                file=self.file.path,
                source=self.name,
                reason=reason,
                attempt=attempt,
                delay_s=round(delay_s, 3),
                bytes=self.retry.have,
            )
        )


def _differ(known: str | None, other: str | None) -> bool:
    """Whether they show two versions. Compares validators of one kind only: an answer may have a date where the
    description has an ETag."""
    if known is None or other is None:
        return False
    known, other = known.removeprefix(WEAK), other.removeprefix(WEAK)
    return known != other and _is_tag(known) == _is_tag(other)


def _is_tag(validator: str) -> bool:
    return validator.startswith('"')
