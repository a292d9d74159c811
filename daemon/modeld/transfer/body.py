"""The bytes of one HTTP answer, read from the socket without a layer in between."""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Final

from modeld.transfer.answers import TRANSPORT_FAULTS, Headers, transport_fault
from modeld.transfer.pool import abort
from modelwire.errors import SourceUnavailable

_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)\Z")
_UNSATISFIED = re.compile(r"bytes \*/(\d{1,19})\Z")

GATHER_SECONDS: Final = 0.02
"""Progress is told less often than this."""

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
    """The size that a 416 tells."""
    found = _UNSATISFIED.match((header or "").strip())
    return None if found is None else int(found[1])


def strong_validator(headers: Mapping[str, str]) -> str | None:
    """What If-Range takes: a weak ETag says only that two versions mean the same."""
    etag = (headers.get("ETag") or "").strip()
    if etag and not etag.startswith("W/"):
        return etag
    return (headers.get("Last-Modified") or "").strip() or None


class HttpBody:
    """See `modeld.transfer.source.Body`. `done` is called once, with whether the connection can be used again."""

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
        self.validator = strong_validator(Headers(response.headers))
        self.content_type = response.headers.get("Content-Type")
        self._response = response
        self._sock = sock
        self._done: Callable[[bool], None] | None = done
        self._stall_seconds = stall_seconds
        self._left = None if response.chunked else response.length
        self.end = None if self._left is None else start + self._left
        # Behind an answer that closes, http.client has let go of the socket: it is read through its file.
        self._read: Callable[[memoryview], int] = response.fp.readinto1 if response.will_close else self._read_first
        self._finished = self._left == 0
        self._aborted = False
        self._fault: Exception | None = None

    @property
    def ends_by_closing(self) -> bool:
        """Neither a length nor chunks: an end cannot be told from a connection that broke."""
        return self._left is None and not self._response.chunked

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
        """Takes what came together with the headers; from then on the socket is read without its file."""
        got = self._response.fp.readinto1(into)
        if len(into) >= FIRST_READ:
            self._read = self._read_records if isinstance(self._sock, ssl.SSLSocket) else self._sock.recv_into
        return got

    def _read_records(self, into: memoryview) -> int:
        """TLS gives 16 KiB at a time: taken together here as long as they come quickly, so that what is done for each
        read is done for many. A fault behind bytes that came is raised by the next read."""
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
    """Of a file of no bytes, for which a range cannot be asked."""

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
