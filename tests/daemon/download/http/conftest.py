from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from rigs.scripted_server import Scripted

Serve = Callable[[Callable[[str, dict[str, str]], str]], Scripted]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with contextlib.ExitStack() as servers:
        yield lambda script: servers.enter_context(Scripted(script))
