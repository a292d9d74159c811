"""Serves a file of zeros at every path, as fast as it is taken, and tells how many bytes it has given away so far.

A process of its own: what it counts with must not wait for those whom it measures. `python metered_server.py SIZE`
prints its port; `GET /sent` answers the count.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from urllib.request import urlopen

PIECE = 16 * 1024
BUFFER = 64 * 1024
"""What the kernel may hold for one connection: little beside what goes by in the time that is measured."""

_RANGE = re.compile(rb"\nrange: *bytes=(\d+)-(\d*)", re.IGNORECASE)


class Metered:
    """The same, seen from the test."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def sent(self) -> int:
        with urlopen(f"{self.url}/sent", timeout=30) as answer:
            return int(answer.read())


@contextlib.contextmanager
def metered(size: int) -> Iterator[Metered]:
    server = subprocess.Popen([sys.executable, __file__, str(size)], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        yield Metered(int(server.stdout.readline()))
    finally:
        server.kill()
        server.communicate()


class _Serving:
    def __init__(self, size: int) -> None:
        self._size = size
        self._sent = 0
        self._lock = threading.Lock()

    def serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            while True:
                request = b""
                while b"\r\n\r\n" not in request:
                    more = sock.recv(65536)
                    if not more:
                        return
                    request += more
                if request.startswith(b"GET /sent "):
                    told = str(self._sent).encode()
                    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(told), told))
                else:
                    self._give(sock, request)

    def _give(self, sock: socket.socket, request: bytes) -> None:
        size, found = self._size, _RANGE.search(request)
        start, end = (int(found[1]), min(size, int(found[2] or size - 1) + 1)) if found else (0, size)
        status = f"206 Partial Content\r\nContent-Range: bytes {start}-{end - 1}/{size}" if found else "200 OK"
        sock.sendall(f'HTTP/1.1 {status}\r\nETag: "one"\r\nContent-Length: {end - start}\r\n\r\n'.encode())
        piece = memoryview(bytes(PIECE))
        while start < end and not request.startswith(b"HEAD"):
            given = sock.send(piece[: end - start])
            start += given
            with self._lock:
                self._sent += given


def _main() -> None:
    serving = _Serving(int(sys.argv[1]))
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(listener.getsockname()[1], flush=True)
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        threading.Thread(target=serving.serve, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    _main()
