"""A small proxy that makes tunnels (CONNECT), wherever it is told that a host is, and remembers who asked."""

from __future__ import annotations

import select
import socket
from collections.abc import Mapping

from rigs.socket_server import SocketServer


class Tunnels(SocketServer):
    """`places` says where a `host:port` really is; anything else is refused."""

    def __init__(self, places: Mapping[str, tuple[str, int]], authorization: str | None = None) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.carried = 0
        """Bytes that came back through tunnels."""

        self._places = dict(places)
        self._authorization = authorization

    def serve(self, client: socket.socket) -> None:
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
                self._carry(client, server)

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        """Until the server has said all."""
        open_ends = [client, server]
        while True:
            ready, _, _ = select.select(open_ends, [], [])
            if server in ready:
                if not (data := server.recv(1 << 16)):
                    return
                client.sendall(data)
                self.carried += len(data)
            if client in ready:
                if data := client.recv(1 << 16):
                    server.sendall(data)
                else:
                    server.shutdown(socket.SHUT_WR)
                    open_ends.remove(client)
