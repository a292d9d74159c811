"""The protocol without a socket: bytes in, typed messages out; typed messages in, bytes out.

The rules, for both roles:

- The server speaks first: one `hello`.
- A request opens its id. Each reply with that id is allowed until the terminal one (`result`, `error`): it closes the
  id.
- A second live use of an id is refused with an error that has no id: it must not end the first request.
- An `error` without id speaks of the connection. After a fatal one (over the cap, not JSON) the server closes: nothing
  that stands behind it is read, there is no resynchronising.
- Clients ignore unknown fields and unknown kinds of reply.

              open id    reply      terminal   close
  server      request -> accepted*, progress*, event*, lagged* -> result | error
  client      the same table, read from the other side
"""

from __future__ import annotations

from typing import Any

import msgspec

from modelwire import limits, replies
from modelwire.decoding import BadRequest, decode_request, valid_id
from modelwire.errors import FrameTooLarge, InvalidRequest, LocalError, RemoteError
from modelwire.framing import LineBuffer, LineTooLong
from modelwire.requests import Request

_ENCODER = msgspec.json.Encoder()
_REPLY: msgspec.json.Decoder[replies.Received] = msgspec.json.Decoder(replies.Received)
_PLAIN: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def encode(message: Request | replies.Reply) -> bytes:
    """One frame. JSON never holds a raw newline, so the newline ends it."""
    frame = bytearray()
    try:
        _ENCODER.encode_into(message, frame)
    except UnicodeEncodeError:
        if isinstance(message, Request):
            raise LocalError(
                f"{message.__struct_config__.tag}: the request holds text that is not UTF-8",
                hint="a file whose path is not UTF-8 needs another name",
            ) from None
        frame[:] = _ENCODER.encode(_readable(msgspec.to_builtins(message)))
    frame += b"\n"
    return bytes(frame)


def _readable(value: Any) -> Any:
    """With an escape in place of what is not UTF-8. A path from the disk or another tool's manifest may hold such text,
    and a reply that says so must still leave."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_readable(key): _readable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(each) for each in value]
    return value


def splice(kind: bytes, id_json: bytes, line: bytes) -> bytes:
    """A frame made of a JSON object's bytes that were encoded once for all watchers."""
    return b'{"type":"' + kind + b'","id":' + id_json + b"," + line[1:] + b"\n"


class ServerConnection:
    """The server's side of one connection."""

    __slots__ = ("_cap", "_ended", "_lines", "open")

    def __init__(self, *, max_request: int = limits.MAX_REQUEST) -> None:
        self._cap = max_request
        self._lines = LineBuffer(max_request)
        self._ended = False
        self.open: dict[str, Request] = {}

    def feed(self, data: bytes) -> None:
        if not self._ended:
            self._lines.feed(data)

    @property
    def partial(self) -> bool:
        """Whether bytes are held that are not yet a whole request."""
        return len(self._lines) > 0

    def next_request(self) -> Request | None:
        """The next request, now open; None when more bytes are needed. Raises `BadRequest` for the reply to send."""
        while True:
            try:
                line = self._lines.take()
            except LineTooLong:
                raise self._fatal(self._too_large()) from None
            if line is None:
                return None
            if line and not line.isspace():
                return self._open(line)

    def finish(self) -> Request | None:
        """The peer has ended its side and all whole lines are taken: an unterminated last line counts."""
        try:
            rest = self._lines.rest()
        except LineTooLong:
            raise self._fatal(self._too_large()) from None
        return self._open(rest) if rest and not rest.isspace() else None

    def close(self, request_id: str) -> None:
        """The terminal reply of this id is on its way: the id may be used again."""
        if self.open.pop(request_id, None) is None:
            raise LocalError(f"the request {request_id!r} is not open: it has had its terminal reply, or never was")

    def reply(self, message: replies.Reply) -> bytes:
        """The frame of a reply, after checking it against the table. What raises has sent and closed nothing: the
        request can still be given another terminal reply."""
        if message.id is not None and message.id not in self.open:
            raise LocalError(f"a reply to {message.id!r}: it is not open, it has had its terminal reply or never was")
        frame = encode(message)
        if len(frame) - 1 > limits.MAX_REPLY:
            raise LocalError(f"the reply has {len(frame) - 1} bytes, the protocol allows {limits.MAX_REPLY}")
        if message.id is not None and message.terminal:
            self.close(message.id)
        return frame

    def _open(self, line: bytes) -> Request:
        try:
            request = decode_request(line)
        except BadRequest as bad:
            if bad.fatal:
                self._fatal(bad)
            elif bad.id in self.open:
                bad.id = None  # its error would be taken for the end of the live request with that id
            raise
        if request.id in self.open:
            raise BadRequest(
                InvalidRequest(
                    f"$.id: {request.id!r} is still in use by a request without its terminal reply",
                    hint="use a new id for each request in flight",
                    details={"id": request.id},
                )
            )
        self.open[request.id] = request
        return request

    def _fatal(self, bad: BadRequest) -> BadRequest:
        self._ended = True
        self._lines = LineBuffer(self._cap)
        return bad

    def _too_large(self) -> BadRequest:
        return BadRequest(
            FrameTooLarge(
                f"a request is longer than {self._cap} bytes",
                hint="the connection is closed; send file contents by path, never in a request",
                details={"max_request": self._cap},
            ),
            fatal=True,
        )


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
                line.decode()  # a result's value stays raw here: whoever decodes it relies on its being UTF-8
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
