"""A small HTTP server that breaks rules on request, and counts each byte that it gave.

Not the library's server: what is wrong here (lengths, ranges, framing) is exactly what a library would not allow.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from rigs.socket_server import SocketServer

Kind = Literal[
    "drop",
    "short",
    "excess",
    "announces_more",
    "stall",
    "changed_etag",
    "changed_content",
    "ignored_range",
    "shifted_range",
    "wrong_bytes",
    "status",
    "page",
    "pointer",
    "encoding",
    "redirect_loop",
    "no_length",
    "chunked",
    "drip",
]
_RANGE = re.compile(r"bytes=(\d+)-(\d*)\Z")
PIECE = 64 * 1024

LONGEST_WAIT_SECONDS = 0.3
"""Less than the patience of the tests' clients: who loses it asks again."""


@dataclass
class Fault:
    """Strikes `times` times once the server has sent `at` of the file, counted over all connections.

    A request for what lies behind `at` is answered when the bytes before it were sent: when many connections ask for
    the last ranges at the same moment, no other would come for the fault to strike.
    """

    kind: Kind
    at: float = 0.0
    times: int = 1
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    struck: int = 0


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]


class Chaos(SocketServer):
    """`content` is served at every path. Attributes may be changed while it runs."""

    def __init__(self, content: bytes, *faults: Fault, rate: int | None = None, ranges: bool = True) -> None:
        super().__init__()
        self.content = content
        self.faults = list(faults)
        self.rate = rate
        """Bytes a second for each connection."""

        self.ranges = ranges
        self.etag: str | None = '"one"'
        self.modified: str | None = None
        self.date: str | None = None
        """Of Last-Modified and Date."""

        self.conditions = True
        """False for a server that does not know If-Range."""

        self.requests: list[Request] = []
        self.sent = 0
        self.counts: dict[int, int] = {}
        """How often each piece of 64 KiB was sent, by its number."""

    def sent_twice(self) -> int:
        """Bytes that were sent more often than once."""
        with self.lock:
            return sum((count - PIECE) for count in self.counts.values() if count > PIECE)

    def serve(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 * 1024)
        with sock.makefile("rb") as lines:
            while not self.closing.is_set() and (request := _read_request(lines)) is not None:
                with self.lock:
                    self.requests.append(request)
                if not self._answer(sock, request):
                    return

    def _wait_for_those_before(self, asked: int) -> None:
        """Until the fault that this request is to meet has its moment."""

        def early() -> bool:
            with self.lock:
                moments = (fault.at * len(self.content) for fault in self.faults if fault.struck < fault.times)
                return any(self.sent < moment <= asked for moment in moments)

        deadline = time.monotonic() + LONGEST_WAIT_SECONDS
        while early() and time.monotonic() < deadline and not self.closing.wait(0.002):
            pass

    def _strike(self, *kinds: Kind) -> Fault | None:
        """The fault of one of these kinds whose moment has come."""
        with self.lock:
            for fault in self.faults:
                if fault.kind in kinds and fault.struck < fault.times and self.sent >= fault.at * len(self.content):
                    fault.struck += 1
                    return fault
        return None

    def _answer(self, sock: socket.socket, request: Request) -> bool:
        """Whether the connection stays."""
        if found := _RANGE.match(request.headers.get("range", "")):
            self._wait_for_those_before(int(found[1]))
        if self._strike("changed_etag"):
            self.etag = '"two"'
        if self._strike("changed_content"):
            self.etag = '"three"'
            self.content = bytes(byte ^ 0x55 for byte in self.content[:PIECE]) + self.content[PIECE:]
        if self._strike("redirect_loop"):
            head = f"HTTP/1.1 302 Found\r\nLocation: {self.url}{request.path}\r\nContent-Length: 0\r\n\r\n"
            sock.sendall(head.encode())
            return True
        if fault := self._strike("status"):
            extra = "".join(f"{name}: {value}\r\n" for name, value in fault.headers.items())
            sock.sendall(f"HTTP/1.1 {fault.status} No\r\n{extra}Content-Length: 2\r\n\r\nno".encode())
            return True
        if self._strike("page"):
            page = b"<!DOCTYPE html><html><title>Log in</title></html>"
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(page) + page)
            return True
        if self._strike("pointer"):
            text = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 12345\n"
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
            return True
        return self._send_file(sock, request)

    def _send_file(self, sock: socket.socket, request: Request) -> bool:
        with self.lock:  # as of an open file: another version that comes meanwhile changes nothing in this answer
            content, etag, modified, date = self.content, self.etag, self.modified, self.date
        size = len(content)
        start, end, status = 0, size, 200
        found = _RANGE.match(request.headers.get("range", ""))
        condition = request.headers.get("if-range")
        if (
            found
            and self.ranges
            and (not self.conditions or condition in (None, etag, modified))
            and not self._strike("ignored_range")
        ):
            start, end, status = int(found[1]), min(size, int(found[2] or size - 1) + 1), 206
            if start >= size:
                sock.sendall(b"HTTP/1.1 416 No\r\nContent-Range: bytes */%d\r\nContent-Length: 0\r\n\r\n" % size)
                return True
        head = [f"HTTP/1.1 {status} OK", "Content-Type: application/octet-stream"]
        told = {"ETag": etag, "Last-Modified": modified, "Date": date}
        head += [f"{name}: {value}" for name, value in told.items() if value is not None]
        if status == 206:
            moved = 1 if self._strike("shifted_range") else 0
            head.append(f"Content-Range: bytes {start + moved}-{end - 1 + moved}/{size + moved}")
        length = end - start
        chunked = bool(self._strike("chunked"))
        closes = not chunked and bool(self._strike("no_length"))
        if self._strike("encoding"):
            head.append("Content-Encoding: gzip")
        if self._strike("announces_more"):
            length += 4096
        if chunked:
            head.append("Transfer-Encoding: chunked")
        else:
            head.append("Connection: close" if closes else f"Content-Length: {length}")
        sock.sendall(("\r\n".join(head) + "\r\n\r\n").encode())
        if request.method == "HEAD":
            return True
        whole = self._send_bytes(sock, content, start, end, chunked=chunked)
        if whole and chunked:
            sock.sendall(b"0\r\n\r\n")
        if whole and self._strike("excess"):
            sock.sendall(b"x" * 4096)
        return whole and length == end - start and not closes

    def _send_bytes(self, sock: socket.socket, content: bytes, start: int, end: int, *, chunked: bool) -> bool:
        began, position = time.monotonic(), start
        while position < end:
            piece = content[position : min(end, (position // PIECE + 1) * PIECE)]
            if fault := self._strike("drop", "short", "stall", "wrong_bytes", "drip"):
                if fault.kind == "drop":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return False
                if fault.kind == "short":
                    return False
                if fault.kind == "stall":
                    self.closing.wait(30)
                    return False
                if fault.kind == "wrong_bytes":
                    piece = bytes(byte ^ 0xFF for byte in piece)
                if fault.kind == "drip":
                    sock.sendall(piece[:7])
                    return False
            sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            with self.lock:
                self.sent += len(piece)
                number = position // PIECE
                self.counts[number] = self.counts.get(number, 0) + len(piece)
            position += len(piece)
            if self.rate is not None:
                ahead = (position - start) / self.rate - (time.monotonic() - began)
                if ahead > 0 and self.closing.wait(ahead):
                    return False
        return True


def _read_request(lines: object) -> Request | None:
    readline = lines.readline  # type: ignore[attr-defined]
    first = readline().decode("latin-1").split()
    if len(first) < 2:
        return None
    headers: dict[str, str] = {}
    while (line := readline().decode("latin-1").strip()) != "":
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return Request(first[0], first[1], headers)


@contextlib.contextmanager
def unused_port() -> Iterator[int]:
    """Nobody listens there as long as the block runs."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]
