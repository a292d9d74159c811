"""Answers that few servers give, and a client has to understand, or to refuse for what they are."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from daemon.download.http.conftest import Serve
from modeld.download.http.client import HttpClient
from modeld.download.source import FileInfo
from modeld.download.tuning import Tuning
from modelwire.errors import SourceUnavailable
from rigs.waiting import wait_until

FILE = FileInfo(path="m", locator="", size=5)
OK = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.fixture
def client() -> Iterator[HttpClient]:
    client = HttpClient(environ={}, tuning=Tuning(connect_seconds=2, stall_seconds=0.5))
    yield client
    client.close()


def test_a_redirect_in_letters_that_nobody_encoded(client: HttpClient, serve: Serve) -> None:
    sent = "/mod\u00e8le \u6a21.gguf".encode().decode("latin-1")

    def script(path: str, _headers: dict[str, str]) -> str:
        if path == "/mod%C3%A8le%20%E6%A8%A1.gguf":
            return OK
        return f"HTTP/1.1 302 Found\r\nLocation: {sent}\r\nContent-Length: 0\r\n\r\n"

    assert client.request("GET", f"{serve(script).url}/here").body == b"hello"


@pytest.mark.parametrize(
    "framing",
    [
        *("Content-Length: +5", "Content-Length: 0_5", "Content-Length: -5", "Content-Length: 0x5"),
        *("Content-Length: 5, 6", "Content-Length: 5\r\nContent-Length: 6", "Transfer-Encoding: gzip, chunked"),
    ],
)
@pytest.mark.parametrize("status", ["200 OK", "206 Partial Content\r\nContent-Range: bytes 0-4/9"])
def test_a_length_that_is_none_is_not_believed(client: HttpClient, serve: Serve, framing: str, status: str) -> None:
    server = serve(lambda _path, _headers: f"HTTP/1.1 {status}\r\nConnection: close\r\n{framing}\r\n\r\nhello")
    with pytest.raises(SourceUnavailable, match="announces the length of its answer"):
        client.open_range(f"{server.url}/m", FILE, 0, None, None)


@pytest.mark.parametrize(
    "framing", ["Content-Length: 5, 5", "Content-Length:\t5 ", "Content-Length: 5\r\nContent-Length: 5"]
)
def test_a_length_that_is_told_twice(client: HttpClient, serve: Serve, framing: str) -> None:
    server = serve(lambda _path, _headers: f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\nhello")
    body = client.open_range(f"{server.url}/m", FILE, 0, None, None)
    assert body.readinto(memoryview(bytearray(9))) == 5
    body.close()


@pytest.mark.parametrize("hints", [1, 3])
def test_what_comes_before_the_answer_is_passed_over(client: HttpClient, serve: Serve, hints: int) -> None:
    early = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n" * hints
    server = serve(lambda _path, _headers: f"HTTP/1.1 102 Processing\r\n\r\n{early}{OK}")
    for _ in range(2):
        assert client.request("GET", f"{server.url}/m").body == b"hello"


@pytest.mark.parametrize("head", ["HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\nServer: x\r\n"])
def test_a_head_that_breaks_off_is_no_answer(client: HttpClient, serve: Serve, head: str) -> None:
    """It would be one without a length, and the end of the connection the end of an empty document."""
    answers = iter([head, ""])
    server = serve(lambda _path, _headers: next(answers))

    def end() -> None:
        wait_until(lambda: server.seen)
        server.close()

    ended = threading.Thread(target=end)
    ended.start()
    with pytest.raises(SourceUnavailable, match="broke off") as caught:
        client.request("GET", f"{server.url}/m")
    assert caught.value.retryable
    ended.join()


@pytest.mark.parametrize("length", ["-1", "+2", "0x2", "1_0", "", "2 2"])
def test_the_length_of_a_chunk_is_a_number(client: HttpClient, serve: Serve, length: str) -> None:
    head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    server = serve(lambda _path, _headers: f"{head}{length}\r\n{{}}\r\n0\r\n\r\n")
    with pytest.raises(SourceUnavailable, match="announces the length of its answer"):
        client.request("GET", f"{server.url}/m")


def test_chunks_with_extensions_and_trailers(client: HttpClient, serve: Serve) -> None:
    head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    server = serve(lambda _path, _headers: f"{head}2;name=value\r\nhe\r\n3 \r\nllo\r\n0\r\nX: y\r\n\r\n")
    for _ in range(2):
        assert client.request("GET", f"{server.url}/m").body == b"hello"


def test_what_never_comes_to_an_answer(client: HttpClient, serve: Serve) -> None:
    server = serve(lambda _path, _headers: "HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)
    with pytest.raises(SourceUnavailable, match="does not speak HTTP"):
        client.request("GET", f"{server.url}/m")
