"""What pulls learned: kept across restarts, forgotten after a while, and read from older catalogues."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from modeld.pulls.memory import ROOM, STEPS, Memory, RemoteFile, RemoteModel
from modeld.store.catalog.catalog import Catalog
from modeld.store.digest import Digest

pytestmark = pytest.mark.anyio

WRONG, RIGHT = Digest("1" * 64), Digest("2" * 64)
MODEL = RemoteModel(repo="org/repo", files=(RemoteFile("m.gguf", RIGHT.hex),))
DAY = 86_400.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "catalog.db")


async def learned(catalog: Catalog) -> Memory:
    memory = Memory(catalog)
    await memory.remember_model("hf:org/repo", MODEL)
    await memory.remember_digest("version", RIGHT)
    memory.condemned.condemn("hf at https://hub", WRONG, '"one"')
    return memory


async def test_the_memory_survives_a_restart(path: str) -> None:
    with closing(Catalog.open(path)) as catalog:
        await learned(catalog)
    with closing(Catalog.open(path)) as catalog:
        memory = Memory(catalog)
        assert await memory.model("hf:org/repo") == MODEL
        assert await memory.digest("version") == RIGHT
        assert memory.condemned.holds("hf at https://hub", WRONG, '"one"')


async def test_what_was_not_used_for_long_is_forgotten(path: str) -> None:
    with closing(Catalog.open(path)) as catalog:
        memory = await learned(catalog)
        assert await memory.prune(time.time() + 29 * DAY, 30 * DAY) == 0
        assert await memory.digest("version") == RIGHT
        assert await memory.prune(time.time() + 31 * DAY, 30 * DAY) == 3
        assert await memory.model("hf:org/repo") is None
        assert await memory.digest("version") is None
        assert not memory.condemned.holds("hf at https://hub", WRONG, '"one"'), "the running daemon forgets it too"
        memory.condemned.condemn("hf at https://hub", WRONG, '"one"')
    with closing(Catalog.open(path)) as catalog:
        assert len(Memory(catalog).condemned._by_key) == 1


async def test_an_older_catalogue_keeps_the_sources_of_wrong_bytes(path: str) -> None:
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


async def test_a_model_that_an_older_modeld_remembered_is_read(path: str) -> None:
    """It recorded the size of each file too."""
    row = f'{{"repo":"org/repo","files":[{{"path":"m.gguf","digest":"{RIGHT.hex}","size":5}}]}}'.encode()
    with closing(Catalog.open(path)) as catalog:
        memory = Memory(catalog)

        def write(db: sqlite3.Connection) -> None:
            db.execute("INSERT INTO meanings VALUES (?, ?, ?)", ("hf:org/repo", row, time.time()))

        catalog.call(write)
        assert await memory.model("hf:org/repo") == MODEL
