"""A log that another program removes or cuts under the running daemon: noticed, and nothing that memory has is lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modeld.store.catalog import catalog as catalog_module
from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.write_ahead_log import PARTED
from modelwire.errors import Internal, NoSpace

STEPS = ("CREATE TABLE things (id INTEGER PRIMARY KEY, text TEXT);",)
EARLIER = list(range(50))


class Component:
    """Has in memory what was committed last."""

    def __init__(self, catalog: Catalog) -> None:
        self.memory: list[int] = []
        self._catalog = catalog
        catalog.migrate("things", STEPS)
        catalog.on_loss(self._write_again)

    async def put(self, number: int) -> None:
        await self._catalog.write(putting(number), self.memory.append)

    def _write_again(self, connection: sqlite3.Connection) -> None:
        for number in self.memory:
            connection.execute("INSERT OR REPLACE INTO things VALUES (?, '')", (number,))


def putting(number: int) -> Callable[[sqlite3.Connection], int]:
    def put(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO things VALUES (?, ?)", (number, "x" * 3000))
        return number

    return put


def ids(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT id FROM things ORDER BY id")]


def whole(connection: sqlite3.Connection) -> str:
    return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "catalog.sqlite")


@pytest.fixture
def catalog(path: str) -> Iterator[Catalog]:
    opened = Catalog.open(path)
    yield opened
    opened.close()


def removed(log: str) -> None:
    os.unlink(log)


def replaced(log: str) -> None:
    Path(log + ".foreign").write_bytes(b"foreign" * 1000)
    os.replace(log + ".foreign", log)


def emptied(log: str) -> None:
    os.truncate(log, 0)


def halved(log: str) -> None:
    os.truncate(log, os.path.getsize(log) // 2)


def after_a_kill(path: str, to: Path) -> Catalog:
    """What a start finds if the daemon is killed now."""
    to.mkdir()
    for suffix in ("", "-wal"):
        if os.path.exists(path + suffix):
            shutil.copy(path + suffix, to / f"catalog.sqlite{suffix}")
    return Catalog.open(str(to / "catalog.sqlite"))


@pytest.mark.parametrize("damage", [removed, replaced, emptied, halved])
async def test_the_next_write_brings_everything_back(
    catalog: Catalog, path: str, tmp_path: Path, damage: Callable[[str], None]
) -> None:
    component = Component(catalog)
    for number in EARLIER:
        await component.put(number)
    damage(path + "-wal")
    await component.put(50)
    assert await catalog.read(ids) == [*EARLIER, 50]
    found = after_a_kill(path, tmp_path / "killed")
    assert found.set_aside is None
    assert found.call(whole) == "ok"
    assert found.call(ids) == [*EARLIER, 50]
    found.close()


@pytest.mark.parametrize("damage", [removed, replaced, emptied, halved])
async def test_a_stop_brings_everything_back_too(path: str, damage: Callable[[str], None]) -> None:
    catalog = Catalog.open(path)
    component = Component(catalog)
    for number in EARLIER:
        await component.put(number)
    damage(path + "-wal")
    catalog.close()
    again = Catalog.open(path)
    assert again.set_aside is None
    assert again.call(whole) == "ok"
    assert again.call(ids) == EARLIER
    again.close()


@pytest.mark.parametrize("damage", [removed, emptied])
async def test_a_read_finds_what_it_found_before(catalog: Catalog, path: str, damage: Callable[[str], None]) -> None:
    component = Component(catalog)
    for number in EARLIER:
        await component.put(number)
    await catalog.write(lambda db: db.execute("PRAGMA shrink_memory").fetchall())
    damage(path + "-wal")
    assert await catalog.read(ids) == EARLIER


async def test_a_log_that_is_lost_again_and_again_loses_nothing(catalog: Catalog, path: str) -> None:
    component = Component(catalog)
    for number, damage in enumerate([removed, emptied, halved, replaced] * 3):
        await component.put(number)
        damage(path + "-wal")
    await component.put(99)
    assert await catalog.read(ids) == [*range(12), 99]


async def test_a_write_is_refused_as_long_as_the_file_cannot_be_completed(
    catalog: Catalog, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    component = Component(catalog)
    for number in EARLIER:
        await component.put(number)
    emptied(path + "-wal")

    def full(*_: object) -> None:
        raise NoSpace("the disk is full")

    with monkeypatch.context() as disk:
        disk.setattr(catalog_module, "part_from_log", full)
        with pytest.raises(NoSpace):
            await component.put(50)
        with pytest.raises(NoSpace):
            await catalog.read(ids)
    with monkeypatch.context() as disk:
        disk.setattr(catalog_module, "open_or_replace", full)
        with pytest.raises(NoSpace):
            await component.put(50)
        with pytest.raises(NoSpace):
            await component.put(50)
    await component.put(50)
    assert await catalog.read(ids) == [*EARLIER, 50]


@pytest.mark.parametrize("call", ["create_file", "write_at", "sync_file", "remove", "name_replacing", "sync_directory"])
async def test_an_error_at_any_step_leaves_a_sound_file_for_the_next_write(
    catalog: Catalog, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    component = Component(catalog)
    for number in EARLIER:
        await component.put(number)
    emptied(path + "-wal")

    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as disk:
        disk.setattr(f"modeld.store.disk.durable.{call}", fails)
        with pytest.raises(Internal):
            await component.put(50)
    found = after_a_kill(path, tmp_path / "killed")
    assert found.set_aside is None
    assert found.call(whole) == "ok"
    found.close()
    await component.put(50)
    assert await catalog.read(ids) == [*EARLIER, 50]


async def test_a_copy_that_a_crash_has_left_is_removed(path: str) -> None:
    Path(path + PARTED).write_bytes(b"left")
    Catalog.open(path).close()
    assert not os.path.exists(path + PARTED)


async def test_a_checkpoint_of_the_daemon_itself_is_no_damage(catalog: Catalog) -> None:
    component = Component(catalog)
    await component.put(1)
    before = catalog._connection
    await catalog.write(lambda db: db.execute("PRAGMA journal_size_limit").fetchone()[0])
    for number in range(2, 1500):
        await component.put(number)
    assert catalog._connection is before
