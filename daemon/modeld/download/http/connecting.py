"""Makes connections that the scope of the thread can end, from before their first packet on."""

from __future__ import annotations

import contextlib
import errno
import http.client
import ipaddress
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

from modeld.download.cancel_scope import CancelScope
from modeld.download.http.reach import Found, Reach
from modeld.platform import polling
from modelwire.errors import SourceUnavailable

MOST_LOOK_UPS: Final = 16
"""Names that are looked up at once. A resolver without an answer gives up after some 30 s, and nothing ends it before;
until then each look-up takes a thread."""


class Connector:
    """Thread-safe. Without `reach`, it connects anywhere."""

    def __init__(self, reach: Reach | None) -> None:
        self._reach = reach
        self._lock = threading.Lock()
        self._running: dict[tuple[str, int], Future[list[Found]]] = {}

    def connect(self, address: tuple[str, int], timeout: float, *_: object) -> socket.socket:
        """As `socket.create_connection`. Raises PermissionDenied when no address of the host may be connected to, and
        Stopped. `hold` of the socket was called."""
        host, port = address
        found: Sequence[Found] = self._look_up(host, port, timeout)
        return _connected(found if self._reach is None else self._reach.allowed(host, found), timeout)

    def _look_up(self, host: str, port: int, timeout: float) -> list[Found]:
        if _is_address(host):
            return _addresses(host, port)
        done, scope = threading.Event(), CancelScope.current()
        with scope.woken_by(done.set):
            running = self._begun(host, port)
            running.add_done_callback(lambda _: done.set())
            done.wait(scope.wait(timeout))
            scope.wait()
        if not running.done():
            raise socket.gaierror(socket.EAI_AGAIN, f"no name server answers within {timeout:g} s")
        return running.result()

    def _begun(self, host: str, port: int) -> Future[list[Found]]:
        """The look-up of this name that runs, or a new one."""
        with self._lock:
            running = self._running.get((host, port))
            if running is not None:
                return running
            if len(self._running) >= MOST_LOOK_UPS:
                raise SourceUnavailable(
                    f"{host} is not looked up: {MOST_LOOK_UPS} look-ups of other names have no answer yet",
                    hint="Check the name servers of this machine.",
                )
            running = self._running[host, port] = Future()
            thread = threading.Thread(
                target=self._run, args=(host, port, running), name=f"look up {host[:40]}", daemon=True
            )
            try:
                thread.start()
            except BaseException:
                del self._running[host, port]
                raise
            return running

    def _run(self, host: str, port: int, running: Future[list[Found]]) -> None:
        try:
            found = _addresses(host, port)
        except BaseException as fault:  # noqa: BLE001 - the caller raises it
            self._forget(host, port)
            running.set_exception(fault)
        else:
            self._forget(host, port)
            running.set_result(found)

    def _forget(self, host: str, port: int) -> None:
        with self._lock:
            del self._running[host, port]


class TlsConnection(http.client.HTTPSConnection):
    """http.client runs the handshake in a constructor, where a cancelled scope cannot abort it. Here the scope holds
    the socket before the handshake begins."""

    def connect(self) -> None:
        with self._closing_responses():
            http.client.HTTPConnection.connect(self)
        host: str = self._tunnel_host or self.host  # type: ignore[attr-defined]
        scope = CancelScope.current()
        self.sock = self._context.wrap_socket(self.sock, server_hostname=host, do_handshake_on_connect=False)  # type: ignore[attr-defined]
        hold(self.sock)
        self.sock.settimeout(scope.wait(self.timeout))
        self.sock.do_handshake()

    @contextlib.contextmanager
    def _closing_responses(self) -> Iterator[None]:
        """http.client leaves the proxy's answer open, and with it the connection, when the proxy makes no tunnel."""
        made: list[http.client.HTTPResponse] = []
        response_class = self.response_class

        def make(*arguments: Any, **options: Any) -> http.client.HTTPResponse:
            made.append(response_class(*arguments, **options))
            return made[-1]

        self.response_class = make  # type: ignore[assignment]
        try:
            yield
        finally:
            self.response_class = response_class
            for response in made:
                response.close()


def hold(sock: socket.socket) -> None:
    """From now on the scope of this thread aborts the socket when it is cancelled. Raises Stopped."""
    CancelScope.current().register(sock, partial(abort, sock))


def abort(sock: socket.socket) -> None:
    """Wakes a thread that waits for bytes. The method is that of the plain socket: TLS state belongs to that thread."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _addresses(host: str, port: int) -> list[Found]:
    return [*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _connected(found: Sequence[Found], timeout: float) -> socket.socket:
    """The first of these addresses that answers."""
    failed: OSError | None = None
    for family, kind, protocol, _, place in found:
        sock = socket.socket(family, kind, protocol)
        try:
            _connect(sock, place, timeout)
        except OSError as fault:
            sock.close()
            failed = fault
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failed or OSError(errno.EADDRNOTAVAIL, "the name has no address")


def _connect(sock: socket.socket, place: object, timeout: float) -> None:
    """Begins before it is registered: an abort of a socket that does nothing yet has no effect."""
    scope = CancelScope.current()
    sock.setblocking(False)
    try:
        sock.connect(place)  # type: ignore[arg-type]
    except BlockingIOError:
        hold(sock)
        if not polling.until_writable(sock.fileno(), scope.wait(timeout)):
            scope.wait()
            raise TimeoutError("timed out") from None
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code)) from None
    else:
        hold(sock)
    sock.settimeout(scope.wait(timeout))
