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

The client's side is in `modelwire.client`: a program that only asks does not load what reads requests.
"""

from __future__ import annotations

from modelwire import limits, replies
from modelwire.decoding import BadRequest, decode_request
from modelwire.encoding import encode
from modelwire.errors import FrameTooLarge, InvalidRequest, LocalError
from modelwire.framing import LineBuffer, LineTooLong
from modelwire.requests import Request


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
                    hint="Use a new id for each request in flight.",
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
                hint="Send file contents by path, never in a request. The connection is closed: open a new one.",
                details={"max_request": self._cap},
            ),
            fatal=True,
        )
