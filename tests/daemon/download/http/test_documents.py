"""What small documents of foreign servers may become in memory."""

from __future__ import annotations

import tracemalloc

import msgspec
import pytest

from modeld.download.http.client import HttpClient
from modeld.download.http.documents import MAX_METADATA, MAX_SMALL, BadDocument, any_document, decoded
from modelwire.errors import SourceUnavailable
from rigs.scripted_server import Reply, serving

MIB = 1024 * 1024


class Listed(msgspec.Struct):
    path: str = ""


HOSTILE = {
    "lists": b"[" + b"[]," * (MAX_METADATA // 3) + b"[]]",
    "objects": b"[" + b"{}," * (MAX_METADATA // 3) + b"{}]",
    "numbers": b"[" + b"1," * (MAX_METADATA // 2) + b"1]",
    "deep": b"[" * (MAX_METADATA // 2) + b"]" * (MAX_METADATA // 2),
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "no json": b"\xff" * MIB,
    "half": b'[{"path":"a"',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_document_is_refused_before_it_takes_memory(name: str) -> None:
    body = HOSTILE[name]
    tracemalloc.start()
    try:
        with pytest.raises(BadDocument):
            any_document(body)
        with pytest.raises(BadDocument):
            decoded(body, list[Listed])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 * MIB


def test_a_page_of_the_biggest_repositories_is_read() -> None:
    entry = {"type": "file", "oid": "0" * 40, "size": 1, "path": "x" * 100, "lfs": {"oid": "1" * 64, "size": 1}}
    body = msgspec.json.encode([entry] * 20_000)
    assert len(body) < MAX_METADATA
    assert len(decoded(body, list[Listed])) == len(any_document(body)) == 20_000


@pytest.mark.parametrize(("status", "limit"), [(200, MAX_METADATA), (401, MAX_SMALL), (500, MAX_SMALL)])
def test_an_answer_is_no_longer_than_its_kind_may_be(status: int, limit: int) -> None:
    with serving(lambda asked: Reply(status, {}, b"x" * int(asked.query))) as server:
        client = HttpClient(environ={})
        assert len(client.request("GET", f"{server.url}/?{limit}", ok=(status,)).body) == limit
        with pytest.raises(SourceUnavailable, match=f"more than the {limit} bytes"):
            client.request("GET", f"{server.url}/?{limit + 1}", ok=(status,))
        client.close()
