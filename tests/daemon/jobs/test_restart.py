"""Open jobs of a ledger that is of the past, and of one that is not: which of them run."""

from __future__ import annotations

from pathlib import Path

import pytest

from modeld.jobs import record
from modeld.jobs.ids import Ids
from modeld.jobs.job import AnyJob
from modeld.jobs.restart import restore
from modelwire.errors import Interrupted
from modelwire.values import Added
from rigs.board_rig import Desk, desk, state_at_end
from rigs.waiting import eventually

OLD, NEW, NEWER = "sha256:" + "a" * 64, "sha256:" + "b" * 64, "sha256:" + "c" * 64


async def accepted(tmp_path: Path, *, replace: bool = True, paused: bool = False) -> str:
    """A job of an earlier run that did not begin, accepted when the name stood for OLD."""
    async with desk(tmp_path) as at:
        at.work.content["m"] = OLD
        await at.job("runs")
        job = await at.job("m", replace=replace)
        if paused:
            await at.board.pause(job)
        return job.id


async def restored(at: Desk, job: str, now: str | None) -> AnyJob:
    if now is not None:
        at.work.content["m"] = now
    await restore(at.board, at.ledger)
    return await at.board.find(job)


@pytest.mark.parametrize("paused", [False, True])
async def test_a_job_does_not_replace_content_that_came_after_its_catalogue(tmp_path: Path, paused: bool) -> None:
    waiting = await accepted(tmp_path, paused=paused)
    async with desk(tmp_path) as at:
        job = await restored(at, waiting, NEW)
        assert (job.state, job.attempts) == ("failed", 0)
        assert isinstance(job.failure, Interrupted)
        assert "'m' stood for other content" in job.failure.message
        assert not job.failure.retryable
        row = await at.ledger.get(waiting)
        assert row is not None
        assert row.state == "failed"
        assert at.diary.ends_of(job) == ["job.failed"]


@pytest.mark.parametrize(("replace", "now"), [(True, OLD), (True, None), (False, NEW)])
async def test_a_job_whose_content_is_as_it_was_goes_on(tmp_path: Path, replace: bool, now: str | None) -> None:
    """Also when the name stands for nothing now, or when the job takes nothing away."""
    waiting = await accepted(tmp_path, replace=replace)
    async with desk(tmp_path) as at:
        at.finish.set()
        assert await state_at_end(await restored(at, waiting, now)) == "done"


async def test_a_job_goes_on_over_what_jobs_of_the_same_ledger_have_made(tmp_path: Path) -> None:
    """Of two replacements that were accepted one after the other, the first took place before the kill."""
    async with desk(tmp_path) as at:
        at.work.content["m"] = OLD
        first = await at.job("m", replace=True)
        second = await at.job("m", uid=2000, replace=True)
        made = Added(name="m", blob=NEW, size_bytes=1, format="gguf", path="/x")
        await at.board.runner.published(first, made)
    async with desk(tmp_path) as at:
        at.finish.set()
        assert await state_at_end(await restored(at, second.id, NEW)) == "done"
    async with desk(tmp_path) as at:
        assert (await restored(at, first.id, NEWER)).state == "done"


async def test_a_job_of_a_ledger_that_did_not_record_the_content_proves_nothing(tmp_path: Path) -> None:
    waiting = await accepted(tmp_path)
    async with desk(tmp_path) as at:
        await at.catalog.write(lambda db: db.execute("UPDATE jobs SET accepted_for = NULL").rowcount)
        assert (await restored(at, waiting, OLD)).state == "failed"


async def test_a_job_that_such_a_ledger_has_announced_goes_on(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        job = await at.job("m", replace=True)
        made = Added(name="m", blob=NEW, size_bytes=1, format="gguf", path="/x")
        await at.board.runner.about_to_publish(job, made)
        await at.catalog.write(lambda db: db.execute("UPDATE jobs SET accepted_for = NULL").rowcount)
    async with desk(tmp_path) as at:
        at.finish.set()
        assert await state_at_end(await restored(at, job.id, OLD)) == "done"


async def test_a_job_goes_on_over_what_it_has_made_itself(tmp_path: Path) -> None:
    """A move whose source is still to be removed: its content is there, and the job is not done."""
    async with desk(tmp_path) as at:
        at.work.content["m"] = OLD
        job = await at.job("m", replace=True)
        made = Added(name="m", blob=NEW, size_bytes=1, format="gguf", path="/x")
        await at.board.runner.about_to_publish(job, made)
    async with desk(tmp_path) as at:
        at.finish.set()
        assert await state_at_end(await restored(at, job.id, NEW)) == "done"


async def test_jobs_are_judged_before_any_of_them_runs(tmp_path: Path) -> None:
    async with desk(tmp_path, running=2) as at:
        at.work.content["m"] = OLD
        jobs = [await at.job("m", uid=uid, replace=True) for uid in (1000, 2000)]
    async with desk(tmp_path, running=2) as at:
        at.finish.set()
        at.work.makes = NEW
        at.work.content["m"] = OLD
        assert await restore(at.board, at.ledger) == 2
        for job in jobs:
            assert await state_at_end(await at.board.find(job.id)) == "done"


async def test_jobs_stay_in_their_order_when_the_clock_is_set_back_between_two_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(tmp_path) as at:
        ahead = "7" + (await at.job("first")).id[1:]
        await at.catalog.write(lambda db: db.execute("UPDATE jobs SET id = ?", (ahead,)).rowcount)
    monkeypatch.setattr("modeld.jobs.board.new_id", (ids := Ids()).new)
    monkeypatch.setattr("modeld.jobs.restart.go_on_after", ids.go_on_after)
    async with desk(tmp_path) as at:
        await restore(at.board, at.ledger)
        second, third = await at.job("second"), await at.job("third")
        assert [job.id for job in await at.board.recent(10, None)] == [third.id, second.id, ahead]


async def test_how_long_a_job_worked_is_no_question_of_the_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(tmp_path) as at:
        job = await at.job("m")
        await eventually(lambda: job.attempts)
        monkeypatch.setattr("modeld.jobs.runner.time.time", lambda: 5.0)
        at.finish.set()
        await job.ended.wait()
        monkeypatch.undo()
        assert job.ended_at == 5.0
        assert 0 <= record.end_fields(job)["seconds"] < 60
