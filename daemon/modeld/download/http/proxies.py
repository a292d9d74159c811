"""The proxy of an address, by the environment variables that curl and other clients obey."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from modeld.download.http.headers import basic
from modeld.download.urls import Url, is_loopback
from modelwire.errors import InvalidRequest

_SCHEME_PORT = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    host: str
    port: int
    tls: bool
    authorization: str | None = field(default=None, repr=False)

    @property
    def shown(self) -> str:
        return f"{self.host}:{self.port}"


class Proxies:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._by_scheme: dict[str, Proxy | None] = {}
        everything = _variable(environ, "all_proxy")
        for scheme in ("http", "https"):
            # A CGI server sets HTTP_PROXY, in capitals, from a request header "Proxy:".
            text = environ.get("http_proxy", "") if scheme == "http" else _variable(environ, "https_proxy")
            self._by_scheme[scheme] = _parse(text or everything)
        self._direct = [entry.strip().lower() for entry in _variable(environ, "no_proxy").split(",") if entry.strip()]

    def of(self, url: Url) -> Proxy | None:
        proxy = self._by_scheme[url.scheme]
        if proxy is None or is_loopback(url.host) or any(_covers(entry, url) for entry in self._direct):
            return None
        return proxy


def _variable(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name) or environ.get(name.upper()) or ""


def _parse(text: str) -> Proxy | None:
    text = text.strip()
    if not text:
        return None
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if host is None or parts.scheme not in _SCHEME_PORT:
        raise InvalidRequest(
            f"the proxy in the environment cannot be used (scheme {parts.scheme[:20]!r})",
            hint="Set http_proxy and https_proxy to http://host:port, or unset them; SOCKS is not supported.",
        )
    authorization = None
    if parts.username is not None:
        authorization = basic(unquote(parts.username), unquote(parts.password or ""))
    return Proxy(host, port or _SCHEME_PORT[parts.scheme], parts.scheme == "https", authorization)


def _covers(entry: str, url: Url) -> bool:
    if entry == "*":
        return True
    name, _, port = entry.rpartition(":") if entry.count(":") == 1 else (entry, "", "")
    if port and port != str(url.port):
        return False
    name = (name or entry).strip("[]").removeprefix("*").lstrip(".")
    if "/" in name:
        try:
            return ipaddress.ip_address(url.host) in ipaddress.ip_network(name, strict=False)
        except ValueError:
            return False
    return url.host == name or url.host.endswith("." + name)
