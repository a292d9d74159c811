"""Redirects by rule, credentials that stay with their origin, proxies, and errors that say what happened."""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Iterator

import pytest

from daemon.download.http.conftest import Serve
from modeld.download.http import pool
from modeld.download.http.answers import retry_after
from modeld.download.http.client import HttpClient
from modeld.download.source import FileInfo
from modeld.download.tuning import Tuning
from modelwire.errors import InvalidRequest, SourceUnauthorized, SourceUnavailable, TimedOut, WireError
from rigs.chaos_server import unused_port
from rigs.scripted_server import Scripted
from rigs.waiting import wait_until

SECRET = "hf_abcdefghijklmnopqrstuvwxyz"
QUICK = Tuning(connect_seconds=2, stall_seconds=0.3)
FILE = FileInfo(path="m", locator="", size=5)
OK = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.fixture
def client() -> Iterator[HttpClient]:
    client = HttpClient(environ={}, tuning=QUICK)
    yield client
    client.close()


def moved(location: str, status: int = 302) -> str:
    return f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"


def secretless(error: WireError) -> None:
    assert SECRET not in f"{error.message} {error.hint} {error.details} {error!r} {error.__context__!r}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(client: HttpClient, serve: Serve, status: int) -> None:
    server = serve(lambda path, _: OK if path == "/there" else moved("/there", status))
    assert client.request("GET", f"{server.url}/here").body == b"hello"


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("file:///etc/passwd", "scheme 'file'"),
        ("ftp://127.0.0.1/x", "scheme 'ftp'"),
        ("gopher://x", "scheme 'gopher'"),
        ("http://example.com/x", "not allowed"),
        ("//[bad/x", "cannot be read"),
        ("https://a..b/x", "'a..b' is not a host name"),
        ("https://a b.com/x", "'a b.com' is not a host name"),
        ("/here", "in a circle"),
    ],
)
def test_redirects_that_are_not(client: HttpClient, serve: Serve, location: str, says: str) -> None:
    server = serve(lambda _path, _headers: moved(location))
    with pytest.raises(SourceUnavailable, match=says) as caught:
        client.request("GET", f"{server.url}/here?token={SECRET}" if location != "/here" else f"{server.url}/here")
    assert not caught.value.retryable
    secretless(caught.value)


def test_redirects_end(client: HttpClient, serve: Serve) -> None:
    server = serve(lambda path, _: moved(f"/{int(path[1:]) + 1}"))
    with pytest.raises(SourceUnavailable, match="more than 10 times"):
        client.request("GET", f"{server.url}/0")
    assert len(server.seen) == 11


def test_credentials_stay_with_their_origin(client: HttpClient, serve: Serve) -> None:
    elsewhere = serve(lambda _path, _headers: OK)
    server = serve(lambda path, _: moved(f"{elsewhere.url}/cdn") if path == "/there" else moved("/there"))
    client.request("GET", f"{server.url}/here", credentials={"Authorization": f"Bearer {SECRET}"})
    assert [headers.get("authorization") for _, headers in server.seen] == [f"Bearer {SECRET}"] * 2
    assert [headers.get("authorization") for _, headers in elsewhere.seen] == [None]


def test_credentials_do_not_come_back_by_way_of_another_host(client: HttpClient, serve: Serve) -> None:
    """The path would be the other host's choice: also when the redirect is remembered for the next range."""
    elsewhere = serve(lambda _path, _headers: moved(f"{server.url}/chosen"))
    server = serve(lambda path, _: OK if path == "/chosen" else moved(f"{elsewhere.url}/cdn"))
    credentials = {"Authorization": f"Bearer {SECRET}"}
    client.request("GET", f"{server.url}/here", credentials=credentials)
    for _ in range(2):
        client.open_range(f"{server.url}/here", FILE, 0, None, None, credentials=credentials).close()
    sent = [(path, headers.get("authorization")) for path, headers in server.seen + elsewhere.seen]
    assert {path for path, secret in sent if secret} == {"/here"}
    assert [path for path, _ in sent].count("/chosen") == 3


def test_nor_do_they_follow_a_remembered_redirect(client: HttpClient, serve: Serve) -> None:
    elsewhere = serve(lambda _path, _headers: OK)
    server = serve(lambda _path, _headers: moved(f"{elsewhere.url}/cdn"))
    for _ in range(3):
        body = client.open_range(
            f"{server.url}/here", FILE, 0, None, None, credentials={"Authorization": f"Bearer {SECRET}"}
        )
        assert body.readinto(memoryview(bytearray(9))) == 5
        body.close()
    assert len(server.seen) == 1
    assert all("authorization" not in headers for _, headers in elsewhere.seen)


