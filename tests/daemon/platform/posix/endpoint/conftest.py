"""Where an endpoint of a test lies."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest


@pytest.fixture
def directory() -> Iterator[str]:
    """A short path: pytest's own are long enough to fill a socket address."""
    with tempfile.TemporaryDirectory(prefix="md-") as made:
        yield made


@pytest.fixture
def path(directory: str) -> str:
    return os.path.join(directory, "modeld.sock")
