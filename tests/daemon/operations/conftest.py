"""What tests of update commands download from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rigs.scripted_server import Server
from rigs.update_rig import route


@pytest.fixture
def web() -> Iterator[Server]:
    with Server(route) as server:
        yield server
