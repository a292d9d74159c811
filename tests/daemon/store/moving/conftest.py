from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "models")


@pytest.fixture
def target(tmp_path: Path) -> str:
    (tmp_path / "big").mkdir()
    return str(tmp_path / "big" / "models")


@pytest.fixture
def sources(tmp_path: Path) -> str:
    (tmp_path / "sources").mkdir()
    return str(tmp_path / "sources")
