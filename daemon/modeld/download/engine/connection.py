"""One connection: it takes a segment, requests it, writes what comes, and goes on until there is no segment left."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import threading
import time
from typing import Final

import xxhash

from modeld.download.cancel_scope import CancelScope
from modeld.download.content import HEAD, check_beginning
from modeld.download.engine.source_file import SourceFile
from modeld.download.partials.buffers import new_buffer
from modeld.download.partials.journal import Piece
from modeld.download.partials.segments import Segment
from modeld.download.partials.shared_state import ConnectionBytes
from modeld.download.routes.outcomes import Quit
from modeld.download.source import Body, Narrowable
from modeld.download.tuning import CHUNK, PIECE, RETAINED, SHORT
from modeld.progress import Stopped
from modeld.store.blobs.front_to_back import UNCACHED_FROM
from modeld.store.disk import durable
from modeld.store.disk.durable import store_faults
from modelwire.errors import SourceUnavailable, WireError

_UNKNOWN_FLAG = (errno.EOPNOTSUPP, errno.EINVAL)


_NO_BUFFER: Final = memoryview(b"")
"""Of a connection that has ended: the error of a download leads to its connections, as long as anything has it."""


class Connection(threading.Thread):
    def __init__(self, source: SourceFile, number: int) -> None:
        super().__init__(name=f"modeld-fetch-{number}", daemon=True)
        self.opening = False
        """The source is opening the body: the thread touches neither the file nor the state. Something that the scope
        does not know, such as a program that keeps passwords, may keep it from ending."""

        self._scope = CancelScope()
        self.body: Body | None = None
        self._body_at = 0
        """The offset in the file of the body's next byte, while the body is kept for the next segment."""

        self._body_from = 0
        """That of its first byte."""

        self.bytes = ConnectionBytes()
        self._identity = 0
        self._whole = False
        self._round = 0
        self._rate: float | None = None
        """Bytes a second of the last answer that was long enough to measure."""

        self._source = source
        self._tuning = source.assembly.workspace.tuning
        self._state = source.assembly.state
        self._descriptor = source.assembly.partial.descriptor
        self._path = source.assembly.partial.path
        self._buffer = new_buffer()
        self._filled = 0
        self._piece_start = 0
        self._piece_end = 0
        self._piece_ends = 0.0
        self._piece_source = -1
        self._piece = xxhash.xxh3_64()

    def run(self) -> None:
        try:
            with contextlib.suppress(Quit):
                while (segment := self._source.next_segment(self.bytes)) is not None:
                    self._fetch(segment)
        except BaseException as fault:  # noqa: BLE001 - the attempt raises it again
            self._state.fail(fault)
        finally:
            self._close_body()
            self._buffer = _NO_BUFFER
            self._source.ended(self.bytes)

    def abort(self) -> None:
        self._scope.cancel()
        body = self.body
        if body is not None:
            body.abort()

    # -- one segment, in as many requests as it takes

    def _fetch(self, segment: Segment) -> None:
        source = self._source
        try:
            while segment.left > 0 and not source.stopping:
                try:
                    if self._ask(segment):
                        return
                except WireError as fault:
                    self._end_piece()
                    source.failed(fault, self._round)  # waits, or raises Quit
        finally:
            self._end_piece()
            with self._state.lock:
                self._state.segments.release(segment)
                self._state.urgent = True
                self._state.may_journal.notify()
                self._state.changed.notify()

    def _ask(self, segment: Segment) -> bool:
        """True at the end of a file whose size was not known before."""
        body = self._continue_body(segment) or self._begin(segment)
        continues = False
        try:
            if self._piece_end != segment.position or self._piece_source != self._identity:
                self._end_piece()
                self._begin_piece(segment.position)
            began, received = time.monotonic(), self.bytes.received
            try:
                at_end = self._receive(body, segment)
            finally:
                self._measure(self.bytes.received - received, time.monotonic() - began)
                self._flush(segment)
            continues = self._source.long and body.end is not None and segment.position < body.end
            self._body_at = segment.position
            return at_end
        finally:
            if not continues:
                self._close_body()

    def _continue_body(self, segment: Segment) -> Body | None:
        """The body of the previous segment, when this segment follows it."""
        if self.body is not None and self._body_at == segment.position:
            self._source.ask(segment, None)
            return self.body
        self._close_body()
        return None

    def _close_body(self) -> None:
        body, self.body = self.body, None
        if body is not None:
            body.close()

    def _begin(self, segment: Segment) -> Body:
        source = self._source
        source.retry.admit()
        # Each of these may change at any moment; the answer is judged by the values of its request.
        self._round, whole, validator = source.retry.round, source.whole, source.validator
        if whole and not source.is_whole(segment):
            # It would write the same bytes as the connections that still run. One that starts after them takes it all.
            source.retry.not_asked()
            raise Quit
        self._whole = whole
        end = source.end_of_request(segment, source.ask(segment, self._rate))
        self.opening = True
        try:
            with self._scope:
                if whole:
                    body = source.opener.open(dataclasses.replace(source.file, ranges=False), 0, None, None)
                else:
                    body = source.opener.open(source.file, segment.position, end, validator)
        except WireError:
            raise
        except Stopped:
            source.retry.not_asked()
            raise Quit from None
        except BaseException:  # not an answer: whatever it is, it must not hold up the host's only probe
            source.retry.not_asked()
            raise
        finally:
            self.opening = False
        self.body = body
        if isinstance(body, Narrowable):
            body.narrow(source.pace.window)
        try:
            if source.stopping:
                source.retry.not_asked()
                raise Quit
            if whole:
                with self._state.lock:
                    segment.position = 0
            self._body_from = segment.position
            self._identity = source.judge(body, segment, validator, whole=whole)
        except BaseException:  # also Quit, after which the thread has no use for the body
            self._close_body()
            raise
        return body

    def _measure(self, got: int, seconds: float) -> None:
        if got >= CHUNK:
            self._rate = got / max(seconds, 0.001)

    def _receive(self, body: Body, segment: Segment) -> bool:
        source = self._source
        while True:
            position = segment.position + self._filled
            reach = self._reach(segment, position)
            if position >= reach:
                return self._at_end(body, position)
            want = min(CHUNK - self._filled, reach - position)
            granted = source.pace.take(want, source.is_stopping)
            if granted == 0 or source.stopping:
                raise Quit
            got = body.readinto(self._buffer[self._filled : self._filled + granted])
            source.pace.refund(granted - got)
            if source.stopping:
                raise Quit  # an aborted read may have returned anything
            self.bytes.received += got
            if got == 0:
                return self._ended_early(body, segment, position)
            self._filled += got
            if self._filled == CHUNK or position + got == reach:
                self._flush(segment)

    def _reach(self, segment: Segment, position: int) -> int:
        """The end of the bytes that the chunk may hold. The answer of a whole file passes over parts that are here."""
        if not self._whole:
            return segment.asked
        with self._state.lock:
            have = self._state.segments.have
            gap = have.gap(position, segment.end)
            if gap is None:
                segment.position = segment.end
                return position
            return gap[1] if gap[0] == position else gap[0]

    def _at_end(self, body: Body, position: int) -> bool:
        """Every byte of the request has come. A source that sends more of a whole file has another file."""
        whole = self._whole and position == self._state.segments.size
        if whole and body.end is None and body.readinto(self._buffer[:1]):
            raise SourceUnavailable(
                f"{self._source.name} sends more than the {position} bytes of {self._source.file.path}",
                hint="Its size is not the one that was described: pull the reference again.",
                retryable=False,
            )
        return False

    def _ended_early(self, body: Body, segment: Segment, position: int) -> bool:
        """The answer has ended before the segment."""
        if self._state.segments.size is None and body.end in (None, position):
            if position == 0:
                raise SourceUnavailable(
                    f"{self._source.name} sent no bytes at all for {self._source.file.path}",
                    hint="Check the address; the file may not be uploaded yet.",
                    retryable=False,
                )
            self._flush(segment)
            self._source.ended_at(position)
            return True
        if body.end == position and position > segment.start and not self._whole:
            # It sent less than the range, and announced so: the next request is for the rest.
            self._flush(segment)
            if position - self._body_from < SHORT:
                self._source.retry.wait(self._tuning.short_answer_seconds)
            return False
        raise SourceUnavailable(
            f"{self._source.name} ended after {position} of the {segment.asked} bytes that were requested"
            f" of {self._source.file.path}"
        )

    # -- bytes to the disk

    def _flush(self, segment: Segment) -> None:
        """Writes what was received, also before a fault."""
        filled, self._filled = self._filled, 0
        if filled == 0 or self._state.fault is not None:
            return
        state, start = self._state, segment.position
        chunk = self._buffer[:filled]
        if start == 0:
            check_beginning(bytes(chunk[:HEAD]), self._source.file, self._source.name)
        if self._whole and state.segments.have.covers(start, start + filled):
            segment.position = start + filled
            self._end_piece()
            self._begin_piece(segment.position)
            return
        with state.lock:
            # Hashed bytes must never be written over, whatever goes wrong elsewhere.
            assert not state.segments.have.overlaps(start, start + filled), (start, filled)
        spare = state.buffers.take() if start - state.hashed < RETAINED else None
        try:
            self._source.assembly.make_room(start, start + filled)
            self._source.assembly.partial.move("write")
            with store_faults("write to", self._path):
                self._write(chunk, start, uncached=spare is not None)
        except WireError as fault:
            state.fail(fault)  # of the store, not of the source: no retry helps
            raise Quit from None
        self._source.assembly.wrote(filled)
        self._piece.update(chunk)
        with state.lock:
            state.segments.wrote(segment, start + filled)
            state.by_source[self._identity] = state.by_source.get(self._identity, 0) + filled
            if spare is not None:
                state.in_memory[start] = (self._buffer, filled)
            state.may_hash.notify()
        if spare is not None:
            self._buffer = spare
        self._piece_end = segment.position
        length = self._piece_end - self._piece_start
        if length >= PIECE or (length >= SHORT and time.monotonic() >= self._piece_ends):
            self._end_piece()
            self._begin_piece(segment.position)

    def _write(self, chunk: memoryview, offset: int, *, uncached: bool) -> None:
        source = self._source
        if uncached and source.uncached and len(chunk) >= UNCACHED_FROM:
            try:
                durable.write_at(self._descriptor, chunk, offset, durable.RWF_DONTCACHE)
                return
            except OSError as fault:
                if fault.errno not in _UNKNOWN_FLAG:
                    raise
            source.uncached = False
        durable.write_at(self._descriptor, chunk, offset)

    def _begin_piece(self, start: int) -> None:
        self._piece_start = self._piece_end = start
        self._piece_ends = time.monotonic() + self._tuning.piece_seconds
        self._piece_source = self._identity
        self._piece.reset()

    def _end_piece(self) -> None:
        state, start, end = self._state, self._piece_start, self._piece_end
        if end > start and state.journalled:
            piece = Piece(start, end, self._piece.hexdigest(), self._piece_source)
            with state.lock:
                state.pending.append((piece, self.bytes))
                state.pending_bytes += end - start
                state.urgent = state.urgent or state.pending_bytes >= self._tuning.pending_bytes
                self.bytes.unjournalled += end - start
                if len(state.pending) == 1 or state.urgent:
                    state.may_journal.notify()
        self._begin_piece(end)
