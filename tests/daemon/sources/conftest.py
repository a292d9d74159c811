"""What the tests of the sources share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from modeld.download.http.client import HttpClient


@pytest.fixture
def http() -> Iterator[HttpClient]:
    client = HttpClient(environ={})
    yield client
    client.close()
