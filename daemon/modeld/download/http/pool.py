"""Connections that stay open between requests: one TLS handshake for many segments."""

from __future__ import annotations

import http.client
import os
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from modeld.download.cancel_scope import CancelScope
from modeld.download.http.answers import TRANSPORT_FAULTS, transport_fault
from modeld.download.http.connecting import Connector, TlsConnection, hold
from modeld.download.http.proxies import Proxies, Proxy
from modeld.download.http.reach import Reach
from modeld.download.http.response import Response
from modeld.download.urls import Url
from modeld.platform import polling
from modelwire.errors import SourceUnavailable

IDLE_SECONDS: Final = 50.0
"""Servers close after 60 to 75 s; a request on a connection that is just being closed costs a round trip."""

IDLE_PER_ORIGIN: Final = 16
IDLE_TOTAL: Final = 48


def tls_context(environ: Mapping[str, str]) -> ssl.SSLContext:
    """Trusts the authorities of the system, or those of SSL_CERT_FILE and SSL_CERT_DIR."""
    file, directory = environ.get("SSL_CERT_FILE") or None, environ.get("SSL_CERT_DIR") or None
    try:
        if file and not os.path.isfile(file):
            raise FileNotFoundError(f"{file} is not a file")
        context = ssl.create_default_context(cafile=file, capath=directory)
    except (OSError, ssl.SSLError) as fault:
        raise SourceUnavailable(
            f"SSL_CERT_FILE or SSL_CERT_DIR of the daemon's environment cannot be used: {fault}",
            hint="Correct the variable, or unset it to use the system's authorities.",
            retryable=False,
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


class Pool:
    """Thread-safe. A connection is either idle here or owned by one request."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        connect_seconds: float,
        stall_seconds: float,
        reach: Reach | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without `reach`, connections go anywhere."""
        self._reach = reach
        self._connector = Connector(reach)
        self._to_proxies = Connector(None)
        self._environ = dict(environ)
        self._proxies = Proxies(environ)
        self._connect_seconds = connect_seconds
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None
        self._idle: dict[str, list[tuple[http.client.HTTPConnection, float]]] = {}
        self._has_closed = threading.Condition(self._lock)
        self._reaper: threading.Thread | None = None
        self._closed = False

    def take(self, url: Url, *, fresh: bool = False) -> tuple[http.client.HTTPConnection, bool]:
        """A connection, and whether it was used before: then it may be closed by now. The scope of the thread holds it
        until it is given back."""
        while not fresh:
            with self._lock:
                idle = self._idle.get(url.origin)
                if not idle:
                    break
                connection, since = idle.pop()
            if self._clock() - since < IDLE_SECONDS and _is_quiet(connection) and connection.sock is not None:
                connection.sock.settimeout(self._stall_seconds)
                try:
                    hold(connection.sock)
                except BaseException:
                    connection.close()
                    raise
                return connection, True
            connection.close()
        return self._connect(url), False

    def give_back(self, url: Url, connection: http.client.HTTPConnection) -> None:
        CancelScope.current().release(connection.sock)
        with self._lock:
            idle = self._idle.setdefault(url.origin, [])
            total = sum(len(others) for others in self._idle.values())
            if not self._closed and len(idle) < IDLE_PER_ORIGIN and total < IDLE_TOTAL and connection.sock:
                idle.append((connection, self._clock()))
                if self._reaper is None:
                    self._reaper = threading.Thread(target=self._reap, name="modeld-idle-connections", daemon=True)
                    self._reaper.start()
                return
        connection.close()

    def _reap(self) -> None:
        """Closes what has been idle for IDLE_SECONDS, and ends with the last idle connection."""
        with self._lock:
            while any(self._idle.values()):
                now = self._clock()
                for origin, idle in list(self._idle.items()):
                    while idle and now - idle[0][1] >= IDLE_SECONDS:
                        idle.pop(0)[0].close()
                    if not idle:
                        del self._idle[origin]
                oldest = min((idle[0][1] for idle in self._idle.values()), default=now)
                if self._idle:
                    self._has_closed.wait(max(0.1, oldest + IDLE_SECONDS - now))
            self._reaper = None

    def close(self) -> None:
        self._closed = True
        with self._lock:
            connections = [connection for idle in self._idle.values() for connection, _ in idle]
            self._idle.clear()
            self._has_closed.notify_all()
        for connection in connections:
            connection.close()

    def target(self, url: Url) -> str:
        """The target in the request line."""
        return url.full if url.scheme == "http" and self._proxies.of(url) is not None else url.target

    def proxy_headers(self, url: Url) -> dict[str, str]:
        proxy = self._proxies.of(url)
        if url.scheme == "http" and proxy is not None and proxy.authorization:
            return {"Proxy-Authorization": proxy.authorization}
        return {}

    def _connect(self, url: Url) -> http.client.HTTPConnection:
        proxy = self._proxies.of(url)
        if proxy is not None and self._reach is not None:
            self._reach.check(url.host)
        connection = self._make(url, proxy)
        connection.response_class = Response
        # http.client calls this attribute to connect; it has no argument for it.
        connector = self._connector if proxy is None else self._to_proxies
        connection._create_connection = connector.connect  # type: ignore[attr-defined]
        where = url.origin if proxy is None else f"{url.origin} (through the proxy {proxy.shown})"
        scope = CancelScope.current()
        try:
            connection.timeout = scope.wait(self._connect_seconds)
            connection.connect()
            assert connection.sock is not None
            connection.sock.settimeout(self._stall_seconds)
        except TRANSPORT_FAULTS as error:
            connection.close()
            fault = scope.cause(error)
            if proxy is not None and isinstance(fault, OSError) and "Tunnel connection failed" in str(fault):
                raise SourceUnavailable(
                    f"the proxy {proxy.shown} makes no connection to {url.origin}: {fault}",
                    hint="Check https_proxy and no_proxy, and what the proxy allows.",
                ) from None
            raise transport_fault(fault, where, "connecting", seconds=self._connect_seconds) from None
        except BaseException:
            connection.close()
            raise
        return connection

    def _make(self, url: Url, proxy: Proxy | None) -> http.client.HTTPConnection:
        seconds = self._connect_seconds
        if proxy is not None and proxy.tls:
            raise SourceUnavailable(
                f"the proxy {proxy.shown} is given as https, which is not supported for proxies",
                hint="Give the proxy as http://host:port; the connection through it is encrypted all the same.",
                retryable=False,
            )
        if url.scheme == "http":
            host, port = (url.host, url.port) if proxy is None else (proxy.host, proxy.port)
            return http.client.HTTPConnection(host, port, timeout=seconds)
        with self._lock:
            if self._tls is None:
                self._tls = tls_context(self._environ)
        if proxy is None:
            return TlsConnection(url.host, url.port, timeout=seconds, context=self._tls)
        connection = TlsConnection(proxy.host, proxy.port, timeout=seconds, context=self._tls)
        headers = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
        connection.set_tunnel(url.host, url.port, headers)
        return connection


def _is_quiet(connection: http.client.HTTPConnection) -> bool:
    """An idle connection that is readable was closed, or has more bytes than were requested: neither can be used."""
    sock = connection.sock
    if sock is None or (isinstance(sock, ssl.SSLSocket) and sock.pending()):
        return False
    return not polling.readable(sock.fileno())