def test_a_signed_address_that_expired_is_asked_for_again(client: HttpClient, serve: Serve) -> None:
    answers = iter([OK, "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", OK])
    elsewhere = serve(lambda _path, _headers: next(answers))
    server = serve(lambda _path, _headers: moved(f"{elsewhere.url}/cdn"))
    for _ in range(2):
        client.open_range(f"{server.url}/here", FILE, 0, None, None).close()
    assert len(server.seen) == 2


@pytest.mark.parametrize("failing", ["HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 400 No\r\n\r\n", ""])
def test_a_redirect_to_a_host_that_fails_by_now_is_not_held_to(client: HttpClient, serve: Serve, failing: str) -> None:
    good = serve(lambda _path, _headers: OK)
    first = iter([OK])
    fails = serve(lambda _path, _headers: next(first, failing))
    hosts = iter([fails, good])
    server = serve(lambda _path, _headers: moved(f"{next(hosts).url}/m"))
    client.open_range(f"{server.url}/here", FILE, 0, None, None).close()
    with pytest.raises(SourceUnavailable):
        client.open_range(f"{server.url}/here", FILE, 0, None, None)
    client.open_range(f"{server.url}/here", FILE, 0, None, None).close()


def test_a_redirect_is_remembered_for_who_was_given_it(client: HttpClient, serve: Serve) -> None:
    def guarded(_path: str, headers: dict[str, str]) -> str:
        refused = "HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"
        return moved(f"{signed.url}/signed") if headers.get("authorization") else refused

    signed = serve(lambda _path, _headers: OK)
    server = serve(guarded)
    credentials = {"Authorization": f"Bearer {SECRET}"}
    client.open_range(f"{server.url}/here", FILE, 0, None, None, credentials=credentials).close()
    client.open_range(f"http://me:{SECRET}@127.0.0.1:{server.port}/here", FILE, 0, None, None).close()
    with pytest.raises(SourceUnauthorized):
        client.open_range(f"{server.url}/here", FILE, 0, None, None)
    assert len(signed.seen) == 2


