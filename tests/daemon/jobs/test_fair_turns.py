"""Which running jobs give way: those of a user above their share, and those that hardly move; and only for others."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from modeld.jobs import fair_turns
from modeld.jobs.fair_turns import PATIENCE_SECONDS, TURN_SECONDS, WINDOW_SECONDS, FairTurns
from modeld.jobs.job import AnyJob
from modelwire.vocabulary import Phase
from rigs.board_rig import STRANGER, UID, Desk, desk
from rigs.waiting import eventually


class Clocks:
    def __init__(self, at: Desk, slowest: float = 1000.0) -> None:
        self.now = at.gate._clock()
        at.gate._clock = self
        self.turns = FairTurns(at.board, self, slowest=lambda: slowest)

    def __call__(self) -> float:
        return self.now

    def check_after(self, seconds: float) -> None:
        self.now += seconds
        self.turns.check()


async def running(at: Desk, name: str, *, uid: int = UID, resumable: bool = True, phase: Phase = "download") -> AnyJob:
    job = await at.job(name, uid=uid)
    await eventually(lambda: job.attempts)
    job.resumable = resumable
    job.progress.phase(phase)
    return job


async def test_the_latest_job_above_a_users_half_gives_way_to_another_user(tmp_path: Path) -> None:
    async with desk(tmp_path, running=2) as at:
        clocks = Clocks(at, slowest=0)
        first, second = await running(at, "a"), await running(at, "b")
        mine, other = await at.job("c"), await at.job("d", uid=STRANGER)
        clocks.check_after(PATIENCE_SECONDS - 1)
        assert second.stage == "running", "the other may have its turn without that"
        clocks.check_after(1)
        await eventually(lambda: other.attempts)
        await eventually(lambda: second.state == "queued")
        assert (first.state, mine.state) == ("running", "queued")
        clocks.check_after(3600)
        assert first.stage == other.stage == "running"


async def test_of_jobs_that_cannot_go_on_later_the_one_that_loses_least_gives_way(tmp_path: Path) -> None:
    """A server that knows no ranges must not be a way to keep all slots."""
    async with desk(tmp_path, running=3) as at:
        clocks = Clocks(at, slowest=0)
        most, least = [await running(at, name, resumable=False) for name in "ab"]
        publishing = await running(at, "c", resumable=False, phase="publish")
        for job, received in ((most, 9_000_000), (least, 1_000)):
            job.progress.advance(network=received)
        other = await at.job("d", uid=STRANGER)
        clocks.check_after(PATIENCE_SECONDS)
        await eventually(lambda: other.attempts)
        await eventually(lambda: least.state == "queued")
        assert most.stage == publishing.stage == "running"


@pytest.mark.parametrize("phase", ["checking_local", "download"])
async def test_a_source_that_holds_up_a_pull_that_cannot_go_on_later_holds_no_slot(
    tmp_path: Path, phase: Phase
) -> None:
    """It has next to nothing, or would take days for the rest."""
    async with desk(tmp_path) as at:
        clocks = Clocks(at)
        job = await running(at, "a", resumable=phase == "checking_local", phase=phase)
        other = await at.job("b", uid=STRANGER)
        clocks.check_after(0)
        clocks.check_after(WINDOW_SECONDS)
        assert job.progress.stop_reason == "yield"
        await eventually(lambda: other.attempts)


@pytest.mark.parametrize(("resumable", "uid"), [(False, STRANGER), (True, UID)], ids=["cannot", "its own"])
async def test_a_job_that_cannot_go_on_later_and_one_before_its_own_user_keep_their_slots(
    tmp_path: Path, resumable: bool, uid: int
) -> None:
    async with desk(tmp_path) as at:
        clocks = Clocks(at)
        job = await running(at, "a", resumable=resumable)
        job.progress.advance(network=1)
        await at.job("b", uid=uid)
        for _ in range(3):
            job.progress.advance(network=100_000_000)
            clocks.check_after(2 * WINDOW_SECONDS)
        assert job.stage == "running"


@pytest.mark.parametrize(("received", "gives_way"), [(60_000 - 1, True), (60_000, False)])
async def test_a_download_that_hardly_moves_gives_way_when_others_wait(
    tmp_path: Path, received: int, gives_way: bool
) -> None:
    async with desk(tmp_path) as at:
        clocks = Clocks(at)
        job = await running(at, "a")
        clocks.check_after(WINDOW_SECONDS)
        clocks.check_after(WINDOW_SECONDS)
        assert job.stage == "running", "nobody waits"
        other = await at.job("b")
        clocks.check_after(0)
        clocks.check_after(WINDOW_SECONDS - 1)
        assert job.stage == "running"
        job.progress.advance(network=received)
        clocks.check_after(1)
        assert (job.progress.stop_reason == "yield") == gives_way
        if gives_way:
            await eventually(lambda: other.attempts)
            assert job.state == "queued"


async def test_users_without_a_slot_have_their_turn_although_no_other_has_too_many(tmp_path: Path) -> None:
    """As many users as there are slots must not keep all others out with downloads that never end."""
    async with desk(tmp_path, running=3) as at:
        clocks = Clocks(at, slowest=0)
        again = await running(at, "a", uid=1, resumable=False)
        first, second = [await running(at, name, uid=uid) for name, uid in (("b", 2), ("c", 3))]
        mine, other = await at.job("d", uid=2), await at.job("e", uid=4)
        clocks.check_after(TURN_SECONDS - 1)
        assert first.stage == "running"
        clocks.check_after(2)
        await eventually(lambda: other.attempts)
        await eventually(lambda: first.state == "queued")
        assert again.stage == second.stage == "running"
        other.resumable = True
        other.progress.phase("download")
        clocks.check_after(TURN_SECONDS - 1)
        await eventually(lambda: mine.attempts or first.attempts == 2)
        assert second.state == "queued"
        assert (again.stage, other.stage) == ("running", "running"), "it has only had its turn"


async def test_a_job_that_has_no_slot_has_none_to_give(tmp_path: Path) -> None:
    """It waits for a name that another tool has locked."""
    async with desk(tmp_path) as at:
        clocks = Clocks(at)
        job = await running(at, "a", phase="checking_local")
        at.board.runner.settle(at.gate.step_aside(job.id))
        await running(at, "b")
        await at.job("c", uid=STRANGER)
        clocks.check_after(0)
        clocks.check_after(TURN_SECONDS)
        assert job.stage == "running"


async def test_nothing_gives_way_as_the_daemon_stops(tmp_path: Path) -> None:
    async with desk(tmp_path, running=2) as at:
        clocks = Clocks(at)
        jobs = [await running(at, "a"), await running(at, "b")]
        await at.job("c", uid=STRANGER)
        at.board.draining = True
        clocks.check_after(3600)
        assert [job.stage for job in jobs] == ["running", "running"]


async def test_nothing_is_checked_while_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle daemon sleeps."""
    monkeypatch.setattr(fair_turns, "CHECK_SECONDS", 0.001)
    async with desk(tmp_path, running=1) as at, anyio.create_task_group() as tasks:
        clocks, checks = Clocks(at), list[float]()
        monkeypatch.setattr(clocks.turns, "check", lambda: checks.append(clocks.now))
        tasks.start_soon(clocks.turns.keep)
        first = await running(at, "a")
        await eventually(lambda: clocks.turns._waits.statistics().tasks_waiting)
        assert not checks
        await at.job("b")
        await eventually(lambda: len(checks) > 2)
        assert first.state == "running"
        tasks.cancel_scope.cancel()
