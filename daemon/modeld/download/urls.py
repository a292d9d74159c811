"""Addresses: taken apart once, refused by rule, and shown without what must stay secret."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import quote, unquote, urljoin, urlsplit

from modelwire.errors import InvalidRequest, SourceUnavailable

Scheme = Literal["http", "https"]
_SCHEMES: Final[dict[str, Scheme]] = {"http": "http", "https": "https"}
_PORTS: Final[dict[Scheme, int]] = {"http": 80, "https": 443}
_PLAIN: Final = "%/:=&?~#+!$,;'@()*[]"
"""What a path or query may hold as it is; anything else (spaces, letters beyond ASCII) is percent-encoded."""


@dataclass(frozen=True, slots=True)
class Url:
    scheme: Scheme
    host: str
    port: int
    target: str = field(repr=False)
    """Path and query, as they go into the request line. The query may hold a signature."""
    userinfo: str | None = field(default=None, repr=False)

    @property
    def origin(self) -> str:
        """Scheme, host and port: what credentials, connections and breakers belong to."""
        return f"{self.scheme}://{self.netloc}"

    @property
    def has_default_port(self) -> bool:
        return self.port == _PORTS[self.scheme]

    @property
    def netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.has_default_port else f"{host}:{self.port}"

    @property
    def shown(self) -> str:
        """For people: neither user, password, query nor fragment."""
        return self.origin + self.target.partition("?")[0]

    @property
    def full(self) -> str:
        """For a proxy's request line and for comparing. Never shown."""
        return self.origin + self.target

    @property
    def credentials(self) -> tuple[str, str] | None:
        return user_and_password(self.userinfo)


def user_and_password(userinfo: str | None) -> tuple[str, str] | None:
    """Of `user:password`, percent-encoded, as an address has it before the `@`."""
    if userinfo is None:
        return None
    user, _, password = userinfo.partition(":")
    return unquote(user), unquote(password)


def parse_url(text: str, *, plain_hosts: Collection[str] = ()) -> Url:
    """InvalidRequest, which never repeats more than scheme and host, when the address is none or is not allowed."""
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError:
        # The library's sentence quotes what it took for the port: half a password, when that has a slash in it.
        raise InvalidRequest(
            "an address that cannot be read: its host or its port is not one",
            hint="Check the address; in a user or a password, write / ? # [ and ] as %2F %3F %23 %5B and %5D.",
        ) from None
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None:
        raise InvalidRequest(
            f"the scheme {parts.scheme[:20]!r} is not one to fetch from; only https, and http to this machine, are",
            hint="Give an https:// address.",
        )
    if not host:
        raise InvalidRequest(f"an address without a host: {parts.scheme}://…", hint="Check the address.")
    host = _ascii(host)
    if scheme == "http" and not allows_plain(host, plain_hosts):
        raise InvalidRequest(
            f"http://{host} is not encrypted, so anybody on the way could change the bytes",
            hint=f"Use https, or add {host!r} to `plain_hosts` in [transfer] of the daemon's configuration.",
            details={"host": host},
        )
    path = quote(parts.path or "/", safe=_PLAIN)
    query = f"?{quote(parts.query, safe=_PLAIN)}" if parts.query else ""
    userinfo = parts.netloc.rpartition("@")[0] or None
    return Url(scheme, host, port or _PORTS[scheme], path + query, userinfo)


def follow(url: Url, location: str, *, plain_hosts: Collection[str] = ()) -> Url:
    """Where a redirect leads; SourceUnavailable when no redirect may lead there."""
    try:
        joined = urljoin(url.full, _as_sent(location))
        scheme = urlsplit(joined).scheme
    except ValueError:
        raise _bad_redirect(url, "to an address that cannot be read") from None
    if scheme not in _SCHEMES:
        raise _bad_redirect(url, f"to the scheme {scheme[:20]!r}")
    if url.scheme == "https" and scheme == "http":
        raise _bad_redirect(url, "from https to http, where anybody on the way could change the bytes")
    try:
        return parse_url(joined, plain_hosts=plain_hosts)
    except InvalidRequest as fault:
        raise _bad_redirect(url, f"somewhere that is not allowed: {fault.message}") from None


def _as_sent(location: str) -> str:
    """Headers are read as Latin-1. What is not ASCII in them is mostly an address in UTF-8 that nobody encoded."""
    try:
        return location.encode("latin-1").decode()
    except UnicodeError:
        return location


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def allows_plain(host: str, plain_hosts: Collection[str]) -> bool:
    return is_loopback(host) or host in plain_hosts


def _ascii(host: str) -> str:
    """Checked in ASCII too: an empty or overlong label makes a UnicodeError of the resolver, a space an InvalidURL of
    http.client, and neither is a fault of the source or of the network."""
    try:
        name = host.encode("idna").decode("ascii").lower()
    except UnicodeError:
        name = ""
    if not name or any(character <= " " or character == "\x7f" for character in name):
        raise InvalidRequest(f"{host[:80]!r} is not a host name", hint="Check the address.")
    return name


def _bad_redirect(url: Url, where: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"{url.shown} redirects {where}; that is not followed",
        hint="Use the address of the file itself, from a source that serves it over https.",
        retryable=False,
        details={"source": url.shown},
    )
