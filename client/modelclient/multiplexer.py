"""A client's connection without its socket: requests out, bytes in, each reply to the inbox of its request.

Both connections stand on this. They differ only in how they wait for bytes.
"""

from __future__ import annotations

from modelclient.inbox import Inbox
from modelwire import limits
from modelwire.client import ClientConnection
from modelwire.errors import ConnectionLost, ModeldError, RemoteError, TimedOut, Unsupported
from modelwire.replies import Error, Hello
from modelwire.requests import Request

LAST_WORDS_SECONDS = 1.0
"""How long the client reads on after the daemon has hung up: its reason has arrived already, or never will."""


class Multiplexer:
    """Rules: `open` and send its frame, `feed` what arrives, `take` from the inbox, `forget` a request that was left.

    After a fault of the connection every inbox ends with it, and so does every later `open`.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._wire = ClientConnection()
        self._inboxes: dict[str, Inbox] = {}
        self.fault: ModeldError | None = None

    def open(self, request: Request) -> tuple[Inbox, bytes]:
        if self.fault is not None:
            raise self.fault
        request_id, frame = self._wire.request(request)
        inbox = self._inboxes[request_id] = Inbox(request_id)
        return inbox, frame

    def feed(self, data: bytes) -> list[str]:
        """Takes bytes off the wire; the ids that have something new. No bytes mean that the daemon has hung up."""
        if not data:
            self.end(self.lost())
        touched: list[str] = []
        try:
            self._wire.feed(data)
            while self.fault is None and (reply := self._wire.next_reply()) is not None:
                if reply.id is not None:
                    self._inboxes[reply.id].put(reply)
                    touched.append(reply.id)
                    if reply.terminal:
                        del self._inboxes[reply.id]  # the exchange holds it until it has taken the rest
                elif isinstance(reply, Error):
                    self.end(reply.to_exception())
        except RemoteError as error:
            self.end(error)
        return touched

    def lost(self) -> ConnectionLost:
        waiting = sorted({str(request.__struct_config__.tag) for request in self._wire.open.values()})
        before = f" before it answered {', '.join(waiting)}" if waiting else ""
        return ConnectionLost(
            f"the daemon at {self.endpoint} went away{before}",
            hint="Connect again; `modelctl jobs` shows what became of the work.",
        )

    def end(self, fault: ModeldError) -> ModeldError:
        """Ends every inbox with the first fault given, and returns that one."""
        self.fault = self.fault or fault
        for inbox in self._inboxes.values():
            inbox.end(self.fault)
        self._inboxes.clear()
        return self.fault

    def greeting(self) -> Hello | None:
        """The daemon's hello, once it is here; raises when there is no protocol in common or no connection any more."""
        hello = self._wire.hello
        if hello is None and self.fault is not None:
            raise self.fault
        if hello is not None:
            _check_hello(hello)
        return hello

    def forget(self, request_id: str) -> None:
        """Replies to this id are dropped from now on."""
        self._inboxes.pop(request_id, None)
        self._wire.open.pop(request_id, None)


def _check_hello(hello: Hello) -> None:
    """Whether this client and that daemon have a protocol in common."""
    if hello.protocol.min > limits.PROTOCOL_MAX or hello.protocol.max < limits.PROTOCOL_MIN:
        raise Unsupported(
            f"{hello.server} speaks protocol {hello.protocol.min} to {hello.protocol.max}, "
            f"this client {limits.PROTOCOL_MIN} to {limits.PROTOCOL_MAX}",
            hint="Install the same version on both sides, then restart the older daemon with `modelctl stop`.",
        )


def silent(endpoint: str) -> TimedOut:
    return TimedOut(
        f"the daemon at {endpoint} accepts connections but says nothing",
        hint="See its log, then stop it and try again: it may be stuck.",
    )
