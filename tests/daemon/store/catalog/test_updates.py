"""The outcomes of update commands: on a full disk, and whatever the clock says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.updates import Updates
from modelwire.errors import NoSpace
from modelwire.values import Updated, UpdateOutcome


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    made = Catalog.open(str(tmp_path / "catalog.sqlite"))
    yield made
    made.close()


def outcome(id_: str, ended: UpdateOutcome = "failed", *, job: str | None = None) -> Updated:
    at = "2026-01-31T12:00:00Z"
    blob = "sha256:" + "0" * 64 if ended == "applied" else None
    return Updated(command_id=id_, outcome=ended, node="n", name="m", version="m-1", at=at, job=job, blob=blob)


def fill(catalog: Catalog) -> None:
    """SQLite takes no further page, as on a full disk."""
    pages = catalog.call(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
    catalog.call(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchone())
    with suppress(NoSpace):
        for _ in range(10_000):
            catalog.call(lambda db: db.execute("INSERT INTO filling VALUES (zeroblob(300))"))
        pytest.fail("it takes everything")


def empty(catalog: Catalog) -> None:
    catalog.call(lambda db: db.execute("PRAGMA max_page_count = 100000").fetchone())


@pytest.fixture
def full(catalog: Catalog) -> Updates:
    catalog.call(lambda db: db.execute("CREATE TABLE filling (bytes BLOB)"))
    updates = Updates(catalog)
    fill(catalog)
    return updates


async def stored(catalog: Catalog) -> list[str]:
    rows = await catalog.read(lambda db: db.execute("SELECT command_id FROM updates ORDER BY command_id").fetchall())
    return [row[0] for row in rows]


async def test_what_a_full_disk_does_not_take_is_known_and_written_later(catalog: Catalog, full: Updates) -> None:
    for number in range(20):
        await full.record("content", outcome(f"recorded-{number}"))
        full.note("content", outcome(f"noted-{number}"))
    assert len(await stored(catalog)) < 40
    for each in ("recorded-19", "noted-19"):
        known = await full.of(each)
        assert known is not None
        assert known.outcome.outcome == "failed"
    empty(catalog)
    await full.write_late()
    assert len(await stored(catalog)) == 40
    assert not full._late


async def test_commands_that_do_nothing_take_no_memory_on_a_full_disk(catalog: Catalog, full: Updates) -> None:
    """Anybody can send any number of them, and each is judged again."""
    for number in range(2000):
        await full.record("content", outcome(f"not-{number}", "not_targeted"))
    assert not full._late


async def test_a_later_job_is_later_also_when_the_clock_is_set_back(catalog: Catalog) -> None:
    updates = Updates(catalog)
    await updates.record("content", outcome("first", "applied", job="02"))
    assert await updates.later("m", "03") is None
    found = await updates.later("m", "01")
    assert found is not None
    assert found.command_id == "first"
    assert await updates.later("other", "01") is None
