"""Ends that the ledger could not take: reported nevertheless, found again, and recorded as soon as possible."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from modeld.jobs.job import AnyJob
from modeld.jobs.restart import drain, restore
from modelwire.errors import Interrupted
from rigs.board_rig import STRANGER, Desk, desk
from rigs.waiting import eventually


async def cancelled_on_a_full_disk(at: Desk, **fields: str) -> AnyJob:
    job = await at.job("llama", **fields)
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


@pytest.mark.parametrize("by", ["the next end", "the stop"])
async def test_a_cancelled_job_does_not_run_again_after_a_restart(tmp_path: Path, by: str) -> None:
    async with desk(tmp_path) as at:
        job = await cancelled_on_a_full_disk(at)
        if by == "the next end":
            at.finish.set()
            await (await at.job("other")).ended.wait()
        else:
            await drain(at.board, 0)
    async with desk(tmp_path) as at:
        assert await restore(at.board, at.ledger) == 0
        assert (await at.board.find(job.id)).state == "cancelled"


async def test_a_stop_on_a_full_disk_ends_nevertheless(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        await cancelled_on_a_full_disk(at)
        at.ledger.full = True
        with anyio.fail_after(10):
            await drain(at.board, 0)
