"""A small HTTP server of which each route is a function, and which remembers what it was asked."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from rigs.socket_server import SocketServer


@dataclass(frozen=True)
class Asked:
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]


@dataclass(frozen=True)
class Reply:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


Route = Callable[[Asked], Reply]


class Server:
    """On a free port of loopback. `asked` holds every request in its order."""

    def __init__(self, route: Route, host: str = "127.0.0.1") -> None:
        self.asked: list[Asked] = []
        self.route = route
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def _any(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                asked = Asked(
                    self.command,
                    self.path,
                    {name.title(): value for name, value in self.headers.items()},
                    self.rfile.read(length),
                )
                outer.asked.append(asked)
                reply = outer.route(asked)
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if not any(name.lower() in ("content-length", "connection") for name in reply.headers):
                    self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(reply.body)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _any

            def log_message(self, *args: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a client that breaks off is what some tests are about

        self._host = host
        self._server = Quiet((host, 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.port}"

    def sent_with(self, secret: str) -> list[Asked]:
        return [asked for asked in self.asked if secret in repr(asked.headers) or secret in asked.target]

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class Scripted(SocketServer):
    """For answers that no library would give: each is the text that `script` makes of a path and headers."""

    def __init__(self, script: Callable[[str, dict[str, str]], str]) -> None:
        super().__init__()
        self.script = script
        self.seen: list[tuple[str, dict[str, str]]] = []

    def serve(self, sock: socket.socket) -> None:
        with sock.makefile("rb") as lines:
            while line := lines.readline().decode():
                headers: dict[str, str] = {}
                while (header := lines.readline().decode().strip()) != "":
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                lines.read(int(headers.get("content-length", 0)))
                target = line.split()[1]
                self.seen.append((target, headers))
                answer = self.script(target, headers)
                if not answer:
                    return
                sock.sendall(answer.encode("latin-1"))


@contextlib.contextmanager
def serving(route: Route, host: str = "127.0.0.1") -> Iterator[Server]:
    with Server(route, host) as server:
        yield server


def file_reply(asked: Asked, content: bytes, headers: Mapping[str, str] | None = None) -> Reply:
    """With ranges and a strong validator, as a file server gives it."""
    etag = '"' + hashlib.sha256(content).hexdigest()[:16] + '"'
    known = {"Accept-Ranges": "bytes", "ETag": etag, "Content-Type": "application/octet-stream", **(headers or {})}
    asked_for = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("Range", ""))
    condition = asked.headers.get("If-Range", known["ETag"])
    if asked_for is None or condition != known["ETag"] or known.get("Accept-Ranges") == "none":
        return Reply(200, {**known, "Content-Length": str(len(content))}, content)
    start = int(asked_for[1])
    if start >= len(content):
        return Reply(416, {"Content-Range": f"bytes */{len(content)}"})
    end = min(int(asked_for[2] or len(content) - 1) + 1, len(content))
    told = {**known, "Content-Range": f"bytes {start}-{end - 1}/{len(content)}"}
    return Reply(206, told, content[start:end])


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
