"""What pulls have learned: kept across restarts, forgotten after a while, and brought along from older catalogues."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from modeld.pulls.memory import ROOM, STEPS, Meaning, MeantFile, Memory
from modeld.store.catalog.catalog import Catalog
from modeld.store.digest import Digest

pytestmark = pytest.mark.anyio

WRONG, RIGHT = Digest("1" * 64), Digest("2" * 64)
MEANING = Meaning(repo="org/repo", files=(MeantFile("m.gguf", RIGHT.hex, 5),))
DAY = 86_400.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "catalog.db")


async def learned(catalog: Catalog) -> Memory:
    memory = Memory(catalog)
    await memory.meant("hf:org/repo", MEANING)
    await memory.saw("version", RIGHT)
    memory.condemned.condemn("hf at https://hub", WRONG, '"one"')
    return memory


async def test_what_was_learned_is_known_after_a_restart(path: str) -> None:
    with closing(Catalog.open(path)) as catalog:
        await learned(catalog)
    with closing(Catalog.open(path)) as catalog:
        memory = Memory(catalog)
        assert await memory.meaning("hf:org/repo") == MEANING
        assert await memory.seen("version") == RIGHT
        assert memory.condemned.holds("hf at https://hub", WRONG, '"one"')


async def test_what_was_not_used_for_so_long_is_forgotten(path: str) -> None:
    with closing(Catalog.open(path)) as catalog:
        memory = await learned(catalog)
        assert await memory.prune(time.time() + 29 * DAY, 30 * DAY) == 0
        assert await memory.seen("version") == RIGHT
        assert await memory.prune(time.time() + 31 * DAY, 30 * DAY) == 3
        assert await memory.meaning("hf:org/repo") is None
        assert await memory.seen("version") is None
        assert not memory.condemned.holds("hf at https://hub", WRONG, '"one"'), "nor does the running daemon know it"
        memory.condemned.condemn("hf at https://hub", WRONG, '"one"')
    with closing(Catalog.open(path)) as catalog:
        assert len(Memory(catalog).condemned._by_key) == 1


async def test_a_catalogue_of_before_keeps_who_gave_wrong_bytes(path: str) -> None:
    with closing(Catalog.open(path)) as catalog:
        catalog.migrate(ROOM, STEPS[:1])
        row = ("hf at https://hub", WRONG.hex, None)

        def write(db: sqlite3.Connection) -> None:
            db.execute("INSERT INTO condemned_sources VALUES (?, ?, ?)", row)

        catalog.call(write)
    with closing(Catalog.open(path)) as catalog:
        memory = Memory(catalog)
        assert await memory.prune(time.time() + 29 * DAY, 30 * DAY) == 0
        assert memory.condemned.holds("hf at https://hub", WRONG, None)
