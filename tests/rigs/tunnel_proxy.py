"""A small proxy that makes tunnels (CONNECT), wherever it is told that a host is, and remembers who asked."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping


class Tunnels:
    """`places` says where a `host:port` really is; anything else is refused."""

    def __init__(self, places: Mapping[str, tuple[str, int]], authorization: str | None = None) -> None:
        self.asked: list[str] = []
        self.carried = 0
        """Bytes that came back through tunnels."""

        self._places = dict(places)
        self._authorization = authorization
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=32)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, name="tunnel-accept")]

    def __enter__(self) -> Tunnels:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            sockets = list(self._sockets)
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, sock)

    def _start(self, work: object, *sockets: socket.socket) -> None:
        thread = threading.Thread(target=work, args=sockets, name="tunnel")  # type: ignore[arg-type]
        with self._lock:
            self._sockets.update(sockets)
            self._threads.append(thread)
        thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (more := client.recv(4096)):
                    return
                head += more
            lines = head.decode("latin-1").split("\r\n")
            self.asked.append(lines[0])
            method, target, _ = lines[0].split()
            if self._authorization is not None and f"Proxy-Authorization: {self._authorization}" not in lines:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            elif method != "CONNECT" or target not in self._places:
                client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            else:
                with socket.create_connection(self._places[target], 10) as server:
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    self._start(self._outward, client, server)
                    while data := server.recv(1 << 16):
                        client.sendall(data)
                        self.carried += len(data)
                    with contextlib.suppress(OSError):
                        client.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _outward(client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)
