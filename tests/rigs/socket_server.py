"""What the servers of the tests share that write their answers by hand: connections, their threads and their end."""

from __future__ import annotations

import abc
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self


class SocketServer(abc.ABC):
    """Each connection has a thread of its own. Leaving the server closes the connections and waits for the threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"
        self.sockets: set[socket.socket] = set()
        """Those of the connections that are served."""

        self.accepted = 0

        self._threads: list[threading.Thread] = []

    @abc.abstractmethod
    def serve(self, sock: socket.socket) -> None:
        """Until the client or the server is done. A socket that fails ends it as well."""

    @property
    def connections(self) -> int:
        with self.lock:
            return len(self.sockets)

    def _start(self, work: Callable[..., object], *sockets: socket.socket) -> None:
        """In a thread, which closes the sockets at its end."""
        thread = threading.Thread(target=self._run, args=(work, sockets), name=type(self).__name__)
        with self.lock:
            self.sockets.update(sockets)
            self._threads.append(thread)
        thread.start()

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.closing.set()
        _shut(self._listener)
        self._listener.close()
        with self.lock:
            for sock in self.sockets:
                _shut(sock)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._start(self.serve, sock)

    def _run(self, work: Callable[..., object], sockets: tuple[socket.socket, ...]) -> None:
        try:
            with contextlib.suppress(OSError):
                work(*sockets)
        finally:
            with self.lock:
                self.sockets.difference_update(sockets)
            for sock in sockets:
                sock.close()


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
