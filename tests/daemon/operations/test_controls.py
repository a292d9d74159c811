"""Operations on jobs and on the daemon: who may, what is refused, and what they report."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import anyio
import pytest

from modeld.jobs.job import AnyJob
from modelwire import requests, values
from modelwire.errors import InvalidRequest, NotFound, Unauthorized
from rigs.operations_rig import ADMIN, ANOTHER, MINE, NotingCall, OperationsRig, operations_rig

CONTROLS = [
    requests.JobCancel,
    requests.JobPause,
    requests.JobResume,
    requests.JobPrioritize,
    requests.JobConfigure,
]


def control(kind: type[requests.Request], job: str) -> requests.Request:
    more: dict[str, Any] = {"priority": 1} if kind in (requests.JobPrioritize, requests.JobConfigure) else {}
    fields: dict[str, Any] = {"job": job, **more}
    return kind(**fields)


async def ended_job(at: OperationsRig) -> AnyJob:
    await at.ask(requests.StoreSweep())
    (job,) = await at.services.board.recent(1, None)
    return job


async def waiting_pull(at: OperationsRig) -> AnyJob:
    """Paused before it could ask any network."""
    pull = requests.ModelPull(ref="hf:org/repo", name="m", on_disconnect="continue")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(at.ask, pull)
        while not (jobs := list(at.services.board.jobs)):
            await anyio.lowlevel.checkpoint()
        await at.services.board.pause(jobs[0])
        while jobs[0].state != "paused":
            await jobs[0].changed.wait()
        tasks.cancel_scope.cancel()
    return jobs[0]


@pytest.mark.parametrize("kind", CONTROLS)
async def test_only_its_owner_and_an_admin_control_a_job(tmp_path: Path, kind: type[requests.Request]) -> None:
    async with operations_rig(tmp_path) as at:
        job = await waiting_pull(at)
        with pytest.raises(Unauthorized, match=job.id):
            await at.ask(control(kind, job.id), ANOTHER)
        assert job.state == "paused"
        if kind is not requests.JobResume:
            await at.ask(control(kind, job.id), ADMIN)


@pytest.mark.parametrize("kind", CONTROLS)
async def test_a_job_that_has_ended_or_never_was_is_not_controlled(
    tmp_path: Path, kind: type[requests.Request]
) -> None:
    async with operations_rig(tmp_path) as at:
        job = await ended_job(at)
        if kind is requests.JobCancel:
            assert (await at.ask(control(kind, job.id))).state == "done"
        else:
            with pytest.raises(InvalidRequest, match="done"):
                await at.ask(control(kind, job.id))
        with pytest.raises(NotFound):
            await at.ask(control(kind, "none"))


async def test_a_job_is_configured_and_keeps_it(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        job = await waiting_pull(at)
        configured = await at.ask(requests.JobConfigure(job=job.id, priority=1, max_rate=5000))
        assert {key: (change.old, change.new) for key, change in configured.settings.items()} == {
            "priority": (3, 1),
            "max_rate": (None, 5000),
        }
        view = await at.ask(requests.JobShow(job=job.id))
        assert (view.priority, view.max_rate) == (1, 5000)
        await at.ask(requests.JobConfigure(job=job.id, max_rate=0))
        assert (await at.ask(requests.JobShow(job=job.id))).max_rate is None
        with pytest.raises(InvalidRequest, match="at least 1000"):
            await at.ask(requests.JobConfigure(job=job.id, max_rate=3))
        with pytest.raises(InvalidRequest, match="nothing"):
            await at.ask(requests.JobConfigure(job=job.id))


async def test_work_that_heeds_its_settings_is_called_after_each_change_while_it_wants_to_be(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        job = await waiting_pull(at)
        heard: list[tuple[int, int | None]] = []
        with job.follows_settings(lambda: heard.append((job.priority, job.request.max_rate))):
            await at.ask(requests.JobPrioritize(job=job.id, priority=2))
            await at.ask(requests.JobConfigure(job=job.id, max_rate=7000))
        await at.ask(requests.JobPrioritize(job=job.id, priority=4))
        assert heard == [(2, None), (2, 7000)]


async def test_only_a_pull_has_a_rate(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        path = at.file("m.gguf")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(at.ask, requests.ModelAdd(path=path, name="m"))
            while not (jobs := list(at.services.board.jobs)):
                await anyio.lowlevel.checkpoint()
            with pytest.raises(InvalidRequest, match="only what downloads"):
                await at.ask(requests.JobConfigure(job=jobs[0].id, priority=1, max_rate=5000))
            assert jobs[0].priority == 3, "refused as a whole"


async def test_who_attaches_gets_the_job_and_its_progress(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        job = await ended_job(at)
        call = NotingCall(ANOTHER)
        view = await at.operations.slow[requests.JobAttach](call, requests.JobAttach(job=job.id))
        assert isinstance(view, values.JobView)
        assert (view.id, view.state) == (job.id, "done")
        assert [type(reply).__name__ for reply in call.sent] == ["Accepted", "Progress"]


async def test_a_list_is_bounded_and_brief(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await at.ask(requests.ModelAdd(path=at.file("m.gguf"), name="m"))
        await at.ask(requests.ModelVerify(all=True))
        listed = await at.ask(requests.JobList())
        assert [job.kind for job in listed.jobs] == ["model.verify", "model.add"]
        assert listed.jobs[0].value.models == (), "returned by job.show alone"
        assert len((await at.ask(requests.JobShow(job=listed.jobs[0].id))).value.models) == 1
        for limit in (0, 1001):
            with pytest.raises(InvalidRequest, match="limit"):
                await at.ask(requests.JobList(limit=limit))


@pytest.mark.parametrize("deadline", [-1.0, math.inf, math.nan, 3601.0])
async def test_a_drain_with_a_senseless_deadline_drains_nothing(tmp_path: Path, deadline: float) -> None:
    async with operations_rig(tmp_path) as at:
        with pytest.raises(InvalidRequest, match="deadline_s"):
            await at.ask(requests.DaemonDrain(deadline_s=deadline), ADMIN)
        assert at.drains == []
        drained = await at.ask(requests.DaemonDrain(deadline_s=5.0), ADMIN)
        assert (drained.deadline_s, at.drains) == (5.0, [5.0])


async def test_the_daemon_is_configured_and_says_what_was_before(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        fields: dict[str, Any] = {"max_rate": 9000, "running_bytes": 3, "running_fetches": 4}
        fields |= {"waiting_per_peer": 5, "waiting_total": 6}
        configured = await at.ask(requests.DaemonConfigure(**fields), ADMIN)
        assert {key: change.new for key, change in configured.settings.items()} == fields
        again = await at.ask(requests.DaemonConfigure(**fields), ADMIN)
        assert {key: change.old for key, change in again.settings.items()} == fields
        limits = at.services.gate.limits
        assert (limits.running_of("model.add"), limits.running_of("model.pull")) == (3, 4)
        with pytest.raises(InvalidRequest, match="nothing"):
            await at.ask(requests.DaemonConfigure(), ADMIN)


async def test_the_status_counts_what_is_there(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await at.ask(requests.ModelAdd(path=at.file("m.gguf"), name="m"))
        job = await waiting_pull(at)
        status = await at.ask(requests.DaemonStatus(), MINE)
        assert (status.state, status.models, status.queue.running, status.queue.waiting) == ("ready", 1, 0, 0)
        assert job.state == "paused"
        assert status.transfer is None


async def test_how_long_the_daemon_runs_is_no_question_of_the_date(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        at.services.daemon.started += 3600  # as if the clock had been set back since
        status = await at.ask(requests.DaemonStatus(), MINE)
        assert 0 <= status.uptime_s < 60
