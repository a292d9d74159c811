"""The ledger gives back what was written, in the order that each question asks for."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from modeld.jobs.ids import Ids
from modeld.jobs.ledger import KEPT_BYTES, SCHEMA, JobRecord, Ledger, TokenTaken
from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.write_ahead_log import WriteAheadLog
from modelwire.errors import AlreadyExists, NotFound

DAY = 24 * 3600.0


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog.open(str(tmp_path / "catalog.sqlite"))
    yield opened
    opened.close()


@pytest.fixture
def ledger(catalog: Catalog) -> Ledger:
    return Ledger(catalog)


ids = Ids()


def job(**fields: object) -> JobRecord:
    row = JobRecord(
        id=ids.new(),
        kind="model.add",
        key="llama",
        peer_uid=1000,
        priority=3,
        order=1,
        state="queued",
        request=b'{"path":"/x"}',
        on_disconnect="cancel",
        created_at=1763629200.25,
    )
    return msgspec.structs.replace(row, **fields)


async def test_a_record_comes_back_as_it_was(ledger: Ledger) -> None:
    full = job(token="t", model="llama:8b", started_at=1.5, ended_at=2.5, attempts=3, result=b"{}", error=b"[]")
    bare = job()
    await ledger.insert(full)
    await ledger.insert(bare)
    assert await ledger.get(full.id) == full
    assert await ledger.get(bare.id) == bare
    assert await ledger.get("0" * 26) is None


async def test_an_update_changes_only_what_it_names(ledger: Ledger) -> None:
    row = job()
    await ledger.insert(row)
    changed = await ledger.update(row.id, state="running", started_at=9.0, attempts=1)
    assert changed == msgspec.structs.replace(row, state="running", started_at=9.0, attempts=1)
    assert await ledger.get(row.id) == changed
    assert await ledger.update(row.id) == changed
    with pytest.raises(NotFound, match="no job"):
        await ledger.update("0" * 26, state="done")
    for column in ("id", "token", "key", "state = 'done' --"):
        with pytest.raises(TypeError, match="do not change"):
            await ledger.update(row.id, **{column: "x"})


async def test_open_jobs_come_in_the_order_of_admission(ledger: Ledger) -> None:
    states = {5: "queued", 2: "running", 9: "paused", 1: "done", 3: "failed", 4: "cancelled"}
    for order, state in states.items():
        await ledger.insert(job(order=order, state=state))
    assert [row.order for row in await ledger.open_jobs()] == [2, 5, 9]
    assert ledger.next_order_now() == 10


async def test_recent_is_newest_first_and_can_ask_for_one_state(ledger: Ledger) -> None:
    rows = [job(state=state) for state in ("done", "failed", "done", "queued")]
    for row in rows:
        await ledger.insert(row)
    newest = [row.id for row in reversed(rows)]
    assert [row.id for row in await ledger.recent(10)] == newest
    assert [row.id for row in await ledger.recent(2)] == newest[:2]
    assert [row.id for row in await ledger.recent(10, "done")] == [rows[2].id, rows[0].id]


async def test_a_token_gives_its_peer_the_same_job_and_nobody_else(ledger: Ledger) -> None:
    first = job(token="same")
    await ledger.insert(first)
    with pytest.raises(TokenTaken, match=first.id) as taken:
        await ledger.insert(job(token="same"))
    assert isinstance(taken.value, AlreadyExists)
    assert taken.value.details == {"job": first.id}
    await ledger.insert(job(token="same", peer_uid=1001))
    await ledger.insert(job())
    await ledger.insert(job())
    assert await ledger.by_token(1000, "same") == first
    assert await ledger.by_token(1002, "same") is None
    with pytest.raises(sqlite3.IntegrityError):
        await ledger.insert(first.__class__(**{**msgspec.structs.asdict(first), "token": None}))


async def test_prune_forgets_old_finished_jobs_only(ledger: Ledger) -> None:
    now = 100 * DAY
    old, fresh = now - 31 * DAY, now - 29 * DAY
    kept = [job(state="done", ended_at=fresh), job(created_at=old), job(state="paused", created_at=old, ended_at=old)]
    for row in (*kept, job(state="done", ended_at=old), job(state="cancelled", ended_at=old)):
        await ledger.insert(row)
    assert await ledger.prune(now) == 2
    assert {row.id for row in await ledger.recent(10)} == {row.id for row in kept}
    assert await ledger.prune(now, keep=DAY) == 1


async def test_a_user_has_so_many_ended_jobs_and_the_oldest_go(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a user who submits in a loop fills the disk with records, which stay for a month."""
    monkeypatch.setattr("modeld.jobs.ledger.ENDED_OF_EACH", 3)
    monkeypatch.setattr("modeld.jobs.ledger.LOOK_EVERY", 4)
    others = job(peer_uid=1001, state="done", ended_at=1.0)
    open_, paused = job(), job(state="paused", ended_at=1.0)
    ended = [job(state="done", token=f"t{moment}", ended_at=float(moment)) for moment in range(2, 12)]
    for row in (others, open_, paused, *ended):
        await ledger.insert(row)
    kept = {row.id for row in await ledger.recent(20)}
    assert kept == {row.id for row in (others, open_, paused, *ended[-3:])}
    assert await ledger.by_token(1000, "t2") is None
    assert await ledger.by_token(1000, "t11") == ended[-1]


