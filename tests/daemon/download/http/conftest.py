from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from rigs.scripted_server import Scripted

Serve = Callable[[Callable[[str, dict[str, str]], str]], Scripted]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Scripted] = []

    def start(script: Callable[[str, dict[str, str]], str]) -> Scripted:
        servers.append(Scripted(script))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
