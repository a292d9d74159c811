"""The license of a repository, from what its owner wrote, which may be of any shape and size."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modeld.download.http.client import HttpClient
from modeld.sources.huggingface.source import HuggingFaceSource
from modeld.sources.parse import parse
from rigs.scripted_server import Asked, Reply, serving

COMMIT = "ab" * 20
FILE = {"type": "file", "path": "m.gguf", "size": 5, "oid": "0" * 40, "lfs": {"oid": "1" * 64, "size": 5}}


@pytest.mark.parametrize(
    ("card", "tags", "license"),
    [
        ({"license": "mit"}, [], "mit"),
        ({"license": ["mit", "apache-2.0"]}, [], "mit OR apache-2.0"),
        ({"license": "other", "license_name": "own"}, [], "own"),
        ({"license": "other"}, [], "other"),
        ({}, ["gguf", "license:mit"], "mit"),
        (None, ["license:mit"], "mit"),
        ({"license": {"deep": [1]}}, ["license:mit"], "mit"),
        ([[]] * 50_000, ["license:mit"], "mit"),
        ({"license": 3}, "no list", None),
        ({"license": None}, [["license:mit"]], None),
        ("text", [], None),
    ],
)
def test_the_license_of_a_repository(card: Any, tags: Any, license: str | None) -> None:  # noqa: A002 - the word
    def hub(asked: Asked) -> Reply:
        told = [FILE] if "/tree/" in asked.path else {"sha": COMMIT, "cardData": card, "tags": tags}
        return Reply(200, {"Content-Type": "application/json"}, json.dumps(told).encode())

    with serving(hub) as server:
        client = HttpClient(environ={})
        described = HuggingFaceSource(client, server.url).describe(parse("hf:org/repo"))  # type: ignore[arg-type]
        assert described.license == license
        client.close()
