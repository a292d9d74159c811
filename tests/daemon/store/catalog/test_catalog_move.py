"""The catalogue goes on in a copy of its file, and nothing that it acknowledged is lost on the way."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.catalog_file import copy_to
from modelwire.errors import ModeldError, NoSpace, NotFound

STEPS = ("CREATE TABLE things (id INTEGER PRIMARY KEY);",)


def put(number: int, connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO things VALUES (?)", (number,))


def ids(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT id FROM things ORDER BY id")]


@pytest.fixture
def known_as(tmp_path: Path) -> Path:
    """A link to the directory of the catalogue."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    (tmp_path / "store").symlink_to("old")
    return tmp_path / "store"


@pytest.fixture
def catalog(known_as: Path) -> Iterator[Catalog]:
    opened = Catalog.open(str(known_as / "catalog.sqlite"))
    opened.migrate("things", STEPS)
    yield opened
    opened.close()


def copy(known_as: Path, connection: sqlite3.Connection) -> None:
    copy_to(connection, str(known_as.parent / "new" / "catalog.sqlite"), partial(put, 1000))


def switch(known_as: Path) -> None:
    os.symlink("new", f"{known_as}.link")
    os.replace(f"{known_as}.link", known_as)


async def test_calls_before_it_are_in_the_copy_and_later_ones_write_to_it(catalog: Catalog, known_as: Path) -> None:
    before = [asyncio.ensure_future(catalog.write(partial(put, number))) for number in range(50)]
    moving = asyncio.ensure_future(catalog.move(partial(copy, known_as), partial(switch, known_as)))
    after = [asyncio.ensure_future(catalog.write(partial(put, number))) for number in range(50, 100)]
    await asyncio.gather(*before, moving, *after)

    assert await catalog.read(ids) == [*range(100), 1000]
    await asyncio.to_thread(catalog.close)
    assert os.listdir(known_as.parent / "old") == ["catalog.sqlite"]
    for name, expected in (("old", [*range(50)]), ("new", [*range(100), 1000])):
        with closing(sqlite3.connect(known_as.parent / name / "catalog.sqlite")) as found:
            assert ids(found) == expected


async def test_a_switch_that_fails_leaves_the_old_file_in_use(catalog: Catalog, known_as: Path) -> None:
    def refuse() -> None:
        raise NoSpace("no room for a link")

    await catalog.write(partial(put, 1))
    with pytest.raises(NoSpace, match="no room for a link"):
        await catalog.move(partial(copy, known_as), refuse)
    await catalog.write(partial(put, 2))
    assert await catalog.read(ids) == [1, 2]


async def test_a_copy_that_fails_leaves_the_old_file_in_use(catalog: Catalog, known_as: Path) -> None:
    def fail(_: sqlite3.Connection) -> None:
        raise NoSpace("no room for a copy")

    with pytest.raises(NoSpace, match="no room for a copy"):
        await catalog.move(fail, partial(switch, known_as))
    await catalog.write(partial(put, 2))
    assert await catalog.read(ids) == [2]
    assert os.readlink(known_as) == "old"


async def test_a_caller_that_is_cancelled_does_not_leave_half_a_move(catalog: Catalog, known_as: Path) -> None:
    moving = asyncio.ensure_future(catalog.move(partial(copy, known_as), partial(switch, known_as)))
    await asyncio.sleep(0)
    moving.cancel()
    await catalog.write(partial(put, 3))
    assert await catalog.read(ids) == [3, 1000]


async def test_a_second_copy_replaces_the_first(catalog: Catalog, known_as: Path) -> None:
    def refuse() -> None:
        raise NoSpace("not yet")

    with pytest.raises(NoSpace):
        await catalog.move(partial(copy, known_as), refuse)
    await catalog.write(partial(put, 7))
    await catalog.move(partial(copy, known_as), partial(switch, known_as))
    assert await catalog.read(ids) == [7, 1000]


async def test_a_copy_that_the_disk_does_not_return_is_replaced_from_memory(catalog: Catalog, known_as: Path) -> None:
    def switch_to_noise() -> None:
        switch(known_as)
        (known_as / "catalog.sqlite").write_bytes(b"noise" * 1000)

    catalog.on_loss(partial(put, 5))
    await catalog.move(partial(copy, known_as), switch_to_noise)
    await catalog.write(partial(put, 6))
    assert await catalog.read(ids) == [5, 6]
    assert [name for name in os.listdir(known_as) if ".damaged-" in name]


async def test_a_file_that_cannot_be_opened_there_is_opened_by_a_later_call(catalog: Catalog, known_as: Path) -> None:
    def switch_to_nothing() -> None:
        switch(known_as)
        os.rename(known_as.parent / "new", known_as.parent / "away")

    with pytest.raises(NotFound):
        await catalog.move(partial(copy, known_as), switch_to_nothing)
    with pytest.raises(ModeldError):
        await catalog.write(partial(put, 6))
    os.rename(known_as.parent / "away", known_as.parent / "new")
    await catalog.write(partial(put, 7))
    assert await catalog.read(ids) == [7, 1000]
