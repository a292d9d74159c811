"""http.client's response, made as strict as HTTP where the library is not: about lengths, and about what has no end."""

from __future__ import annotations

import http.client
import io
import math
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from modeld.download.cancel_scope import CancelScope, Overdue

MOST_INTERIM: Final = 32
"""Early hints come once or twice; a server that sends more than this never sends the answer."""

MAX_HEAD: Final = 256 * 1024
"""Of all lines of a head, interim answers included. Servers allow some 16 KiB; the library would read 6 MB."""

MAX_TRAILERS: Final = 64 * 1024
MAX_CHUNK_LINE: Final = 4 * 1024
"""A length in hexadecimal, and extensions, which are ignored."""

T = TypeVar("T")

_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?\r?\n", re.DOTALL)


class BadFraming(http.client.HTTPException):
    """The length of the answer is not defined. The text is the server's header, cut."""


class Endless(http.client.HTTPException):
    """More lines than any answer has. The text names them."""


class _Timed(io.RawIOBase):
    """The bytes of a socket: those of a head or of a small document until the end of the thread's scope, the lines
    between the bytes of a file within the timeout of the socket, and the bytes of a file without a total limit."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        scope = CancelScope.current()
        self._raw = raw
        self._sock = sock
        self._timeout = sock.gettimeout()
        self._until, self._limit = scope.until, scope.limit
        self._block_until = self._block_seconds = math.inf

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def readinto(self, into: Any) -> int | None:
        until = min(self._until, self._block_until)
        if until == math.inf:
            return self._raw.readinto(into)
        left = until - time.monotonic()
        if left > 0:
            self._sock.settimeout(left if self._timeout is None else min(left, self._timeout))
            try:
                return self._raw.readinto(into)
            except TimeoutError:
                if time.monotonic() < until:
                    raise
            finally:
                if self._until == math.inf:
                    self._sock.settimeout(self._timeout)
        raise Overdue(self._limit if self._until <= self._block_until else self._block_seconds)

    @contextmanager
    def within(self, seconds: float | None = None) -> Iterator[None]:
        """A total time for what the block reads: the timeout of the socket, or less."""
        longest = math.inf if self._timeout is None else self._timeout
        self._block_seconds = longest if seconds is None else min(seconds, longest)
        self._block_until = time.monotonic() + self._block_seconds
        try:
            yield
        finally:
            self._block_until = math.inf

    def without_limit(self) -> None:
        self._until = math.inf
        self._sock.settimeout(self._timeout)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Lines(io.BufferedReader):
    """Reads lines as long as they are allowed. A read of bytes has no layer in between."""

    allowed = MAX_HEAD
    what = "a head"
    in_head = False
    """Between the first line of a head and the empty one. For the library, the end of the connection would do."""

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        self.allowed -= len(line)
        if self.allowed < 0:
            raise Endless(self.what)
        if self.in_head and not line.endswith(b"\n") and len(line) != size:
            raise http.client.IncompleteRead(b"")
        return line


class Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._timed = _Timed(self.fp.detach(), sock)
        self._lines = self.fp = _Lines(self._timed)
        self._interim = 0

    def without_limit(self) -> None:
        """What follows the head is a file: only a silent server is given up."""
        self._timed.without_limit()

    def drain(self, seconds: float) -> None:
        """Reads the rest, for as long as that."""
        with self._timed.within(seconds):
            self.read()

    def begin(self) -> None:
        super().begin()
        self._lines.in_head = False
        coding = ", ".join(self.headers.get_all("Transfer-Encoding", [])).strip().lower()
        if coding not in ("", "chunked", "identity"):
            raise BadFraming(f"Transfer-Encoding: {coding}"[:80])
        if self.chunked:
            return
        # The library accepts `+5` and `1_000`, takes the first of several numbers, and ignores anything else: then the
        # end of a broken connection would be the end of the file.
        lengths = {each.strip() for each in ",".join(self.headers.get_all("Content-Length", [])).split(",")} - {""}
        if len(lengths) > 1 or not all(_LENGTH.fullmatch(each) for each in lengths):
            raise BadFraming(f"Content-Length: {', '.join(sorted(lengths))}"[:80])
        if lengths and self.length is None:
            self.length = int(lengths.pop())

    def _read_status(self) -> tuple[str, int, str]:
        """The final status, or 100. The library skips 100 alone, and any number of them, but any interim answer may
        come (RFC 9110, 15.2)."""
        while self._interim <= MOST_INTERIM:
            status: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            self._interim += 1
            self._lines.in_head = True
            if not 101 < status[1] < 200:
                return status
            http.client.parse_headers(self.fp)
        raise http.client.BadStatusLine("interim answers without end")

    def _read_next_chunk_size(self) -> int:
        """The library accepts `-1`, which reads to the end of the connection, `+5` and `1_0`."""
        line = self._short_lines(MAX_CHUNK_LINE, "the length of a chunk", lambda: self.fp.readline(MAX_CHUNK_LINE + 1))
        if not line.endswith(b"\n"):
            raise http.client.IncompleteRead(b"")
        found = _CHUNK.fullmatch(line)
        if found is None:
            raise BadFraming(f"a chunk of the length {line[:40]!r}")
        return int(found[1], 16)

    def _read_and_discard_trailer(self) -> None:
        self._short_lines(MAX_TRAILERS, "trailers", super()._read_and_discard_trailer)  # type: ignore[misc]

    def _short_lines(self, size: int, what: str, read: Callable[[], T]) -> T:
        self._lines.allowed, self._lines.what = size, what
        with self._timed.within():
            return read()
