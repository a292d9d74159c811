"""The account database that the tests of this room ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rigs.account_database import AccountDatabase


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[AccountDatabase]:
    made = AccountDatabase()
    made.plant(monkeypatch)
    yield made
    made.release()


@pytest.fixture
def clock() -> Clock:
    return Clock()
