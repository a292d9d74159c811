from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modeld.activity import Activity


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state" / "activity.ndjson")


@pytest.fixture
def opened(path: str) -> Iterator[Callable[..., Activity]]:
    made: list[Activity] = []

    def make(**options: Any) -> Activity:
        made.append(Activity.open(path, **options))
        return made[-1]

    yield make
    for activity in made:
        activity.close()
