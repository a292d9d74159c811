"""Serves one file by range, each connection no faster than its limit: `python limited_server.py FILE BYTES_A_SECOND`.

nginx counts its limit anew for each request and gives the first second of it at once, so a client that asks for
8 MiB at a time would never meet it. This one counts for the connection, as a shaper on the way does. Prints its port.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import threading
import time

SLICE = 256 * 1024
_RANGE = re.compile(rb"\nrange: *bytes=(\d+)-(\d*)", re.IGNORECASE)


def serve(sock: socket.socket, file: int, size: int, rate: int) -> None:
    due = 0.0
    with contextlib.suppress(OSError), sock:
        while True:
            request = b""
            while b"\r\n\r\n" not in request:
                more = sock.recv(65536)
                if not more:
                    return
                request += more
            found = _RANGE.search(request)
            start, end = (int(found[1]), min(size, int(found[2] or size - 1) + 1)) if found else (0, size)
            status = f"206 Partial Content\r\nContent-Range: bytes {start}-{end - 1}/{size}" if found else "200 OK"
            sock.sendall(f'HTTP/1.1 {status}\r\nETag: "one"\r\nContent-Length: {end - start}\r\n\r\n'.encode())
            if request.startswith(b"HEAD"):
                continue
            while start < end:
                now = time.monotonic()
                due = max(due, now - SLICE / rate)
                if due > now:
                    time.sleep(due - now)
                sent = os.sendfile(sock.fileno(), file, start, min(SLICE, end - start))
                if sent == 0:
                    return
                start += sent
                due += sent / rate


def main() -> None:
    path, rate = sys.argv[1], int(sys.argv[2])
    file = os.open(path, os.O_RDONLY)
    size = os.fstat(file).st_size
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(listener.getsockname()[1], flush=True)
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 512 * 1024)
        threading.Thread(target=serve, args=(sock, file, size, rate), daemon=True).start()


if __name__ == "__main__":
    main()
