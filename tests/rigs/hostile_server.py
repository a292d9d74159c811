"""A server that means no good: it answers in raw bytes, slowly, for ever, or with lies."""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Callable, Iterable, Iterator

from rigs.scripted_server import Asked
from rigs.socket_server import SocketServer

Pause = Callable[[], object]
Answer = Callable[[Asked], Iterable[bytes]]

MIB = 1 << 20
PAUSE_SECONDS = 0.01
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"


class Hostile(SocketServer):
    """Each answer is an iterator of pieces. A connection is closed after an answer that ends."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer
        self.asked: list[Asked] = []

    def pause(self) -> None:
        self.closing.wait(PAUSE_SECONDS)

    def serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(ValueError), sock.makefile("rb") as lines:
            method, target, _ = lines.readline().decode().split(" ", 2)
            headers: dict[str, str] = {}
            while (header := lines.readline().decode().strip()) != "":
                name, _, value = header.partition(":")
                headers[name.title()] = value.strip()
            asked = Asked(method, target, headers, lines.read(int(headers.get("Content-Length", 0))))
            self.asked.append(asked)
            for piece in self.answer(asked):
                if self.closing.is_set():
                    return
                sock.sendall(piece)


def polite(body: bytes, headers: str = "", status: str = "200 OK") -> Iterable[bytes]:
    """The head and the body of an honest answer."""
    head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return [head.encode(), body]


# -- without an end, byte by byte


def slowly(pause: Pause, first: bytes, again: bytes) -> Iterator[bytes]:
    yield first
    while True:
        pause()
        yield again


def for_ever(first: bytes, again: bytes) -> Iterator[bytes]:
    yield first
    again *= max(1, 64 * 1024 // len(again))
    while True:
        yield again


SLOW: dict[str, Callable[[Pause], Iterable[bytes]]] = {
    "silence": lambda pause: slowly(pause, b"", b""),
    "a head byte by byte": lambda pause: slowly(pause, b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "interim answers slowly": lambda pause: slowly(pause, b"", b"HTTP/1.1 103 Early Hints\r\nX: y\r\n"),
    "a body byte by byte": lambda pause: slowly(pause, _OK + b"Content-Length: 100000\r\n\r\n[", b" "),
    "chunks byte by byte": lambda pause: slowly(pause, _CHUNKED, b"1\r\n \r\n"),
    "the length of a chunk slowly": lambda pause: slowly(pause, _CHUNKED + b"1;", b"x"),
    "trailers slowly": lambda pause: slowly(pause, _CHUNKED + b"2\r\n{}\r\n0\r\n", b"X: y\r\n"),
    "a redirect slowly": lambda pause: slowly(
        pause, b"HTTP/1.1 302 Found\r\nLocation: /on\r\nContent-Length: 9999\r\n\r\n", b"x"
    ),
    "an error slowly": lambda pause: slowly(pause, b"HTTP/1.1 404 Not Found\r\nContent-Length: 9999\r\n\r\n", b"x"),
}
"""Something comes again and again, so that no timeout of a single read strikes."""

_DEEP = b"[" * (8 * MIB)
_MANY = b"[" + b"[]," * (2 * MIB) + b"[]]"
_numbers = itertools.count()


def _redirect() -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: /{next(_numbers)}\r\nContent-Length: 0\r\n\r\n".encode()


FAST: dict[str, Callable[[], Iterable[bytes]]] = {
    "headers for ever": lambda: for_ever(_OK, b"X: y\r\n"),
    "a header line for ever": lambda: for_ever(_OK + b"X: ", b"x"),
    "100 for ever": lambda: for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "103 for ever": lambda: for_ever(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "a body for ever": lambda: for_ever(_OK + b"Connection: close\r\n\r\n[", b"[],"),
    "a huge body": lambda: for_ever(_OK + b"Content-Length: 999999999999\r\n\r\n[", b"{},"),
    "an error for ever": lambda: for_ever(b"HTTP/1.1 500 No\r\nConnection: close\r\n\r\n", b"no"),
    "tiny chunks for ever": lambda: for_ever(_CHUNKED, b"2\r\n[[\r\n"),
    "a huge chunk": lambda: for_ever(_CHUNKED + b"FFFFFFFFFFF\r\n", b"[],"),
    "a chunk of less than nothing": lambda: for_ever(_CHUNKED + b"-1\r\n", b"[],"),
    "extensions of a chunk for ever": lambda: for_ever(_CHUNKED + b"1;", b"x"),
    "trailers for ever": lambda: for_ever(_CHUNKED + b"2\r\n{}\r\n0\r\n", b"X: y\r\n"),
    "deep": lambda: polite(_DEEP),
    "deep enough for a decoder": lambda: polite(_DEEP[:100_000]),
    "many values": lambda: polite(_MANY),
    "half a body": lambda: [_OK + b"Content-Length: 1000\r\n\r\n{"],
    "no HTTP": lambda: [b"\0" * 1000],
    "redirects for ever": lambda: [_redirect()],
    "another range": lambda: [
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-8/10\r\nContent-Length: 4\r\n\r\nlies"
    ],
}
