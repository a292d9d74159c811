"""Ends that the ledger could not take: reported nevertheless, found again, and recorded as soon as possible."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from modeld.jobs.job import AnyJob
from modeld.jobs.restart import drain, restore
from modelwire.errors import Interrupted
from modelwire.values import Added
from rigs.board_rig import STRANGER, Desk, desk, state_at_end
from rigs.waiting import eventually

PUBLISHED = Added(name="llama", blob="sha256:" + "0" * 64, size_bytes=1, format="gguf", path="/x")


async def cancelled_on_a_full_disk(at: Desk, name: str = "llama", **fields: str) -> AnyJob:
    job = await at.job(name, **fields)
    await eventually(lambda: job.attempts)
    at.ledger.full = True
    await at.board.cancel(job, "on request")
    await job.ended.wait()
    at.ledger.full = False
    return job


async def test_the_same_token_again_gets_the_end(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        job = await cancelled_on_a_full_disk(at, token="t")
        again = await at.submit("llama", token="t")
        assert again.job is job
        assert await at.board.find(job.id) is job
        assert await at.board.recent(10, "running") == []
        assert await at.board.recent(10, None) == [job]


async def test_nobody_waits_for_the_end_of_a_job_that_is_not_remembered_any_more(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        job = await cancelled_on_a_full_disk(at)
        at.board.jobs._finished.clear()
        found = await at.board.find(job.id)
        with at.board.attach(found, STRANGER):
            await found.ended.wait()
        assert isinstance(found.failure, Interrupted)


@pytest.mark.parametrize(
    "by",
    ["the next end", "an end that its publication recorded", "a new job", "a token", "a priority", "time", "the stop"],
)
async def test_a_cancelled_job_does_not_run_again_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setattr("modeld.jobs.ledger.LATE_SECONDS", 0.01)
    async with desk(tmp_path, running=2) as at:
        other = await at.job("other")
        job = await cancelled_on_a_full_disk(at)
        match by:
            case "the next end":
                at.finish.set()
                await other.ended.wait()
            case "an end that its publication recorded":
                await at.board.runner.published(other, PUBLISHED)
            case "a new job":
                await at.job("new")
            case "a token":
                await at.job("other", token="t")
            case "a priority":
                await at.board.prioritize(other, 1)
            case "time":
                at.tasks.start_soon(at.ledger.keep)
                await eventually(lambda: not at.ledger.late)
            case "the stop":
                await drain(at.board, 0)
    async with desk(tmp_path) as at:
        await restore(at.board, at.ledger)
        assert job.id not in [job.id for job in at.board.jobs]
        assert (await at.board.find(job.id)).state == "cancelled"


async def test_one_end_that_cannot_be_recorded_any_more_does_not_keep_back_the_others(tmp_path: Path) -> None:
    async with desk(tmp_path, running=2) as at:
        other = await at.job("other")
        gone = await cancelled_on_a_full_disk(at)
        job = await cancelled_on_a_full_disk(at, name="second")
        await at.catalog.write(lambda db: db.execute("DELETE FROM jobs WHERE id = ?", (gone.id,)).rowcount)
        await at.board.prioritize(other, 1)
        row = await at.ledger.get(job.id)
        assert row is not None
        assert row.state == "cancelled"
        assert not at.ledger.late


async def test_a_job_that_an_unforeseen_error_ended_does_not_run_again(tmp_path: Path) -> None:
    """Its followers were told that it failed."""
    async with desk(tmp_path) as at:
        job = await at.job("llama")
        await eventually(lambda: job.attempts)
        at.ledger.broken = True
        at.finish.set()
        await job.ended.wait()
        assert job.failure is not None or job.state == "done"
        at.ledger.broken = False
        told = job.state
        await at.ledger.write_late()
    async with desk(tmp_path) as at:
        assert await restore(at.board, at.ledger) == 0
        assert (await at.board.find(job.id)).state == told


async def test_a_pause_on_a_full_disk_is_recorded_later(tmp_path: Path) -> None:
    async with desk(tmp_path, running=2) as at:
        other, job = await at.job("other"), await at.job("llama")
        at.ledger.full = True
        await at.board.pause(job)
        await eventually(lambda: job.state == "paused")
        at.ledger.full = False
        await at.board.prioritize(other, 1)
    async with desk(tmp_path) as at:
        await restore(at.board, at.ledger)
        assert (await at.board.find(job.id)).state == "paused"


async def test_a_late_pause_does_not_undo_the_resume_that_followed(tmp_path: Path) -> None:
    async with desk(tmp_path, running=2) as at:
        other, job = await at.job("other"), await at.job("llama")
        at.ledger.full = True
        await at.board.pause(job)
        await eventually(lambda: job.state == "paused")
        at.ledger.full = False
        await at.board.resume(job)
        await at.board.prioritize(other, 1)
        row = await at.ledger.get(job.id)
        assert row is not None
        assert row.state == "queued"


async def test_a_stop_on_a_full_disk_ends_nevertheless(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        await cancelled_on_a_full_disk(at)
        at.ledger.full = True
        with anyio.fail_after(10):
            await drain(at.board, 0)


async def test_a_publication_that_a_full_disk_does_not_record_has_taken_place(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        job = await at.job("llama")
        await eventually(lambda: job.attempts)
        at.ledger.full = True
        await at.board.runner.published(job, PUBLISHED)
        at.finish.set()
        assert await state_at_end(job) == "done"
        at.ledger.full = False
        await at.ledger.write_late()
        row = await at.ledger.get(job.id)
        assert row is not None
        assert (row.state, row.error) == ("done", None)
