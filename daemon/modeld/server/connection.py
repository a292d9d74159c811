"""One connection: bytes to requests, requests to operations, replies to bytes. All rules of the wire are in modelwire.

An asyncio protocol rather than a stream: a read is answered in the very callback that brought it, and the replies to
all requests of one read leave in one write. Measured, that is 1.7 times the requests per second of a stream per
connection, and the same latency.

The loop of a connection: feed, take a request, dispatch, flush. It takes no requests while the peer does not read, so a
peer can make the daemon hold one reply above the transport's mark, and what the kernel's socket holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import cast

import anyio
import structlog

from modeld.observe.incident import incident
from modeld.operations.operation import Caller, TakesTime
from modeld.operations.registry import Run
from modeld.platform import endpoint
from modeld.server.faults import numbered
from modeld.server.handing_over import Source
from modeld.server.running_request import RunningRequest
from modeld.server.shared import ECHO, SharedState
from modeld.server.stall import PeerTimer, WriteWatch
from modelwire import replies, requests
from modelwire.connection import ServerConnection
from modelwire.decoding import BadRequest
from modelwire.encoding import encode
from modelwire.errors import Internal, InvalidRequest, TimedOut, WireError
from modelwire.operations import BY_REQUEST
from modelwire.requests import Request
from modelwire.values import Done, Value

log = structlog.get_logger("modeld.server")

_TURN = 64
"""Requests of one connection that are answered before the other connections have their turn: about half a
millisecond."""

_TURN_SECONDS = 0.001
"""The same bound for requests that take longer, such as a description of all operations: 64 of those at once kept all
other connections waiting for 200 ms."""

_WRITE_MARK = 256 * 1024
"""Unsent bytes above which a connection is not read: a few large replies, little memory for 64 silent peers."""


_HANGING = 8
"""Lookups of one connection that may wait for a disk beside its other requests. With more, the connection waits."""

_HALF_OPEN_SECONDS = 0.25
"""How often a connection whose peer has ended its side is checked for a reader: so soon a peer that vanishes frees its
place in the queue."""


ConnectionCallback = Callable[["PeerConnection"], None]


class PeerConnection(asyncio.BufferedProtocol):
    def __init__(
        self,
        shared: SharedState,
        source: Source,
        caller: Caller,
        pid: int,
        opened: ConnectionCallback,
        closed: ConnectionCallback,
    ) -> None:
        """`opened` is called when the connection is made, `closed` when it is lost."""
        self._shared = shared
        self.handed = shared.handing_over(source, caller)
        self._opened = opened
        self._lost = closed
        self.caller = caller
        self.pid = pid
        self.wire = ServerConnection()
        self._running: dict[str, RunningRequest] = {}
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._in_turn = False
        self._eof = False
        self._closing = False
        self._continued = False
        self._in_lookup = False
        self._hanging = 0
        self._read_stall: PeerTimer | None = None
        self._permitted = shared.permitted[caller.role]
        self._reading = True
        self.writable = True
        self._writable_again = anyio.Event()

    # -- the transport's callbacks; none of them may raise

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_WRITE_MARK)
        self._watch = WriteWatch(self.transport, self._shared.loop, self._shared.write_stall, self._cut)
        self._opened(self)
        self.write(self._shared.hello_for(self.caller))

    def get_buffer(self, _: int) -> memoryview:
        return self._shared.read_buffer

    def buffer_updated(self, size: int) -> None:
        if self.handed.arrived:
            self.handed.count_arrived()
        if not self._closing:
            self.wire.feed(bytes(self._shared.read_buffer[:size]))
            self._turn()

    def eof_received(self) -> bool:
        """The peer has ended its side. Its last line counts without a newline; it may still read, or be gone."""
        if not self._eof:
            self._eof = True
            self._turn()
            self._check_reader()
        return True

    def _check_reader(self) -> None:
        """Once a peer has ended its side, only the kernel knows whether it still reads."""
        if self._closing:
            return
        if endpoint.reader_gone(self.transport):
            self.transport.abort()
        else:
            self._shared.loop.call_later(_HALF_OPEN_SECONDS, self._check_reader)

    def pause_writing(self) -> None:
        self.writable = False
        self._pause_reading()
        self._stop_read_stall()

    def resume_writing(self) -> None:
        self._set_writable()
        if not self._closing:
            self._turn()

    def connection_lost(self, _: Exception | None) -> None:
        self._closing = True
        self._stop_read_stall()
        self._watch.stop()
        self._set_writable()
        for running in list(self._running.values()):
            running.abandon()
        self.handed.close()
        self._shared.leases.left(self)
        self._lost(self)

    # -- taking requests

    def _turn(self) -> None:
        """Answers the requests that have arrived, up to a bound; then the other connections have their turn."""
        left = _TURN
        ends = monotonic() + _TURN_SECONDS
        self._in_turn = True
        while left and self.writable and not (self._in_lookup or self._closing):
            left -= 1
            try:
                request = self.wire.next_request()
                if request is None and self._eof:
                    request = self.wire.finish()
            except BadRequest as bad:
                self._refuse(bad)
            else:
                if request is None:
                    break
                self._dispatch(request)
            if self._read_stall is not None:
                self._stop_read_stall()  # the bytes left, if any, are half of another request
            if monotonic() > ends:
                left = 0
        self._in_turn = False
        self._flush()
        if self.handed.unclaimed and not self._closing:
            self._refuse_stray()
        self._arrange_more(more=not left)

    def _arrange_more(self, *, more: bool) -> None:
        if self._closing:
            return
        if self._in_lookup:
            # One after the other: each takes milliseconds of the event loop, and its reply takes memory.
            self._pause_reading()
            self._stop_read_stall()
        elif more:
            self._go_on_soon()
        elif self.writable:
            if not self._reading:
                self._reading = True
                self.transport.resume_reading()
            self._watch_read_stall()
            if self._eof:
                self._close_when_served()

    def _go_on_soon(self) -> None:
        self._pause_reading()
        if not self._continued:
            self._continued = True
            self._shared.loop.call_soon(self._continue)

    def _pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self.transport.pause_reading()

    def _set_writable(self) -> None:
        self.writable = True
        self._writable_again.set()
        self._writable_again = anyio.Event()

    def _continue(self) -> None:
        self._continued = False
        if not self._closing and self.writable:
            self._turn()

    def _dispatch(self, request: Request) -> None:
        kind = type(request)
        quick = self._shared.operations.quick.get(kind)
        try:
            if kind not in self._permitted:
                self.caller.require(BY_REQUEST[kind].role, BY_REQUEST[kind].name)
            if quick is not None:
                try:
                    self._finish(request.id, quick(self.caller, request))
                except TakesTime:
                    self._begin(request, self._shared.operations.slow[kind])
            elif (slow := self._shared.operations.slow.get(kind)) is not None:
                self._begin(request, slow)
            else:
                self._finish(request.id, self._of_connection(request))
        except WireError as fault:
            self._fail(request.id, fault)
            if self.handed.broken:
                self.hang_up()
        except Exception as error:  # noqa: BLE001 - reported as an incident; the connection stays
            self._fail(request.id, incident(error, op=BY_REQUEST[kind].name))

    def _begin(self, request: Request, operation: Run) -> None:
        running = RunningRequest(self, request, is_lookup=type(request) in self._shared.operations.lookups)
        if running.is_lookup:
            self._in_lookup = True
        else:
            self._shared.peer_limits.begin(self.caller.uid)
        self._running[request.id] = running
        self._shared.tasks.start_soon(running.run, operation, name=f"request {BY_REQUEST[type(request)].name}")

    def _of_connection(self, request: Request) -> Value:
        if isinstance(request, requests.Cancel):
            running = self._running.get(request.target)
            if running is None:
                raise InvalidRequest(
                    f"$.target: no request {request.target[:ECHO]!r} is in flight on this connection",
                    hint="It may have ended; cancel a job with job.cancel.",
                )
            running.cancel()
            return Done(target=request.target)
        if isinstance(request, requests.FilesOffer):
            return self.handed.offer(request)
        return self._shared.welcome(cast("requests.Hello", request))

    # -- answering

    def lookup_hangs(self, running: RunningRequest) -> None:
        """A lookup waits for a disk: it holds up no other request of this connection, and can be cancelled."""
        if running.is_lookup and self._hanging < _HANGING:
            self._hanging += 1
            running.hangs = True
            self._go_on_after_lookup()

    def takes_long(self, running: RunningRequest) -> None:
        """A lookup becomes a request in flight."""
        self._shared.peer_limits.begin(self.caller.uid)
        self._lookup_ended(running)

    def _lookup_ended(self, running: RunningRequest) -> None:
        if running.hangs:
            self._hanging -= 1
        else:
            self._go_on_after_lookup()

    def _go_on_after_lookup(self) -> None:
        self._in_lookup = False
        if not self._closing:
            self._go_on_soon()

    def ended(self, running: RunningRequest) -> None:
        self._running.pop(running.id, None)
        if running.is_lookup:
            self._lookup_ended(running)
        else:
            self._shared.peer_limits.end(self.caller.uid)
        if not self._closing:
            self._close_when_served()

    def _finish(self, request_id: str, value: Value) -> None:
        self.write(self.wire.reply(replies.Result(id=request_id, value=value)))

    def finish(self, request_id: str, value: Value) -> None:
        if not self._closing:
            self._finish(request_id, value)

    def _fail(self, request_id: str, fault: WireError) -> None:
        if isinstance(fault, Internal):
            fault = numbered(fault)
        self.write(self.wire.reply(replies.Error.of(request_id, fault)))

    def fail(self, request_id: str, fault: WireError) -> None:
        if not self._closing:
            self._fail(request_id, fault)

    def _refuse(self, bad: BadRequest) -> None:
        """Answers a line that is no request. It has not opened its id, and must not close a live request."""
        known = bad.id is not None and bad.id not in self.wire.open
        self.write(encode(replies.Error.of(bad.id if known else None, bad.fault)))
        if bad.fatal:
            self.hang_up()

    def _refuse_stray(self) -> None:
        """Ends a connection on which descriptors have come without the line that they belong to."""
        if (fault := self.handed.stray(more_to_come=self.wire.partial)) is not None:
            self.write(encode(replies.Error.of(None, fault)))
            self.hang_up()

    def write(self, frame: bytes) -> None:
        if self._in_turn:
            self._out.append(frame)
            self._out_bytes += len(frame)
            if self._out_bytes > _WRITE_MARK:
                self._flush()
        elif not self._closing:
            self.transport.write(frame)
            self._watch.sent(len(frame))

    def _flush(self) -> None:
        if self._out:
            frames, size = self._out, self._out_bytes
            self._out, self._out_bytes = [], 0
            self.transport.write(frames[0] if len(frames) == 1 else b"".join(frames))
            self._watch.sent(size)

    async def until_writable(self) -> None:
        while not self.writable:
            await self._writable_again.wait()

    # -- ending

    def end_requests(self, fault: WireError) -> None:
        for running in list(self._running.values()):
            running.end(fault)

    @property
    def closed(self) -> bool:
        return self._closing

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def hang_up(self) -> None:
        """Sends what is written, then closes. Requests in flight are abandoned."""
        self._flush()
        self._closing = True
        self._stop_read_stall()
        self.transport.close()

    def _close_when_served(self) -> None:
        if self._eof and not self._running and not self.wire.partial:
            self.hang_up()

    def _watch_read_stall(self) -> None:
        """Limits the time of half a request from its first byte on: a trickle does not hold a connection for ever."""
        if not self.wire.partial:
            self._stop_read_stall()
        elif self._read_stall is None:
            self._read_stall = PeerTimer(self._shared.loop, self._shared.read_stall, self._on_read_stall)

    def _stop_read_stall(self) -> None:
        if self._read_stall is not None:
            self._read_stall.cancel()
            self._read_stall = None

    def _on_read_stall(self) -> None:
        fault = TimedOut(
            f"half a request came and nothing more for {self._shared.read_stall:g} s",
            hint="End each request with a newline. The connection is closed: open a new one.",
        )
        self.write(encode(replies.Error.of(None, fault)))
        self.hang_up()

    def _cut(self) -> None:
        log.warning("a peer took no reply in time; its connection is cut", uid=self.caller.uid)
        self._shared.note_cut(self.caller)
        self.transport.abort()
