from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.adding_rig import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A store to add to; suites with a bench of their own kind have a fixture of their own."""
    made = Bench(tmp_path)
    yield made
    made.close()
