"""The body of one HTTP answer, read from the socket without a layer in between."""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Final

from modeld.download.content import check_type
from modeld.download.http.answers import TRANSPORT_FAULTS, Headers, status_fault, transport_fault
from modeld.download.http.connecting import abort
from modeld.download.http.headers import validator_of
from modeld.download.source import FileInfo
from modelwire.errors import SourceUnavailable

_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)\Z")
_UNSATISFIED = re.compile(r"bytes \*/(\d{1,19})\Z")

GATHER_SECONDS: Final = 0.02
"""Progress is reported less often than this."""

WIDEST: Final = 1 << 30
"""The largest window that TCP can announce."""

_WINDOW: Final[int | None] = getattr(socket, "TCP_WINDOW_CLAMP", None)
"""Linux alone has it. Unlike a smaller buffer it can be taken back."""

_BUFFER_LOCK: Final = 72
_LOCK_RECEIVING: Final = 2
"""SO_BUF_LOCK: without it the kernel grows the buffer by what is read, and the window with it."""

FIRST_READ: Final = io.DEFAULT_BUFFER_SIZE
"""The buffer behind the headers: a read at least this big empties it."""


def range_of(header: str | None) -> tuple[int, int, int | None] | None:
    """(start, end, total) of a Content-Range; None when it is none."""
    found = _RANGE.match((header or "").strip())
    if found is None:
        return None
    start, last = int(found[1]), int(found[2])
    total = None if found[3] == "*" else int(found[3])
    if last < start or (total is not None and last >= total):
        return None
    return start, last + 1, total


def size_of(header: str | None) -> int | None:
    """The size of the file in the Content-Range of a 416."""
    found = _UNSATISFIED.match((header or "").strip())
    return None if found is None else int(found[1])


class HttpBody:
    """See `modeld.download.source.Body`. It calls `done` once, with True when the connection can be used again."""

    def __init__(
        self,
        response: http.client.HTTPResponse,
        sock: socket.socket,
        *,
        shown: str,
        start: int,
        total: int | None,
        partial: bool,
        done: Callable[[bool], None],
        stall_seconds: float,
    ) -> None:
        self.shown = shown
        self.start = start
        self.total = total
        self.partial = partial
        self.validator = validator_of(Headers(response.headers))
        self.content_type = response.headers.get("Content-Type")
        self._response = response
        self._sock = sock
        self._done: Callable[[bool], None] | None = done
        self._stall_seconds = stall_seconds
        self._left = None if response.chunked else response.length
        self.end = None if self._left is None else start + self._left
        # With an answer that closes the connection, http.client has given up the socket: it is read through its file.
        self._read: Callable[[memoryview], int] = response.fp.readinto1 if response.will_close else self._read_first
        self._finished = self._left == 0
        self._aborted = False
        self._fault: Exception | None = None

    def readinto(self, into: memoryview) -> int:
        if self._finished or not into:
            return 0
        left = self._left
        try:
            if left is None:
                got = self._response.readinto(into)
            else:
                got = self._read(into if len(into) <= left else into[:left])
        except TRANSPORT_FAULTS as fault:
            self._broken()
            raise transport_fault(fault, self.shown, "sending", seconds=self._stall_seconds) from None
        if got == 0:
            if left is not None or self._aborted:
                self._broken()
                raise SourceUnavailable(
                    f"{self.shown} broke off with {left or 'some'} bytes of its answer still to come",
                    details={"source": self.shown},
                )
            self._finished = True
        elif left is not None:
            self._left = left - got
            self._finished = self._left == 0
        return got

    def _read_first(self, into: memoryview) -> int:
        """Reads the bytes that came together with the headers; from then on the socket is read without its file."""
        got = self._response.fp.readinto1(into)
        if len(into) >= FIRST_READ:
            self._read = self._read_records if isinstance(self._sock, ssl.SSLSocket) else self._sock.recv_into
        return got

    def _read_records(self, into: memoryview) -> int:
        """TLS returns 16 KiB at a time. It collects what comes quickly, so that the work of each read is done for many.
        A fault after the first bytes is raised by the next read."""
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault
        receive, filled, until = self._sock.recv_into, 0, time.monotonic() + GATHER_SECONDS
        while filled < len(into):
            try:
                got = receive(into[filled:])
            except TRANSPORT_FAULTS as error:
                if filled == 0:
                    raise
                self._fault = error
                break
            filled += got
            if got == 0 or time.monotonic() > until:
                break
        return filled

    def narrow(self, window: int | None) -> None:
        """Limits how much the kernel receives ahead of the reader; None leaves that to the kernel again."""
        if _WINDOW is None:
            return
        with contextlib.suppress(OSError):  # an answer that closes has given up the socket; a kernel before 5.14
            narrowed = self._sock.getsockopt(socket.SOL_SOCKET, _BUFFER_LOCK) & _LOCK_RECEIVING
            if window is not None or narrowed:
                self._sock.setsockopt(socket.SOL_SOCKET, _BUFFER_LOCK, 0 if window is None else _LOCK_RECEIVING)
                self._sock.setsockopt(socket.IPPROTO_TCP, _WINDOW, window or WIDEST)

    def abort(self) -> None:
        self._aborted = True
        abort(self._sock)

    def close(self) -> None:
        done, self._done = self._done, None
        if done is None:
            return
        whole = self._finished and not self._aborted and not self._response.will_close
        self._response.close()
        done(whole)

    def _broken(self) -> None:
        self._aborted = True


