"""A job that waits for another program has no slot meanwhile, and one that gives way goes on later."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import msgspec
import pytest

from modeld.jobs.job import Job
from modeld.jobs.restart import drain
from modelwire.errors import NotFound
from modelwire.requests import ModelAdd
from modelwire.values import Added
from rigs.board_rig import Desk, HeldWork, desk, state_at_end
from rigs.waiting import eventually


class WaitingWork(HeldWork):
    """That of the name "waits" first waits for another program."""

    def __init__(self, at: Desk) -> None:
        super().__init__()
        self._at = at
        self.free = anyio.Event()
        self.waits = anyio.Event()

    async def work(self, job: Job[ModelAdd, Added], /) -> Added:
        if job.request.name == "waits":
            async with self._at.board.runner.aside(job):
                self.waits.set()
                await self.free.wait()
        return await super().work(job)


@asynccontextmanager
async def waiting(directory: Path) -> AsyncIterator[tuple[Desk, WaitingWork, Job[ModelAdd, Added]]]:
    async with desk(directory) as at:
        at.work = work = WaitingWork(at)
        job = await at.job("waits")
        await work.waits.wait()
        yield at, work, job


async def test_the_slot_of_a_job_that_waits_for_another_program_serves_others(tmp_path: Path) -> None:
    async with waiting(tmp_path) as (at, work, job):
        other = await at.job("other")
        await eventually(lambda: other.attempts)
        assert (job.state, at.gate.holds_slot(job.id)) == ("running", False)
        work.finish.set()
        assert await state_at_end(other) == "done"
        assert not job.ended.is_set()
        work.free.set()
        assert await state_at_end(job) == "done"
        assert (len(at.gate), at.gate.snapshot().waiting) == (0, 0)


async def test_it_goes_on_when_a_slot_is_free(tmp_path: Path) -> None:
    async with waiting(tmp_path) as (at, work, job):
        other = await at.job("other")
        await eventually(lambda: other.attempts)
        work.free.set()
        await eventually(lambda: at.gate.snapshot().kinds["model.add"].waiting == (job.id,))
        assert (job.attempts, job.position) == (1, 0)
        work.finish.set()
        assert [await state_at_end(each) for each in (other, job)] == ["done", "done"]
        assert job.attempts == 1


@pytest.mark.parametrize("control", ["cancel", "pause", "drain"])
async def test_it_can_be_stopped_before_it_has_a_slot_again(tmp_path: Path, control: str) -> None:
    async with waiting(tmp_path) as (at, work, job):
        other = await at.job("other")
        await eventually(lambda: other.attempts)
        work.free.set()
        await eventually(at.gate.contended)
        if control == "cancel":
            await at.board.cancel(job, "on request")
            assert await state_at_end(job) == "cancelled"
        elif control == "pause":
            await at.board.pause(job)
            await eventually(lambda: job.state == "paused")
        else:
            await drain(at.board, 0.0)
            assert job.stage == "parked"
        await eventually(lambda: job.id not in at.gate)
        assert at.gate.snapshot().waiting == 0


async def test_a_job_that_gives_way_is_queued_again_and_goes_on(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        job, other = await at.job("first"), await at.job("second")
        await eventually(lambda: job.attempts)
        at.board.runner.put_back(job, "others wait")
        await eventually(lambda: other.attempts)
        assert (job.state, job.position, at.gate.snapshot().waiting) == ("queued", 1, 1)
        assert at.diary.events_of(job)[-1] == "job.yielding"
        at.finish.set()
        assert [await state_at_end(each) for each in (other, job)] == ["done", "done"]
        assert job.attempts == 2


async def test_a_job_that_gives_way_as_it_ends_has_ended(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.work.deaf = True
        job = await at.job("first")
        await eventually(lambda: job.attempts)
        at.board.runner.put_back(job, "others wait")
        at.finish.set()
        assert await state_at_end(job) == "done"
        assert len(at.gate) == 0


class Bytes:
    """What the work had in its hands."""


class FailingWork(HeldWork):
    def __init__(self) -> None:
        super().__init__()
        self.held: list[weakref.ref[Bytes]] = []

    async def work(self, job: Job[ModelAdd, Added], /) -> Added:
        held = Bytes()
        self.held.append(weakref.ref(held))
        await anyio.lowlevel.checkpoint()
        raise NotFound(f"{job.request.path} is not there")


async def test_a_failed_job_holds_nothing_of_its_work(tmp_path: Path) -> None:
    """Not even until cycles are looked for: a busy daemon does that seldom."""
    async with desk(tmp_path) as at:
        at.work = work = FailingWork()
        gc.disable()
        try:
            asked = await at.submit("a")
            await asked.job.ended.wait()
            with pytest.raises(NotFound, match="/source is not there"):
                asked.job.outcome()
            await eventually(lambda: work.held[0]() is None)
        finally:
            gc.enable()


class SignedWork(HeldWork):
    def kept(self, request: ModelAdd, /) -> ModelAdd:
        return msgspec.structs.replace(request, signature=None)


@pytest.mark.parametrize("end", ["done", "cancelled", "cancelled in the queue", "published"])
async def test_what_a_request_had_for_its_work_alone_leaves_the_ledger_at_its_end(tmp_path: Path, end: str) -> None:
    async with desk(tmp_path) as at:
        at.work = SignedWork()
        first = await at.job("first") if end == "cancelled in the queue" else None
        job = await at.job("m", signature="{}")

        async def signature() -> str | None:
            row = await at.ledger.get(job.id)
            assert row is not None
            return msgspec.json.decode(row.request, type=ModelAdd).signature

        assert (job.request.signature, await signature()) == ("{}", "{}")
        if end == "published":
            added = Added(name="m", blob="sha256:" + "0" * 64, size_bytes=1, format="gguf", path="/x")
            await at.board.runner.published(job, added)
            await at.board.change_request(job, msgspec.structs.replace(job.request, replace=True))
            assert await signature() is None
        if end.startswith("cancelled"):
            await at.board.cancel(job, "on request")
        else:
            at.finish.set()
        assert await state_at_end(job) == end.split()[0].replace("published", "done")
        assert (job.request.signature, await signature()) == (None, None)
        if first is not None:
            assert first.request.signature is None
