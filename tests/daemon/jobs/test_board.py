"""The board: who shares a job, who may end it, and what happens when two things are asked of it at once."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from modeld.jobs.ledger import JobRecord
from modeld.jobs.restart import restore
from modelwire.errors import NoSpace, PermissionDenied, WireError
from modelwire.values import Added
from rigs.board_rig import STRANGER, UID, desk, state_at_end
from rigs.waiting import eventually

PUBLISHED = Added(name="llama", blob="sha256:" + "0" * 64, size_bytes=1, format="gguf", path="/x")


async def test_a_request_never_joins_a_job_that_is_being_cancelled(tmp_path: Path) -> None:
    """Ctrl-C and the same command again: the second is not reported as cancelled."""
    async with desk(tmp_path, running=2) as at:
        first = await at.submit("llama")
        await eventually(lambda: first.job.attempts)
        await at.board.cancel(first.job, "on request")
        assert not first.job.ended.is_set()
        second = await at.submit("llama")
        assert second.job is not first.job
        assert not second.joined
        at.finish.set()
        await second.job.ended.wait()
        await first.job.ended.wait()
        assert (first.job.state, second.job.state) == ("cancelled", "done")


async def test_a_token_stays_with_its_job_also_when_that_is_being_cancelled(tmp_path: Path) -> None:
    async with desk(tmp_path, running=2) as at:
        first = await at.submit("llama", token="t")
        await at.board.cancel(first.job, "on request")
        second = await at.submit("llama", token="t")
        assert second.job is first.job


async def test_a_job_is_joined_by_its_work_and_its_askers_hold_it(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        first = await at.submit("llama")
        second = await at.submit("llama")
        assert second.job is first.job
        assert (first.joined, second.joined) == (False, True)
        first.leave()
        await eventually(lambda: first.job.attempts)
        assert first.job.state == "running"
        second.leave()
        assert await state_at_end(first.job) == "cancelled"


async def test_the_wish_to_continue_of_one_asker_counts_for_all(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        first = await at.submit("llama")
        second = await at.submit("llama", on_disconnect="continue")
        first.leave()
        second.leave()
        at.finish.set()
        await first.job.ended.wait()
        assert first.job.state == "done"
        row = await at.ledger.get(first.job.id)
        assert row is not None
        assert row.on_disconnect == "continue"


async def test_who_only_looks_neither_holds_a_job_nor_ends_it(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        asker = await at.submit("llama")
        looker = at.board.attach(asker.job, STRANGER)
        looker.leave()
        assert at.board.jobs.live(asker.job.id) is asker.job
        looker = at.board.attach(asker.job, STRANGER)
        asker.leave()
        await asker.job.ended.wait()
        assert asker.job.state == "cancelled"
        looker.leave()


async def test_a_restored_job_is_not_ended_by_a_stranger_who_looked(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        waiting = (await at.submit("llama")).job.id
    async with desk(tmp_path) as at:
        assert await restore(at.board, at.ledger) == 1
        job = await at.board.find(waiting)
        at.board.attach(job, STRANGER).leave()
        await anyio.lowlevel.checkpoint()
        at.finish.set()
        assert await state_at_end(job) == "done"


async def test_a_job_that_runs_unattended_is_not_ended_by_its_owner_who_looked(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        waiting = (await at.submit("llama")).job.id
    async with desk(tmp_path) as at:
        assert await restore(at.board, at.ledger) == 1
        job = await at.board.find(waiting)
        at.board.attach(job, UID).leave()
        await anyio.lowlevel.checkpoint()
        at.finish.set()
        assert await state_at_end(job) == "done"


async def test_its_owner_who_looks_holds_a_job_and_ends_none_by_leaving(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        asker = await at.submit("llama")
        looker = at.board.attach(asker.job, UID)
        asker.leave()
        await eventually(lambda: asker.job.attempts)
        looker.leave()
        await anyio.lowlevel.checkpoint()
        assert asker.job.state == "running"
        at.board.attach(asker.job, UID).leave()
        again = await at.submit("llama")
        assert again.job is asker.job
        again.leave()
        assert await state_at_end(asker.job) == "cancelled", "who asked again ends it by leaving"


async def test_a_job_that_is_told_to_go_on_outlives_its_asker(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        asker = await at.submit("llama")
        await at.board.set_on_disconnect(asker.job, "continue")
        asker.leave()
        await anyio.lowlevel.checkpoint()
        at.finish.set()
        assert await state_at_end(asker.job) == "done"
        row = await at.ledger.get(asker.job.id)
        assert row is not None
        assert row.on_disconnect == "continue"


async def test_a_start_outlives_a_publication_that_cannot_be_looked_at(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        job = (await at.submit("llama", on_disconnect="continue")).job
        await at.board.runner.about_to_publish(job, PUBLISHED)
    async with desk(tmp_path) as at:
        at.work.unreadable = PermissionDenied("one manifest cannot be read")
        assert await restore(at.board, at.ledger) == 1
        at.finish.set()
        assert await state_at_end(await at.board.find(job.id)) == "done", "the work has the last word"


async def test_two_cancels_at_once_are_one_end(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        await at.submit("runs")
        job = await at.job("waits")
        at.ledger.gate = anyio.Event()
        async with anyio.create_task_group() as both:
            both.start_soon(at.board.cancel, job, "by one")
            both.start_soon(at.board.cancel, job, "by another")
            await eventually(lambda: at.ledger.waiting)
            at.ledger.gate.set()
        assert job.ended.is_set()
        assert at.diary.ends_of(job) == ["job.cancelled"]


@pytest.mark.parametrize("what", ["pause", "resume", "prioritize"])
async def test_a_control_that_comes_during_an_end_changes_nothing(tmp_path: Path, what: str) -> None:
    async with desk(tmp_path) as at:
        await at.submit("runs")
        job = await at.job("waits")
        at.ledger.gate = anyio.Event()
        async with anyio.create_task_group() as both:
            both.start_soon(at.board.cancel, job, "first")
            await eventually(lambda: at.ledger.waiting)
            if what == "prioritize":
                both.start_soon(at.board.prioritize, job, 1)
            else:
                both.start_soon(at.board.pause if what == "pause" else at.board.resume, job)
            await anyio.lowlevel.checkpoint()
            at.ledger.gate.set()
        row = await at.ledger.get(job.id)
        assert row is not None
        assert (job.state, row.state) == ("cancelled", "cancelled")
        assert job.id not in at.gate


async def test_a_cancel_that_comes_during_a_resume_leaves_no_slot_taken(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        job = await at.job("llama")
        await at.board.pause(job)
        await eventually(lambda: job.state == "paused")
        at.ledger.gate = anyio.Event()
        async with anyio.create_task_group() as both:
            both.start_soon(at.board.resume, job)
            await eventually(lambda: at.ledger.waiting)
            both.start_soon(at.board.cancel, job, "meanwhile")
            await anyio.lowlevel.checkpoint()
            at.ledger.gate.set()
        assert job.state == "cancelled"
        await eventually(lambda: at.gate.snapshot().running == 0)
        at.finish.set()
        other = await at.job("other")
        await other.ended.wait()
        assert other.state == "done"


async def test_a_job_that_cannot_be_recorded_was_never_there(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:

        async def refuse(record: JobRecord) -> None:
            raise NoSpace("the catalogue's disk is full")

        at.ledger.insert = refuse  # type: ignore[method-assign]
        with pytest.raises(WireError):
            await at.submit("llama")
        await eventually(lambda: at.gate.snapshot().running == 0)
        assert len(at.board.jobs) == 0
        assert at.diary.events == []


async def test_a_job_is_listed_when_a_crash_can_no_longer_unmake_it(tmp_path: Path) -> None:
    async with desk(tmp_path) as at, anyio.create_task_group() as tasks:
        may_insert, insert = anyio.Event(), at.ledger.insert

        async def insert_late(record: JobRecord) -> None:
            await may_insert.wait()
            await insert(record)

        at.ledger.insert = insert_late  # type: ignore[method-assign]
        tasks.start_soon(at.submit, "llama")
        await eventually(lambda: len(at.board.jobs) == 1)
        assert await at.board.recent(10, None) == []
        may_insert.set()
        await eventually(lambda: len(at.diary.events) > 0)
        assert [job.model for job in await at.board.recent(10, None)] == ["llama"]
        at.finish.set()
