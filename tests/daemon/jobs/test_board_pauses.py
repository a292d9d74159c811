"""Jobs that pause, go on and give way to a drain: no slot is taken twice, no place in the queue is lost."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from modeld.jobs.job import AnyJob
from modeld.jobs.restart import drain
from modelwire.errors import Draining, NoSpace, QueueFull
from rigs.board_rig import LENT, STRANGER, UID, desk, state_at_end
from rigs.waiting import eventually


async def test_a_resume_waits_for_the_pause_that_is_under_way(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        job = await at.job("llama")
        await eventually(lambda: job.attempts)
        await at.board.pause(job)
        assert job.state == "running"
        await at.board.resume(job)
        await eventually(lambda: job.attempts == 2)
        at.finish.set()
        assert await state_at_end(job) == "done"


async def test_a_request_for_a_job_that_is_about_to_pause_makes_it_go_on(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        job = await at.job("llama")
        await eventually(lambda: job.attempts)
        await at.board.pause(job)
        joined = await at.submit("llama")
        assert joined.job is job
        await eventually(lambda: job.attempts == 2)
        at.finish.set()
        assert await state_at_end(job) == "done"


async def test_a_resume_that_cannot_be_recorded_leaves_the_job_paused(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        job = await at.job("llama")
        await at.board.pause(job)
        await eventually(lambda: job.state == "paused")
        at.ledger.full = True
        with pytest.raises(NoSpace):
            await at.board.resume(job)
        assert job.state == "paused"
        at.ledger.full = False
        at.finish.set()
        await at.board.resume(job)
        assert await state_at_end(job) == "done"


@pytest.mark.parametrize("running", [True, False])
async def test_a_pause_on_a_full_disk_does_not_end_the_daemon(tmp_path: Path, running: bool) -> None:
    """The job is paused now; only a restart would forget it."""
    async with desk(tmp_path) as at:
        job = await at.job("one")
        if not running:
            job = await at.job("two")
        at.ledger.full = True
        await at.board.pause(job)
        await eventually(lambda: job.state == "paused")
        at.ledger.full = False
        assert not at.tasks.cancel_scope.cancel_called
        at.finish.set()
        await at.board.resume(job)
        assert await state_at_end(job) == "done"


async def test_a_resume_needs_a_place_in_the_queue_as_a_new_job_does(tmp_path: Path) -> None:
    async with desk(tmp_path, waiting_per_peer=2) as at:
        await at.job("runs")
        paused = await at.job("one")
        await at.board.pause(paused)
        two = await at.job("two")
        await at.job("three")
        with pytest.raises(QueueFull) as refusal:
            await at.board.resume(paused)
        assert refusal.value.retry_after_ms
        with pytest.raises(QueueFull):
            await at.submit("one")
        assert (paused.state, paused.holders) == ("paused", 0)
        assert at.gate.snapshot().waiting == 2
        await at.board.cancel(two, "on request")
        await at.board.resume(paused)
        assert (paused.state, paused.position) == ("queued", 2)
        assert at.diary.events_of(paused) == ["job.queued", "job.paused", "job.resumed"]


async def test_resumes_at_once_take_no_place_twice(tmp_path: Path) -> None:
    async with desk(tmp_path, waiting_per_peer=2) as at:
        await at.job("runs")
        paused = [await at.job(name) for name in ("one", "two")]
        for job in paused:
            await at.board.pause(job)
        await at.job("three")
        refused: list[QueueFull] = []

        async def resume(job: AnyJob) -> None:
            try:
                await at.board.resume(job)
            except QueueFull as fault:
                refused.append(fault)

        at.ledger.gate = anyio.Event()
        async with anyio.create_task_group() as both:
            for job in paused:
                both.start_soon(resume, job)
            await eventually(lambda: at.ledger.waiting)
            at.ledger.gate.set()
        assert len(refused) == 1
        assert at.gate.snapshot().waiting == 2
        assert sorted(job.state for job in paused) == ["paused", "queued"]


async def test_a_job_resumed_into_a_free_slot_runs_once(tmp_path: Path) -> None:
    async with desk(tmp_path, running=2) as at:
        job = await at.job("one")
        await at.board.pause(job)
        await eventually(lambda: job.state == "paused")
        at.ledger.gate = anyio.Event()
        async with anyio.create_task_group() as both:
            both.start_soon(at.board.resume, job)
            await eventually(lambda: at.ledger.waiting)
            assert job.attempts == 0, "what runs was recorded as resumed"
            both.start_soon(at.board.pause, job)
            await anyio.lowlevel.checkpoint()
            both.start_soon(at.board.resume, job)
            await anyio.lowlevel.checkpoint()
            at.ledger.gate.set()
        await eventually(lambda: job.attempts == 1)
        assert at.gate.snapshot().running == 1
        at.finish.set()
        assert await state_at_end(job) == "done"
        assert job.attempts == 1


async def test_a_resume_that_cannot_be_recorded_gives_its_place_back(tmp_path: Path) -> None:
    async with desk(tmp_path, waiting_per_peer=1) as at:
        await at.job("runs")
        job = await at.job("one")
        await at.board.pause(job)
        at.ledger.full = True
        with pytest.raises(NoSpace):
            await at.board.resume(job)
        at.ledger.full = False
        assert (job.state, at.gate.snapshot().waiting) == ("paused", 0)
        await at.job("two")


async def test_no_more_jobs_of_a_user_are_paused_than_may_wait(tmp_path: Path) -> None:
    """Otherwise 2,000 jobs are admitted by pausing each before the next."""
    async with desk(tmp_path, running=2, waiting_per_peer=2) as at:
        jobs = []
        for name in ("one", "two"):
            jobs.append(await at.job(name))
            await at.board.pause(jobs[-1])
        third, other = await at.job("three"), await at.job("four", uid=STRANGER)
        with pytest.raises(QueueFull, match="2 jobs of uid 1000 are paused already") as refusal:
            await at.board.pause(third)
        assert refusal.value.details == {"peer_paused": 2, "peer_limit": 2}
        assert third.state == "running"
        await at.board.pause(other)
        await at.board.pause(jobs[0])
        await at.board.cancel(jobs[0], "on request")
        await at.board.pause(third)
        await eventually(lambda: third.state == "paused")


async def test_a_uid_that_is_lent_to_a_user_waits_and_pauses_for_that_user(tmp_path: Path) -> None:
    async with desk(tmp_path, running=2, waiting_per_peer=1) as at:
        first, second = [(await at.submit(f"m{uid}", uid=uid)).job for uid in (STRANGER, LENT)]
        await eventually(lambda: first.attempts and second.attempts)
        await at.submit("m3", uid=STRANGER)
        with pytest.raises(QueueFull):
            await at.submit("m4", uid=LENT)
        await at.submit("m5", uid=UID)
        await at.board.pause(first)
        with pytest.raises(QueueFull, match="1 jobs of uid 2000 are paused already"):
            await at.board.pause(second)


async def test_a_drain_ends_although_a_job_pauses_meanwhile(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        job = await at.job("llama")
        await eventually(lambda: job.attempts)
        await at.board.pause(job)
        await drain(at.board, 5.0)
        row = await at.ledger.get(job.id)
        assert row is not None
        assert row.state == "paused"


async def test_nothing_is_resumed_or_submitted_while_the_daemon_drains(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        job = await at.job("llama")
        await at.board.pause(job)
        await eventually(lambda: job.state == "paused")
        await drain(at.board, 5.0)
        with pytest.raises(Draining):
            await at.board.resume(job)
        with pytest.raises(Draining):
            await at.submit("other")
        await eventually(lambda: at.gate.snapshot().running == 0)


async def test_a_resume_that_the_drain_overtook_is_kept_for_the_next_start(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        job = await at.job("llama")
        await at.board.pause(job)
        await eventually(lambda: job.state == "paused")
        at.ledger.gate = anyio.Event()
        async with anyio.create_task_group() as both:
            both.start_soon(at.board.resume, job)
            await eventually(lambda: at.ledger.waiting)
            both.start_soon(drain, at.board, 5.0)
            await eventually(lambda: job.ended.is_set())
            at.ledger.gate.set()
        await eventually(lambda: at.gate.snapshot().running == 0)
        row = await at.ledger.get(job.id)
        assert row is not None
        assert row.state == "queued"


async def test_a_drain_parks_at_once_what_the_next_start_resumes(tmp_path: Path) -> None:
    async with desk(tmp_path, running=2) as at:
        resumed, waited = await at.job("resumed"), await at.job("waited")
        await eventually(lambda: resumed.attempts and waited.attempts)
        resumed.resumable = True
        async with anyio.create_task_group() as draining:
            draining.start_soon(drain, at.board, 3600.0)
            await resumed.ended.wait()
            assert (resumed.stage, waited.stage) == ("parked", "running")
            at.finish.set()
        assert waited.state == "done"


async def test_a_drain_returns_when_every_request_has_its_reply(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        asked = await at.submit("llama")
        seen = []

        async def asker() -> None:
            with asked:
                await asked.job.ended.wait()
                for _ in range(20):  # an asker has a few steps to go before its reply is written
                    await anyio.lowlevel.checkpoint()
                seen.append(asked.job.state)

        at.tasks.start_soon(asker)
        await eventually(lambda: asked.job.attempts)
        at.finish.set()
        await drain(at.board, 5.0)
        assert seen == ["done"]


async def test_a_drain_does_not_wait_for_ever_for_work_that_does_not_stop(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.work.deaf = True
        job = await at.job("llama")
        await eventually(lambda: job.attempts)
        await drain(at.board, 0.0, stop_seconds=0.05)
        assert job.ended.is_set()
        assert job.failure is not None
        assert job.failure.code == "interrupted"
