"""The client's side of a connection, by the rules and the table of `modelwire.connection`, without a socket."""

from __future__ import annotations

from typing import Any

import msgspec

from modelwire import limits, replies
from modelwire.encoding import encode, valid_id
from modelwire.errors import LocalError, RemoteError
from modelwire.framing import LineBuffer, LineTooLong
from modelwire.requests import Request

_REPLY: msgspec.json.Decoder[replies.Received] = msgspec.json.Decoder(replies.Received)
_PLAIN: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


class ClientConnection:
    """The client's side of one connection."""

    __slots__ = ("_lines", "_next", "hello", "open")

    def __init__(self, *, max_reply: int = limits.MAX_REPLY) -> None:
        self._lines = LineBuffer(max_reply)
        self._next = 0
        self.hello: replies.Hello | None = None
        self.open: dict[str, Request] = {}

    def request(self, request: Request) -> tuple[str, bytes]:
        """Opens a request: its id (numbered here when it has none) and the frame to send."""
        if not request.id:
            request = msgspec.structs.replace(request, id=self._free_id())
        elif not valid_id(request.id):
            raise LocalError(f"the id {request.id[:100]!r} is not 1 to {limits.MAX_ID_BYTES} bytes of UTF-8")
        if request.id in self.open:
            raise LocalError(f"the id {request.id!r} is in use")
        frame = encode(request)
        cap = limits.MAX_REQUEST if self.hello is None else self.hello.max_request
        if len(frame) - 1 > cap:
            raise LocalError(f"the request has {len(frame) - 1} bytes, the daemon takes {cap}")
        self.open[request.id] = request
        return request.id, frame

    def _free_id(self) -> str:
        while True:
            self._next += 1
            if str(self._next) not in self.open:
                return str(self._next)

    def feed(self, data: bytes) -> None:
        self._lines.feed(data)

    def next_reply(self) -> replies.Received | None:
        """The next reply that this version knows, or None when more bytes are needed."""
        while True:
            try:
                line = self._lines.take()
            except LineTooLong as error:
                raise RemoteError(f"the daemon sent {error}") from None
            if line is None:
                return None
            reply = self._decode(line)
            if reply is not None:
                return reply

    def _decode(self, line: bytes) -> replies.Received | None:
        try:
            if not line.isascii():
                line.decode()  # a result's value stays raw here: its decoder relies on UTF-8
            reply = _REPLY.decode(line)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self._refuse_unless_unknown(line, error)
            return None
        if isinstance(reply, replies.Event):
            try:
                fields = _PLAIN.decode(line)
            except msgspec.MsgspecError as error:
                raise RemoteError(f"the daemon sent an event that cannot be read: {error}") from None
            fields.pop("type", None)
            fields.pop("id", None)
            reply = msgspec.structs.replace(reply, fields=fields)
        elif isinstance(reply, replies.Hello):
            self.hello = reply
        if reply.id is not None:
            if reply.id not in self.open:
                return None  # the tail of something that this side has already given up
            if reply.terminal:
                del self.open[reply.id]
        elif not isinstance(reply, replies.Hello | replies.Error):
            raise RemoteError(f"the daemon sent a reply of type {reply.__struct_config__.tag!r} without an id")
        return reply

    def _refuse_unless_unknown(self, line: bytes, error: Exception) -> None:
        """An unknown kind of reply is ignored; anything else that cannot be read is the daemon's fault."""
        try:
            plain = _PLAIN.decode(line)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            plain = None
        known = {cls.__struct_config__.tag for cls in replies.Reply.__subclasses__()}
        if isinstance(plain, dict) and isinstance(plain.get("type"), str) and plain["type"] not in known:
            return
        raise RemoteError(f"the daemon sent what is no reply: {error}") from None