class EmptyBody:
    """The body of an empty file, of which no range can be requested."""

    start = 0
    end = 0
    total = 0
    partial = True

    def __init__(self, validator: str | None) -> None:
        self.validator = validator

    def readinto(self, into: memoryview) -> int:  # noqa: ARG002 - there is nothing to put there
        return 0

    def abort(self) -> None:
        pass

    def close(self) -> None:
        pass


def body_of(
    response: http.client.HTTPResponse,
    sock: socket.socket,
    file: FileInfo,
    start: int,
    end: int | None,
    *,
    shown: str,
    done: Callable[[bool], None],
    stall_seconds: float,
) -> HttpBody | EmptyBody:
    """The body behind an answer's head; raises the error that the head means. Only an HttpBody calls `done`."""
    status, headers = response.status, Headers(response.headers)
    if status == 416 and start == 0 and size_of(headers.get("Content-Range")) == 0:
        return EmptyBody(validator_of(headers))
    if status not in (200, 206):
        raise status_fault(status, headers, shown)
    check_type(headers.get("Content-Type"), file, shown)
    _check_encoding(headers, shown)
    offset, total = 0, response.length
    if status == 206:
        offset, total = start, _checked_total(headers, response.length, start, end, shown)
    if response.length is None and not response.chunked and file.size is None and file.digest is None:
        raise SourceUnavailable(
            f"{shown} does not say how long the file is, so a broken connection would look like its end",
            hint="Give the digest with --sha256, or use a source that announces the length.",
            retryable=False,
            details={"source": shown},
        )
    return HttpBody(
        response,
        sock,
        shown=shown,
        start=offset,
        total=total,
        partial=status == 206,
        done=done,
        stall_seconds=stall_seconds,
    )


def _check_encoding(headers: Mapping[str, str], shown: str) -> None:
    encoding = (headers.get("Content-Encoding") or "identity").strip().lower()
    if encoding in ("identity", ""):
        return
    raise SourceUnavailable(
        f"{shown} sent the file in the encoding {encoding[:40]!r}, although the request forbids it",
        hint="Use an address that serves the file as it is: encoded bytes are not those of the file.",
        retryable=False,
        details={"source": shown},
    )


def _checked_total(
    headers: Mapping[str, str], length: int | None, start: int, end: int | None, shown: str
) -> int | None:
    """The size of the whole file. Raises SourceUnavailable when the range is not the one of the request."""
    ranged = range_of(headers.get("Content-Range"))
    if ranged is None or ranged[0] != start or (end is not None and ranged[1] > end):
        said = headers.get("Content-Range") or headers.get("Content-Type") or "without a range"
        raise SourceUnavailable(
            f"{shown} was asked for the bytes {start}-{'' if end is None else end - 1} and sent others ({said[:80]!r})",
            hint="Use another source: the server or a proxy gives wrong ranges.",
            retryable=False,
            details={"source": shown},
        )
    if length is not None and length != ranged[1] - ranged[0]:
        raise SourceUnavailable(
            f"{shown} announces {length} bytes for a range of {ranged[1] - ranged[0]}", details={"source": shown}
        )
    return ranged[2]
