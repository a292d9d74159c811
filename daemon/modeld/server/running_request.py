"""One request that takes time: a task, a scope that cancels it, and the promise of exactly one terminal reply."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

import anyio

from modeld.observe.incident import incident
from modeld.operations.operation import Caller, Connection, Handed
from modeld.operations.registry import Run
from modelwire.connection import ServerConnection
from modelwire.errors import Cancelled, Interrupted, WireError
from modelwire.operations import BY_REQUEST
from modelwire.replies import Reply
from modelwire.requests import Request
from modelwire.values import Value

_LOOKUP_SECONDS: Final = 0.1
"""For a lookup. A disk that works answers within milliseconds."""


class ReplyChannel(Connection, Protocol):
    """The connection of the request and its replies."""

    caller: Caller
    wire: ServerConnection
    writable: bool

    @property
    def handed(self) -> Handed: ...

    def write(self, frame: bytes) -> None: ...

    def finish(self, request_id: str, value: Value) -> None: ...

    def fail(self, request_id: str, fault: WireError) -> None: ...

    def lookup_hangs(self, running: RunningRequest) -> None: ...

    def takes_long(self, running: RunningRequest) -> None: ...

    def ended(self, running: RunningRequest) -> None: ...

    async def until_writable(self) -> None: ...


class RunningRequest:
    """Implements `Call` for the operation."""

    __slots__ = ("_abandoned", "_channel", "_end_error", "_request", "_scope", "hangs", "is_lookup")

    def __init__(self, channel: ReplyChannel, request: Request, *, is_lookup: bool) -> None:
        self._channel = channel
        self._request = request
        self.is_lookup = is_lookup
        self.hangs = False
        """Whether it is a lookup for which its connection no longer waits."""
        self._scope = anyio.CancelScope()
        self._abandoned = False
        self._end_error: WireError = Cancelled("the request was cancelled by its client")

    @property
    def id(self) -> str:
        return self._request.id

    @property
    def caller(self) -> Caller:
        return self._channel.caller

    @property
    def handed(self) -> Handed:
        return self._channel.handed

    @property
    def connection(self) -> Connection:
        return self._channel

    def send(self, reply: Reply) -> None:
        if not self._abandoned:
            self._channel.write(self._channel.wire.reply(reply))

    def frame(self, reply: Reply) -> bytes:
        return self._channel.wire.reply(reply)

    def send_frame(self, frame: bytes) -> None:
        if not self._abandoned:
            self._channel.write(frame)

    def takes_long(self) -> None:
        if self.is_lookup:
            self._channel.takes_long(self)
            self.is_lookup = False

    @property
    def writable(self) -> bool:
        return self._channel.writable

    async def until_writable(self) -> None:
        await self._channel.until_writable()

    def cancel(self) -> None:
        """For the client: the request still gets its terminal reply."""
        self._scope.cancel()

    def end(self, fault: WireError) -> None:
        """For the daemon: cancels the request, which gets this error as its terminal reply."""
        self._end_error = fault
        self._scope.cancel()

    def abandon(self) -> None:
        """The connection is gone: cancels the request, which gets no reply."""
        self._abandoned = True
        self._scope.cancel()

    async def run(self, operation: Run) -> None:
        answered = False
        timer = None
        if self.is_lookup:
            timer = asyncio.get_running_loop().call_later(_LOOKUP_SECONDS, self._channel.lookup_hangs, self)
        try:
            with self._scope:
                try:
                    # A value that cannot be sent (too long, no JSON) is an error of this request, not of the daemon.
                    self._channel.finish(self.id, await operation(self, self._request))
                except WireError as fault:
                    self._channel.fail(self.id, fault)
                except Exception as error:  # noqa: BLE001 - reported as an incident; the connection stays
                    self._channel.fail(self.id, incident(error, op=BY_REQUEST[type(self._request)].name))
                answered = True
            if not answered:
                answered = True
                self._channel.fail(self.id, self._end_error)
        finally:
            if timer is not None:
                timer.cancel()
            if not answered:
                # The daemon ends without waiting: reply as long as that is possible.
                self._channel.fail(self.id, Interrupted("the daemon stopped before this request had ended"))
            self._channel.ended(self)
