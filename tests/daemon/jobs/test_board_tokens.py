"""Tokens of requests that share a job: each of them stands for it, while it lives and after it has ended."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from modeld.jobs.job import AnyJob
from modeld.jobs.ledger import JobRecord
from modeld.jobs.restart import restore
from modelwire.errors import InvalidRequest, NoSpace
from rigs.board_rig import UID, desk
from rigs.waiting import eventually


async def test_the_token_of_a_request_that_joined_finds_the_job_after_its_end(tmp_path: Path) -> None:
    """Its reply was lost: asked again, the work must not be done a second time."""
    async with desk(tmp_path) as at:
        first = await at.submit("llama", token="t")
        second = await at.submit("llama", token="u")
        assert second.job is first.job
        at.finish.set()
        await first.job.ended.wait()
        assert (await at.submit("llama", token="u")).job is first.job
    async with desk(tmp_path) as at:
        assert (await at.submit("llama", token="u")).job.id == first.job.id


@pytest.mark.parametrize("when", ["while it lives", "after its end", "after a restart", "restored"])
async def test_a_token_that_joined_is_not_taken_for_other_work(tmp_path: Path, when: str) -> None:
    async with desk(tmp_path) as at:
        job = await at.job("llama")
        await at.submit("llama", token="u")
        if when in ("after its end", "after a restart"):
            at.finish.set()
            await job.ended.wait()
        if when in ("while it lives", "after its end"):
            with pytest.raises(InvalidRequest, match=job.id):
                await at.submit("other", token="u")
            assert (await at.submit("other", token="u", uid=UID + 1)).job is not job
    if when in ("after a restart", "restored"):
        async with desk(tmp_path) as at:
            assert await restore(at.board, at.ledger) == (when == "restored")
            with pytest.raises(InvalidRequest, match=job.id):
                await at.submit("other", token="u")


async def test_the_token_of_an_ended_job_joins_no_other_one(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.finish.set()
        ended = await at.submit("llama", token="t")
        await ended.job.ended.wait()
        at.work.finish = anyio.Event()
        running = await at.submit("llama")
        assert running.job is not ended.job
        assert (await at.submit("llama", token="t")).job is ended.job
        await eventually(lambda: running.job.attempts)
        assert running.job.holders == 1
        assert running.job.state == "running"


@pytest.mark.parametrize("full", [False, True], ids=["the token is taken", "the disk is full"])
async def test_a_request_that_joined_a_job_which_never_was_gets_one_of_its_own(tmp_path: Path, full: bool) -> None:
    """It was joined before its record was on the disk, and the record was refused for a reason of its own request."""
    async with desk(tmp_path) as at:
        at.finish.set()
        ended = (await at.submit("llama", token="t")).job
        await ended.ended.wait()
        at.work.finish = anyio.Event()
        insert, slow = at.ledger.insert, anyio.Event()

        async def insert_slowly(record: JobRecord) -> None:
            await slow.wait()
            if full and record.token == "t":
                raise NoSpace("the catalogue's disk is full")
            await insert(record)

        at.ledger.insert = insert_slowly  # type: ignore[method-assign]
        got: dict[str, AnyJob] = {}

        async def again() -> None:
            try:
                got["again"] = (await at.submit("llama", token="t")).job
            except NoSpace:
                assert full

        async def join() -> None:
            got["joined"] = (await at.submit("llama")).job

        async with anyio.create_task_group() as group:
            group.start_soon(again)
            await eventually(lambda: len(at.gate))
            group.start_soon(join)
            await eventually(lambda: any(job.watchers == 2 for job in at.board.jobs))
            slow.set()
        assert got.get("again") is (None if full else ended)
        assert got["joined"] is not ended
        assert got["joined"].state in ("queued", "running")
        assert (got["joined"].watchers, len(at.gate)) == (1, 1)


async def test_who_cannot_be_recorded_does_not_join(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        first = await at.submit("llama", token="t")

        async def refuse(id_: str, peer_uid: int, token: str) -> None:
            raise NoSpace("the catalogue's disk is full")

        at.ledger.join = refuse  # type: ignore[method-assign]
        with pytest.raises(NoSpace):
            await at.submit("llama", token="u")
        assert first.job.holders == 1


async def test_tokens_are_forgotten_with_their_job(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.finish.set()
        first = await at.submit("llama")
        await at.submit("llama", token="u")
        await first.job.ended.wait()
        assert first.job.ended_at is not None
        assert await at.ledger.prune(first.job.ended_at + 10, keep=1) == 1
        assert (await at.submit("llama", token="u")).job is not first.job
