"""What was found in blobs: the reasons that models report, and the outcomes that are kept."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modeld.store.catalog.catalog import Catalog
from modeld.store.catalog.history import SHOWN, THE_DAEMON, Condemned, History, Outcome, Requester, added_from
from modeld.store.digest import Digest
from modeld.store.names import ModelName

BAD, GOOD = Digest("ab" * 32), Digest("cd" * 32)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog.open(str(tmp_path / "catalog.sqlite"))
    yield opened
    opened.close()


async def test_why_a_blob_is_bad_outlives_the_loss_of_the_catalogues_log(catalog: Catalog) -> None:
    history = History(catalog)
    await history.condemn(GOOD, Condemned("it was bad", None))
    await history.condemn(BAD, Condemned("it has another digest", "/quarantine/1.bin"))
    await history.clear_condemned([GOOD])
    os.truncate(catalog.path + "-wal", 0)
    await history.clear_condemned([GOOD])
    again = History(catalog)
    assert again.why(BAD) == Condemned("it has another digest", "/quarantine/1.bin")
    assert again.why(GOOD) is None


async def verified(history: History, digest: Digest, times: int = 1, outcome: str = "verified") -> None:
    for _ in range(times):
        await history.record([Outcome(digest=digest, outcome=outcome, actual=digest)])


async def outcomes(catalog: Catalog) -> dict[str, int]:
    rows = await catalog.read(lambda db: db.execute("SELECT digest, count(*) FROM outcomes GROUP BY digest").fetchall())
    return dict(rows)


async def test_the_history_of_blobs_that_no_model_names_is_forgotten_in_the_end(catalog: Catalog) -> None:
    history = History(catalog)
    await verified(history, GOOD)
    await verified(history, BAD)
    await history.condemn(BAD, Condemned("it was bad"))
    await history.prune(time.time() - 60, {GOOD.hex}, ())
    assert await outcomes(catalog) == {GOOD.hex: 1, BAD.hex: 1}, "not before its time"
    assert history.why(BAD) is not None
    await history.prune(time.time() + 60, {GOOD.hex}, ())
    assert await outcomes(catalog) == {GOOD.hex: 1}
    assert history.why(BAD) is None
    assert History(catalog).why(BAD) is None


async def test_why_a_blob_is_bad_stays_known_as_long_as_a_model_names_it(catalog: Catalog) -> None:
    history = History(catalog)
    await history.condemn(BAD, Condemned("it was bad"))
    await history.prune(time.time() + 60, {BAD.hex}, ())
    assert history.why(BAD) is not None


async def test_what_was_refused_for_a_name_goes_with_the_name(catalog: Catalog) -> None:
    history, there, gone = History(catalog), ModelName.parse("There"), ModelName.parse("gone")
    for name in (there, gone):
        await history.record_refused(name, BAD, GOOD, "/source", THE_DAEMON)
    await history.prune(time.time() + 60, (), {there.key})
    assert len(await history.of([], there)) == 1
    assert await history.of([], gone) == ()


async def test_of_many_verifications_the_newest_stay_and_so_does_where_bytes_came_from(catalog: Catalog) -> None:
    history = History(catalog)
    await verified(history, GOOD, 3, "added")
    await verified(history, GOOD, SHOWN + 20)
    await verified(history, BAD, 2)
    shown = await history.of([GOOD], ModelName.parse("m"))
    await history.prune(0.0, {GOOD.hex, BAD.hex}, ())
    assert await outcomes(catalog) == {GOOD.hex: SHOWN + 3, BAD.hex: 2}
    assert await history.of([GOOD], ModelName.parse("m")) == shown, "what an answer shows is not touched"


async def test_an_answer_has_the_newest_or_as_many_as_it_is_asked_for(catalog: Catalog) -> None:
    history, name = History(catalog), ModelName.parse("m")
    await history.record([added_from("here", GOOD)])
    await verified(history, GOOD, SHOWN)
    assert {each.outcome for each in await history.of([GOOD], name)} == {"verified"}
    chain = await history.of([GOOD], name, SHOWN + 1)
    assert [each.outcome for each in chain] == ["added", *["verified"] * SHOWN]


async def test_a_job_has_one_outcome_of_what_it_ensured(catalog: Catalog) -> None:
    history, job = History(catalog), Requester(peer=1, job="j")
    one, other = ModelName.parse("one"), ModelName.parse("other")
    first = Outcome(digest=GOOD, outcome="match", actual=GOOD, model=one, details={"id": "r", "first": True})
    await verified(history, GOOD)
    await history.record_ensured(first, Requester(peer=1, job="another"))
    await history.record_ensured(first, job)
    await history.record_ensured(Outcome(digest=GOOD, outcome="match", actual=GOOD, model=one), job)
    assert [each.details for each in await history.of((), one) if each.job == "j"] == [{"id": "r", "first": True}]
    await history.record_ensured(Outcome(digest=GOOD, outcome="match", actual=GOOD, model=other), job)
    assert [each.job for each in await history.of((), one)] == ["another"]
    assert [each.job for each in await history.of((), other)] == ["j"]
    await history.forget_ensured(job)
    assert await history.of((), other) == ()
    assert [each.outcome for each in await history.of([GOOD], one)] == ["verified", "match"]


async def test_what_was_refused_before_there_was_a_model_is_in_the_history_of_none(catalog: Catalog) -> None:
    history = History(catalog)
    await history.record_ensured(Outcome(digest=BAD, outcome="mismatch", actual=GOOD, of_no_model=True), THE_DAEMON)
    assert await history.of([BAD, GOOD], ModelName.parse("m")) == ()
    assert await outcomes(catalog) == {BAD.hex: 1}
    await history.prune(time.time() + 60, {BAD.hex, GOOD.hex}, {"m"})
    assert await outcomes(catalog) == {}
