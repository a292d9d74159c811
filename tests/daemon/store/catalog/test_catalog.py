"""The catalogue keeps what it acknowledged, isolates what fails, and survives a damaged file."""

from __future__ import annotations

import _sqlite3
import asyncio
import ctypes
import os
import select
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modeld.store.catalog.catalog import Catalog
from modelwire.errors import (
    Interrupted,
    LocalError,
    NoSpace,
    Unsupported,
)

STEPS = ("CREATE TABLE things (id INTEGER PRIMARY KEY, text TEXT);",)


def put(number: int, text: str = "") -> Callable[[sqlite3.Connection], int]:
    def function(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO things VALUES (?, ?)", (number, text))
        return number

    return function


def ids(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT id FROM things ORDER BY id")]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "catalog.sqlite")


@pytest.fixture
def catalog(path: str) -> Iterator[Catalog]:
    opened = Catalog.open(path)
    opened.migrate("things", STEPS)
    yield opened
    opened.close()


class Held:
    """Keeps the owner thread busy so that everything asked for meanwhile lands in one batch."""

    def __init__(self, catalog: Catalog) -> None:
        self._entered, self._go = threading.Event(), threading.Event()
        self._task = asyncio.ensure_future(catalog.read(self._hold))

    def _hold(self, _: sqlite3.Connection) -> None:
        self._entered.set()
        assert self._go.wait(30)

    async def __aenter__(self) -> None:
        assert await asyncio.to_thread(self._entered.wait, 30)

    async def __aexit__(self, *_: object) -> None:
        self._go.set()
        await self._task


async def test_a_thousand_concurrent_writes_all_arrive_in_few_commits(catalog: Catalog) -> None:
    commits: list[str] = []
    catalog.call(lambda c: c.set_trace_callback(lambda sql: commits.append(sql) if sql.startswith("COMMIT") else None))
    results = await asyncio.gather(*(catalog.write(put(n)) for n in range(1000)))
    assert results == list(range(1000))
    assert await catalog.read(ids) == list(range(1000))
    assert len(commits) < 20, "writes that wait are committed together"


async def test_writes_from_many_threads(catalog: Catalog) -> None:
    def work(start: int) -> None:
        for number in range(start, start + 25):
            catalog.call(put(number))

    threads = [threading.Thread(target=work, args=(n * 25,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert await catalog.read(ids) == list(range(200))


async def test_a_function_that_fails_rolls_back_alone(catalog: Catalog) -> None:
    def fails(connection: sqlite3.Connection) -> None:
        put(50)(connection)
        raise KeyError("mine")

    async with Held(catalog):
        calls = [asyncio.ensure_future(catalog.write(f)) for f in (put(1), fails, put(1), put(2))]
        await asyncio.sleep(0)
    one, failed, twice, two = await asyncio.gather(*calls, return_exceptions=True)
    assert (one, two) == (1, 2)
    assert isinstance(failed, KeyError)
    assert isinstance(twice, sqlite3.IntegrityError)
    assert await catalog.read(ids) == [1, 2]


async def test_when_the_disk_is_full_the_small_writes_of_the_batch_still_go_in(catalog: Catalog) -> None:
    pages = catalog.call(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    catalog.call(lambda c: c.execute(f"PRAGMA max_page_count = {pages + 4}").fetchone())
    async with Held(catalog):
        calls = [asyncio.ensure_future(catalog.write(f)) for f in (put(1), put(2, "x" * 200_000), put(3))]
        await asyncio.sleep(0)
    one, big, three = await asyncio.gather(*calls, return_exceptions=True)
    assert (one, three) == (1, 3)
    assert isinstance(big, NoSpace)
    assert catalog.path in big.message
    catalog.call(lambda c: c.execute("PRAGMA max_page_count = 100000").fetchone())
    await catalog.write(put(2, "x" * 200_000))
    assert await catalog.read(ids) == [1, 2, 3]


async def test_a_function_that_commits_is_refused_and_the_others_are_kept(catalog: Catalog) -> None:
    async with Held(catalog):
        offenders = (lambda c: c.commit(), lambda c: c.execute("COMMIT"), lambda c: c.executescript("SELECT 1;"))
        calls = [asyncio.ensure_future(catalog.write(f)) for f in (put(1), *offenders, put(2))]
        await asyncio.sleep(0)
    one, *offended, two = await asyncio.gather(*calls, return_exceptions=True)
    assert (one, two) == (1, 2)
    assert [type(error) for error in offended] == [LocalError] * 3
    assert await catalog.read(ids) == [1, 2]


async def test_a_cancelled_caller_breaks_nothing(catalog: Catalog) -> None:
    async with Held(catalog):
        task = asyncio.ensure_future(catalog.write(put(1)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await catalog.write(put(2)) == 2
    assert await catalog.read(ids) == [1, 2]


def test_an_event_loop_that_ended_meanwhile_breaks_nothing(catalog: Catalog) -> None:
    release = threading.Event()

    async def leave() -> None:
        task = asyncio.ensure_future(catalog.read(lambda _: release.wait(30)))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(leave())
    release.set()
    assert catalog.call(put(1)) == 1


async def test_reads_see_what_was_asked_for_before_and_cannot_write(catalog: Catalog) -> None:
    async with Held(catalog):
        write = asyncio.ensure_future(catalog.write(put(1)))
        await asyncio.sleep(0)
        read = asyncio.ensure_future(catalog.read(ids))
        await asyncio.sleep(0)
    assert await read == [1]
    assert await write == 1
    with pytest.raises(LocalError, match="tried to write"):
        await catalog.read(put(2))
    with pytest.raises(LocalError, match="StopIteration"):
        await catalog.read(lambda _: next(iter(())))
    assert await catalog.write(put(3)) == 3


def test_the_pages_that_were_read_are_given_back(catalog: Catalog) -> None:
    used = ctypes.CDLL(_sqlite3.__file__).sqlite3_memory_used
    used.restype = ctypes.c_int64

    def fill(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE much (bytes BLOB)")
        connection.executemany("INSERT INTO much VALUES (?)", [(bytes(1000),)] * 1000)

    catalog.call(fill)
    before = used()
    catalog.give_back()
    assert used() < before - 500_000
    assert catalog.call(lambda connection: connection.execute("SELECT count(*) FROM much").fetchone()) == (1000,)


def test_a_call_from_inside_a_function_is_refused_instead_of_waiting_for_itself(catalog: Catalog) -> None:
    with pytest.raises(LocalError, match="wait for itself"):
        catalog.call(lambda _: catalog.call(put(1)))


async def test_close_finishes_what_was_asked_for_and_refuses_the_rest(path: str) -> None:
    catalog = Catalog.open(path)
    catalog.migrate("things", STEPS)
    calls = [asyncio.ensure_future(catalog.write(put(n))) for n in range(50)]
    await asyncio.sleep(0)
    catalog.close()
    catalog.close()
    assert await asyncio.gather(*calls) == list(range(50))
    with pytest.raises(Interrupted):
        await catalog.write(put(99))
    with pytest.raises(Interrupted):
        catalog.call(put(99))
    assert not Path(path + "-wal").exists(), "a clean end leaves one file"


def test_the_file_is_private_and_every_commit_reaches_the_disk(catalog: Catalog) -> None:
    assert os.stat(catalog.path).st_mode & 0o777 == 0o600
    assert os.stat(catalog.path + "-wal").st_mode & 0o077 == 0
    assert catalog.call(lambda c: c.execute("PRAGMA journal_mode").fetchone()) == ("wal",)
    assert catalog.call(lambda c: c.execute("PRAGMA synchronous").fetchone()) == (2,)


def test_each_room_has_its_own_steps_and_only_missing_ones_run(path: str) -> None:
    more = (*STEPS, "CREATE TABLE a (x TEXT DEFAULT ';');\nINSERT INTO a VALUES ('1; 2');\n-- last\n")
    applied: list[tuple[str, int]] = []
    for rooms in ({"things": STEPS}, {"things": more, "other": ("CREATE TABLE b (x);",)}, {"things": more}):
        catalog = Catalog.open(path)
        for room, steps in rooms.items():
            catalog.migrate(room, steps)
        applied = catalog.call(
            lambda c: c.execute("SELECT room, step FROM schema_steps ORDER BY room, step").fetchall()
        )
        catalog.close()
    assert applied == [("other", 1), ("things", 1), ("things", 2)]


def test_a_step_that_fails_leaves_the_version_before(catalog: Catalog) -> None:
    with pytest.raises(sqlite3.OperationalError):
        catalog.migrate("things", (*STEPS, "CREATE TABLE fine (x);", "CREATE TABLE broken (;"))
    catalog.migrate("things", (*STEPS, "CREATE TABLE fine (x);"))
    assert catalog.call(lambda c: c.execute("SELECT count(*) FROM fine").fetchone()) == (0,)


def test_a_newer_schema_is_refused_with_both_versions(catalog: Catalog) -> None:
    catalog.migrate("things", (*STEPS, "CREATE TABLE later (x);"))
    with pytest.raises(Unsupported, match="version 2 of its things tables, this modeld knows 1") as refusal:
        catalog.migrate("things", STEPS)
    assert refusal.value.details == {"room": "things", "found": 2, "known": 1}
    assert refusal.value.hint


def test_a_mistake_in_a_statement_stays_what_it_is(catalog: Catalog) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        catalog.call(lambda c: c.execute("SELECT * FROM nowhere"))
    with pytest.raises(sqlite3.ProgrammingError):
        catalog.call(lambda c: c.execute("SELECT ?", ()))
    assert catalog.call(put(1)) == 1


WRITER = """
import asyncio, os, sys
from modeld.store.catalog.catalog import Catalog

async def main():
    catalog = Catalog.open(sys.argv[1])
    catalog.migrate("things", ("CREATE TABLE things (id INTEGER PRIMARY KEY, text TEXT);",))
    async def work(start):
        for number in range(start, 10**9, 8):
            await catalog.write(lambda c: c.execute("INSERT INTO things VALUES (?, 'x')", (number,)))
            os.write(1, b"%d\\n" % number)
    await asyncio.gather(*(work(start) for start in range(int(sys.argv[2]), int(sys.argv[2]) + 8)))

asyncio.run(main())
"""


def test_everything_acknowledged_is_there_after_a_kill_in_the_middle(path: str) -> None:
    acknowledged: set[int] = set()
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    for round_, enough in enumerate((1, 40, 300, 900)):
        start = round_ * 10_000_000
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, path, str(start)], stdout=subprocess.PIPE, env=environment
        )
        assert child.stdout is not None
        received = b""
        deadline = time.monotonic() + 60
        while received.count(b"\n") < enough:
            ready, _, _ = select.select([child.stdout], [], [], max(0, deadline - time.monotonic()))
            assert ready, "the child stopped acknowledging"
            chunk = os.read(child.stdout.fileno(), 65536)
            assert chunk, "the child ended by itself"
            received += chunk
        child.send_signal(signal.SIGKILL)
        rest, _ = child.communicate(timeout=30)
        *lines, _torn = (received + rest).split(b"\n")
        acknowledged.update(int(line) for line in lines)
        catalog = Catalog.open(path)
        assert catalog.set_aside is None
        present = set(catalog.call(ids))
        catalog.close()
        assert acknowledged <= present