def test_user_and_password_of_the_address(client: HttpClient, serve: Serve) -> None:
    server = serve(lambda _path, _headers: "HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(SourceUnauthorized) as caught:
        client.request("GET", f"http://me:{SECRET}@127.0.0.1:{server.port}/here?sig={SECRET}")
    secretless(caught.value)
    expected = base64.b64encode(f"me:{SECRET}".encode()).decode()
    assert server.seen[0][1]["authorization"] == f"Basic {expected}"


@pytest.mark.parametrize(
    "address",
    [
        *("http://example.com/m", "http://10.0.0.1/m", "ftp://h/m", "file:///m", "https:///m", "https://[::1/m", "/m"),
        *(
            "https://a..b/m",
            "https://.b/m",
            f"https://{'a' * 64}.com/m",
            "https://a b.com/m",
            f"https://[::1%{'a' * 64}]/m",
        ),
    ],
)
def test_addresses_that_are_not_fetched(client: HttpClient, address: str) -> None:
    with pytest.raises(InvalidRequest):
        client.request("GET", address)


def test_plain_http_to_a_host_that_is_allowed() -> None:
    client = HttpClient(environ={}, plain_hosts=["files.test"])
    assert client.parse("http://FILES.test/a b?c=é").target == "/a%20b?c=%C3%A9"
    client.close()


@pytest.mark.parametrize("secret", [f"Bearer {SECRET}\r\nX: y", f"Bearer {SECRET}\n"])
def test_a_line_break_in_a_token_is_not_sent_nor_told(client: HttpClient, serve: Serve, secret: str) -> None:
    server = serve(lambda _path, _headers: OK)
    with pytest.raises(InvalidRequest) as caught:
        client.request("GET", f"{server.url}/x", credentials={"Authorization": secret})
    assert SECRET not in caught.value.message
    assert server.seen == []


def test_encodings_are_refused(client: HttpClient, serve: Serve) -> None:
    server = serve(
        lambda _path, _headers: "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"
    )
    with pytest.raises(SourceUnavailable, match="gzip"):
        client.open_range(f"{server.url}/m", FILE, 0, None, None)
    assert server.seen[0][1]["accept-encoding"] == "identity"


def test_a_web_page_by_its_type(client: HttpClient, serve: Serve) -> None:
    server = serve(
        lambda _path, _headers: (
            "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 2\r\n\r\nhi"
        )
    )
    with pytest.raises(SourceUnavailable, match="web page"):
        client.open_range(f"{server.url}/m", FILE, 0, None, None)


def test_a_document_that_is_too_long(client: HttpClient, serve: Serve) -> None:
    server = serve(lambda _path, _headers: OK)
    with pytest.raises(SourceUnavailable, match="more than the 3 bytes"):
        client.request("GET", f"{server.url}/x", limit=3)


def test_a_document_that_breaks_off(client: HttpClient, serve: Serve) -> None:
    answers = iter(["HTTP/1.1 200 OK\r\nContent-Length: 99\r\nConnection: close\r\n\r\nhel", ""])

    def script(_path: str, _headers: dict[str, str]) -> str:
        for sock in list(server.sockets):
            sock.settimeout(0.01)
        return next(answers)

    server = serve(script)
    with pytest.raises((SourceUnavailable, TimedOut)):
        client.request("GET", f"{server.url}/x")


def test_nobody_listens(client: HttpClient) -> None:
    with unused_port() as port, pytest.raises(SourceUnavailable, match="refuses connections"):
        client.request("GET", f"http://127.0.0.1:{port}/x")


def test_an_unknown_host(client: HttpClient) -> None:
    with pytest.raises(SourceUnavailable, match="not known"):
        client.request("GET", "https://nowhere.invalid/x")


def test_silence_is_a_timeout(client: HttpClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(TimedOut, match=r"within 0\.3 s"):
            client.request("GET", f"http://127.0.0.1:{listener.getsockname()[1]}/x")


def test_what_is_no_http(client: HttpClient, serve: Serve) -> None:
    server = serve(lambda _path, _headers: "SSH-2.0-OpenSSH\r\n")
    with pytest.raises(SourceUnavailable, match="does not speak HTTP"):
        client.request("GET", f"{server.url}/x")


def test_an_idle_connection_that_was_closed_is_no_fault(client: HttpClient, serve: Serve) -> None:
    server = serve(lambda _path, _headers: OK)
    client.request("GET", f"{server.url}/x")
    for sock in list(server.sockets):
        sock.shutdown(socket.SHUT_RDWR)
    assert client.request("GET", f"{server.url}/x").body == b"hello"


def test_an_idle_connection_that_says_more_is_not_used(client: HttpClient, serve: Serve) -> None:
    server = serve(lambda _path, _headers: OK + ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"))
    assert client.request("GET", f"{server.url}/x").body == b"hello"
    assert client.request("GET", f"{server.url}/x").body == b"hello"


def test_the_proxy_of_the_environment(serve: Serve) -> None:
    proxy = serve(lambda _path, _headers: OK)
    environ = {"http_proxy": f"http://me:pw@127.0.0.1:{proxy.port}", "no_proxy": "direct.test"}
    client = HttpClient(environ=environ, plain_hosts=["files.test", "direct.test"])
    try:
        assert client.request("GET", "http://files.test/m?x=1").body == b"hello"
        with pytest.raises(SourceUnavailable, match="not known"):
            client.request("GET", "http://direct.test/m")
    finally:
        client.close()
    path, headers = proxy.seen[0]
    assert path == "http://files.test/m?x=1"
    assert headers["proxy-authorization"] == "Basic " + base64.b64encode(b"me:pw").decode()


def test_a_proxy_that_makes_no_tunnel(serve: Serve) -> None:
    proxy = serve(lambda _path, _headers: "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
    client = HttpClient(environ={"HTTPS_PROXY": f"127.0.0.1:{proxy.port}"})
    try:
        with pytest.raises(SourceUnavailable, match="makes no connection"):
            client.request("GET", "https://files.test/m")
    finally:
        client.close()
    assert proxy.seen[0][0] == "files.test:443"


def test_no_connection_to_a_proxy_that_makes_no_tunnel_stays() -> None:
    before = os.listdir("/proc/self/fd")
    with Scripted(lambda _path, _headers: "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n") as proxy:
        client = HttpClient(environ={"HTTPS_PROXY": f"127.0.0.1:{proxy.port}"})
        with pytest.raises(SourceUnavailable) as held:
            client.request("GET", "https://files.test/m")
        client.close()
    assert len(os.listdir("/proc/self/fd")) == len(before), held


def test_a_certificate_file_that_is_not_there() -> None:
    client = HttpClient(environ={"SSL_CERT_FILE": "/nowhere/ca.pem"})
    with pytest.raises(SourceUnavailable, match="SSL_CERT_FILE"):
        client.request("GET", "https://127.0.0.1/m")
    client.close()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "Thu, 01 Jan 1970 00:01:40 GMT"}, 60),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
        ({"Retry-After": "soon"}, None),
        ({"RateLimit": '"api";r=0;t=55'}, 55),
        ({"RateLimit": '"api";r=3;t=55'}, None),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "12"}, 12),
        ({"RateLimit-Remaining": "5", "RateLimit-Reset": "12"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=40) == seconds


def test_connections_that_nobody_uses_are_closed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "IDLE_SECONDS", 0.3)
    client = HttpClient(environ={}, tuning=QUICK)
    server = serve(lambda _, __: OK)
    for _ in range(3):
        client.request("GET", f"{server.url}/m")
    assert client._pool._idle
    wait_until(lambda: not client._pool._idle, what="the end of the idle connection")
    wait_until(lambda: client._pool._reaper is None, what="the end of its thread")
    assert client.request("GET", f"{server.url}/m").body == b"hello"
    client.close()
    wait_until(lambda: client._pool._reaper is None, 2, what="the end of its thread")