def test_the_next_order_needs_no_event_loop(catalog: Catalog) -> None:
    assert Ledger(catalog).next_order_now() == 1
    asyncio.run(Ledger(catalog).insert(job(order=41, state="failed")))
    assert Ledger(catalog).next_order_now() == 42


async def test_a_catalogue_with_the_column_peer_pid_is_read_and_takes_new_rows(catalog: Catalog) -> None:
    """Ledgers had that column, and filled it with nothing."""
    before = [SCHEMA[0].replace("priority INTEGER", "peer_pid INTEGER, priority INTEGER"), *SCHEMA[1:]]
    catalog.migrate("jobs", before)
    old = job(token="old")
    names = old.__struct_fields__
    statement = f"""INSERT INTO jobs ("{'", "'.join(names)}", peer_pid) VALUES ({"?, " * len(names)}NULL)"""
    await catalog.write(lambda connection: connection.execute(statement, msgspec.structs.astuple(old)).rowcount)
    ledger, new = Ledger(catalog), job(token="new", order=2)
    await ledger.insert(new)
    assert await ledger.open_jobs() == [old, new]
    assert await ledger.update(old.id, state="running") == msgspec.structs.replace(old, state="running")
    assert await ledger.by_token(1000, "old") == msgspec.structs.replace(old, state="running")


async def test_the_column_peer_pid_is_not_made_anew(catalog: Catalog) -> None:
    Ledger(catalog)
    columns = await catalog.read(lambda connection: connection.execute("PRAGMA table_info(jobs)").fetchall())
    assert "peer_pid" not in {name for _, name, *_ in columns}


async def test_jobs_outlive_the_loss_of_what_was_committed_last(catalog: Catalog, ledger: Ledger) -> None:
    """Open jobs stay open, ended ones do not open again, and their tokens lead to them."""
    rows = [job(token=f"t{number}", order=number) for number in range(4)]
    for row in rows[:2]:
        await ledger.insert(row)
    await catalog.write(lambda db: db.execute("SELECT 1").fetchone())
    checkpointed(catalog)
    for row in rows[2:]:
        await ledger.insert(row)
    await ledger.join(rows[2].id, 1001, "joined")
    await ledger.update(rows[0].id, state="done", ended_at=5.0, result=b"{}")
    await ledger.update(rows[3].id, state="cancelled", ended_at=6.0)
    before = [await ledger.get(row.id) for row in rows]
    os.truncate(catalog.path + "-wal", 0)
    assert [await ledger.get(row.id) for row in rows] == before
    assert [row.id for row in await ledger.open_jobs()] == [rows[1].id, rows[2].id]
    for owner, token, number in ((1000, "t2", 2), (1001, "joined", 2), (1000, "t3", 3)):
        known = await ledger.by_token(owner, token)
        assert known is not None
        assert known.id == rows[number].id


async def test_jobs_of_an_earlier_run_outlive_it_too(catalog: Catalog, ledger: Ledger) -> None:
    row = job()
    await ledger.insert(row)
    later = Ledger(catalog)
    assert await later.open_jobs() == [row]
    os.truncate(catalog.path + "-wal", 0)
    assert await later.open_jobs() == [row]


async def test_a_job_whose_end_is_not_known_any_more_does_not_run_again(
    catalog: Catalog, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modeld.jobs.ledger.KEPT_ENDS", 1)
    first, second = job(), job()
    await ledger.insert(first)
    await ledger.insert(second)
    checkpointed(catalog)
    await ledger.update(first.id, state="done", ended_at=5.0)
    await ledger.update(second.id, state="done", ended_at=6.0)
    os.truncate(catalog.path + "-wal", 0)
    assert await ledger.open_jobs() == []
    lost = await ledger.get(first.id)
    assert lost is not None
    assert lost.state == "failed"
    assert b"lost" in (lost.error or b"")


async def test_memory_of_ended_jobs_is_bounded(catalog: Catalog, ledger: Ledger) -> None:
    for _ in range(5):
        row = job()
        await ledger.insert(row)
        await ledger.update(row.id, state="done", ended_at=5.0, result=b"x" * (KEPT_BYTES // 2))
    assert len(ledger._memory._ended) <= 2


def checkpointed(catalog: Catalog) -> None:
    """What the main file has from here on is all that is left when the log is lost."""
    catalog._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    catalog._log.close()
    catalog._log = WriteAheadLog(catalog.path)


def test_searches_use_an_index(catalog: Catalog) -> None:
    Ledger(catalog)
    for query in (
        "SELECT * FROM jobs WHERE state IN ('queued', 'running', 'paused')",
        "SELECT * FROM jobs WHERE peer_uid = 1 AND token = 'x'",
        "SELECT job FROM joined_tokens WHERE peer_uid = 1 AND token = 'x'",
        "SELECT token FROM joined_tokens WHERE job = 'x'",
        "SELECT * FROM jobs WHERE state = 'done' ORDER BY id DESC LIMIT 5",
        "DELETE FROM jobs WHERE ended_at < 5 AND state IN ('done')",
    ):
        plan = catalog.call(lambda c, q=query: c.execute(f"EXPLAIN QUERY PLAN {q}").fetchall())  # type: ignore[misc]
        assert all("SEARCH" in row[3] for row in plan), (query, plan)
