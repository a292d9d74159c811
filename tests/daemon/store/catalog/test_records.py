"""What was verified when: trusted while it matches, worth nothing but time when it is lost."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modeld.store.blobs.blobs import Blob
from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.records import KEPT_SOURCES, SAME_SIZE, Records
from modeld.store.digest import Digest, Relinked, Signature

DIGEST = Digest("ab" * 32)
LONG_AGO = time.time_ns() - 3600 * 10**9
SIGNATURE = Signature(2**64 - 1, 2**64 - 1, 5, LONG_AGO, LONG_AGO)
SOURCE = Signature(1, 2, 5, LONG_AGO, LONG_AGO)
BLOB = Blob(DIGEST, 5, "/path", SIGNATURE)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog.open(str(tmp_path / "catalog.sqlite"))
    yield catalog
    catalog.close()


async def verified_as(records: Records) -> Signature | None:
    return (await records.verified_signatures([DIGEST])).get(DIGEST)


async def digest_of_source(records: Records, source: Signature) -> Digest | None:
    return (await records.digests_of_sources([source])).get(source)


async def test_a_verification_outlives_the_process(catalog: Catalog) -> None:
    await Records(catalog).record_good([(BLOB, SOURCE)])
    records = Records(catalog)
    assert await verified_as(records) == SIGNATURE
    assert await digest_of_source(records, SOURCE) == DIGEST
    assert await records.digests_of_size(5) == [DIGEST]
    assert await records.digests_of_size(6) == []


async def test_the_newest_signature_counts(catalog: Catalog) -> None:
    records, newer = Records(catalog), replace(SIGNATURE, ctime_ns=LONG_AGO + 1)
    await records.record_good([(BLOB, None)])
    await records.record_good([(replace(BLOB, signature=newer), None)])
    assert await verified_as(records) == newer
    assert await verified_as(Records(catalog)) == newer


async def test_what_is_gone_is_not_trusted(catalog: Catalog) -> None:
    records = Records(catalog)
    await records.record_good([(BLOB, None)])
    await records.forget(DIGEST)
    assert await verified_as(records) is None
    assert await verified_as(Records(catalog)) is None


async def test_a_source_written_a_moment_ago_is_not_remembered(catalog: Catalog) -> None:
    records, fresh = Records(catalog), replace(SOURCE, mtime_ns=time.time_ns())
    await records.record_good([(BLOB, fresh)])
    await records.record_source(fresh, DIGEST)
    assert await digest_of_source(records, fresh) is None


async def test_a_source_that_was_something_else_is_remembered_as_that(catalog: Catalog) -> None:
    await Records(catalog).record_source(SOURCE, DIGEST)
    assert await digest_of_source(Records(catalog), SOURCE) == DIGEST
    assert await digest_of_source(Records(catalog), replace(SOURCE, mtime_ns=LONG_AGO + 1)) is None


async def test_sources_do_not_pile_up(catalog: Catalog) -> None:
    records = Records(catalog)
    await records.record_source(SOURCE, DIGEST)
    await catalog.write(lambda db: db.execute("UPDATE sqlite_sequence SET seq = ?", (KEPT_SOURCES,)))
    later = replace(SOURCE, inode=3)
    await records.record_source(later, DIGEST)
    assert await digest_of_source(records, SOURCE) is None
    assert await digest_of_source(records, later) == DIGEST


async def test_only_so_many_blobs_of_one_size_are_worth_a_look(catalog: Catalog) -> None:
    records = Records(catalog)
    for number in range(SAME_SIZE + 2):
        await records.record_good([(replace(BLOB, digest=Digest(f"{number:064x}")), None)])
    assert len(await records.digests_of_size(5)) == SAME_SIZE


async def test_without_a_catalogue_the_process_remembers(catalog: Catalog) -> None:
    records = Records(None)
    await records.record_good([(BLOB, SOURCE)])
    assert await verified_as(records) == SIGNATURE
    assert await digest_of_source(records, SOURCE) is None
    assert await records.digests_of_size(5) == []
    await records.forget(DIGEST)
    assert await verified_as(records) is None


async def test_a_catalogue_that_fails_costs_time_and_nothing_else(catalog: Catalog) -> None:
    records = Records(catalog)
    catalog.close()
    await records.record_good([(BLOB, SOURCE)])
    assert await verified_as(records) == SIGNATURE
    assert await digest_of_source(records, SOURCE) is None


# -- what looks at blobs compare with

CHANGED = replace(SIGNATURE, ctime_ns=LONG_AGO + 1)
OTHER_DEVICE = replace(SIGNATURE, device=3)


async def test_a_recorded_blob_is_compared_with_its_record(catalog: Catalog) -> None:
    await Records(catalog).record_good([(BLOB, None)])
    for now, proven in ((SIGNATURE, True), (OTHER_DEVICE, True), (CHANGED, False)):
        records = Records(catalog)
        assert records.proof(DIGEST) is None
        assert records.known(DIGEST, now).is_unchanged(now) == proven
        assert (records.proof(DIGEST) == now) == proven
        assert records.known(DIGEST, SIGNATURE).is_unchanged(SIGNATURE), "the record stays what it is"


async def test_an_unrecorded_blob_is_compared_with_its_first_look(catalog: Catalog) -> None:
    records = Records(catalog)
    assert records.known(DIGEST, SIGNATURE) == SIGNATURE
    assert records.known(DIGEST, CHANGED) == SIGNATURE
    assert records.proof(DIGEST) is None
    await records.record_verified([replace(BLOB, signature=CHANGED)])
    assert records.known(DIGEST, SIGNATURE) == CHANGED
    await records.forget(DIGEST)
    assert records.known(DIGEST, SIGNATURE) == SIGNATURE


async def test_many_first_looks_ask_the_catalogue_once(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    await Records(catalog).record_good([(BLOB, None)])
    records, asked = Records(catalog), list[object]()
    look = catalog.look

    def counted(function: Callable[[sqlite3.Connection], Any]) -> Any:
        asked.append(function)
        return look(function)

    monkeypatch.setattr(catalog, "look", counted)
    some = [DIGEST, *(Digest(f"{number:064x}") for number in range(100))]
    records.load(some)
    records.load(some)
    for digest in some:
        records.known(digest, CHANGED)
    assert len(asked) == 1
    assert records.known(DIGEST, CHANGED) == SIGNATURE


async def test_without_an_answer_of_the_catalogue_the_first_look_counts(catalog: Catalog) -> None:
    await Records(catalog).record_good([(BLOB, None)])
    records = Records(catalog)
    catalog.close()
    assert records.known(DIGEST, CHANGED) == CHANGED
    assert records.known(DIGEST, SIGNATURE) == CHANGED


async def test_links_of_the_store_move_what_is_compared(catalog: Catalog) -> None:
    """Of a verified blob and of one that is only seen; the row of the first may have another number of the device."""
    seen = Digest("cd" * 32)
    await Records(catalog).record_good([(BLOB, None)])
    records = Records(catalog)
    after = replace(CHANGED, device=3)
    for digest, before in ((DIGEST, OTHER_DEVICE), (seen, SOURCE)):
        records.known(digest, before)
        await records.record_relinked([Relinked(before, replace(before, ctime_ns=LONG_AGO + 1))])
    assert records.known(DIGEST, SIGNATURE) == after
    assert records.known(seen, SIGNATURE) == replace(SOURCE, ctime_ns=LONG_AGO + 1)
    assert records.proof(seen) is None
    assert await verified_as(Records(catalog)) == after
    records.relinked(seen, SOURCE, CHANGED)
    assert records.known(seen, SIGNATURE) != CHANGED, "it was known by another signature"
