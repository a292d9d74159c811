"""What the tests of a hub share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rigs.hub_repos import REPOS, STRANGER, TOKEN
from rigs.hub_server import Hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub(REPOS, page=4, valid=frozenset({TOKEN, STRANGER})) as hub:
        yield hub
