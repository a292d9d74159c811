"""A user whose jobs fail one after the other costs others neither the disk nor the log: the next ones are refused."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from modeld.jobs import failures
from modeld.jobs.failures import WINDOW_SECONDS, Failures
from modeld.jobs.job import Job
from modelwire.errors import NotFound, QueueFull
from modelwire.requests import ModelAdd
from modelwire.values import Added
from rigs.board_rig import LENT, STRANGER, UID, Desk, HeldWork, desk


class FailingWork(HeldWork):
    async def work(self, job: Job[ModelAdd, Added], /) -> Added:
        raise NotFound(f"{job.request.path} is not there")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "MOST", 3)


async def fail(at: Desk, uid: int, name: str = "a") -> None:
    job = (await at.submit(name, uid=uid)).job
    await job.ended.wait()
    assert job.state == "failed"


async def test_the_next_job_of_another_user_waits_and_nobody_elses_does(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.work = FailingWork()
        for _ in range(3):
            await fail(at, STRANGER)
        stored = len(await at.ledger.recent(100, None))
        with pytest.raises(QueueFull, match="3 jobs of uid 2000 failed within 60 s") as refused:
            await at.submit("b", uid=STRANGER)
        assert 0 < (refused.value.retry_after_ms or 0) <= 60_000
        assert len(await at.ledger.recent(100, None)) == stored
        await fail(at, STRANGER + 1)
        for number in range(5):
            await fail(at, UID, f"own{number}")


async def test_a_uid_that_is_lent_to_a_user_fails_for_that_user(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.work = FailingWork()
        for uid in (STRANGER, LENT, LENT):
            await fail(at, uid)
        for uid in (STRANGER, LENT):
            with pytest.raises(QueueFull, match="3 jobs of uid 2000 failed within 60 s"):
                await at.submit("b", uid=uid)


async def test_a_request_that_is_asked_again_gets_its_answer(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.work = FailingWork()
        failed = (await at.submit("a", uid=STRANGER, token="t")).job
        await failed.ended.wait()
        for _ in range(2):
            await fail(at, STRANGER)
        with pytest.raises(QueueFull):
            await at.submit("a", uid=STRANGER, token="u")
        assert (await at.submit("a", uid=STRANGER, token="t")).job is failed


async def test_jobs_that_end_otherwise_do_not_count(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.finish.set()
        for number in range(3):
            await (await at.submit(f"m{number}", uid=STRANGER)).job.ended.wait()
        at.work.finish = anyio.Event()
        for number in range(3):
            job = (await at.submit(f"n{number}", uid=STRANGER)).job
            await at.board.cancel(job, "on request")
            await job.ended.wait()
        await at.submit("last", uid=STRANGER)


def test_what_failed_a_minute_ago_counts_no_longer() -> None:
    now = 0.0
    limit = Failures(lambda: now)
    for _ in range(3):
        limit.check(1)
        limit.note(1)
        now += 10.0
    with pytest.raises(QueueFull) as refused:
        limit.check(1)
    assert refused.value.retry_after_ms == (WINDOW_SECONDS - 30) * 1000
    now = WINDOW_SECONDS
    limit.check(1)
    limit.note(1)
    with pytest.raises(QueueFull):
        limit.check(1)
    now = 10 * WINDOW_SECONDS
    limit.check(1)
    assert limit._of == {}
