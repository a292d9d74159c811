"""job.attach, and what a client may do with a job: cancel, pause, resume, prioritize."""

from __future__ import annotations

import anyio
import msgspec

from modeld.jobs.job import AnyJob
from modeld.operations.follow import follow
from modeld.operations.job_view import view_of
from modeld.operations.operation import Call, Caller, SlowOperation
from modeld.operations.services import Services
from modelwire.errors import InvalidRequest, Unauthorized
from modelwire.requests import JobAttach, JobCancel, JobPause, JobPrioritize, JobResume
from modelwire.values import JobView

_STOP_SECONDS = 5.0
"""How long a control waits to report the state that it caused. Work checks every few milliseconds whether it is to
stop; a publication that has begun ends first."""


_ENDED = {"done": "is done", "failed": "has failed", "cancelled": "was cancelled"}


class Attach(SlowOperation[JobAttach, JobView]):
    request, value = JobAttach, JobView

    async def run(self, call: Call, request: JobAttach, /) -> JobView:
        job = await self._services.board.find(request.job)
        await follow(call, self._services.board.attach(job, call.caller.uid))
        if not job.terminal:
            job.raise_failure()
        return view_of(job)


class Cancel(SlowOperation[JobCancel, JobView]):
    request, value = JobCancel, JobView

    async def run(self, call: Call, request: JobCancel, /) -> JobView:
        job = await own_job(self._services, call.caller, request.job)
        await self._services.board.cancel(job, f"by uid {call.caller.uid}")
        with anyio.move_on_after(_STOP_SECONDS):
            await job.ended.wait()
        if not request.discard:
            return view_of(job)
        places = self._services.pulls.job_partials.of([job.id])
        freed = await self._services.store.sweeper.discard_partials(places)
        return msgspec.structs.replace(view_of(job), discarded_bytes=freed)


class Pause(SlowOperation[JobPause, JobView]):
    request, value = JobPause, JobView

    async def run(self, call: Call, request: JobPause, /) -> JobView:
        job = await own_open_job(self._services, call.caller, request.job, "paused")
        await self._services.board.pause(job)
        with anyio.move_on_after(_STOP_SECONDS):
            while job.state == "running" and not job.ended.is_set():
                await job.changed.wait()
        return view_of(job)


class Resume(SlowOperation[JobResume, JobView]):
    request, value = JobResume, JobView

    async def run(self, call: Call, request: JobResume, /) -> JobView:
        job = await own_open_job(self._services, call.caller, request.job, "resumed")
        await self._services.board.resume(job)
        return view_of(job)


class Prioritize(SlowOperation[JobPrioritize, JobView]):
    request, value = JobPrioritize, JobView

    async def run(self, call: Call, request: JobPrioritize, /) -> JobView:
        job = await own_open_job(self._services, call.caller, request.job, "given another priority")
        await self._services.board.prioritize(job, request.priority)
        return view_of(job)


async def own_job(services: Services, caller: Caller, job_id: str) -> AnyJob:
    """Returns a job that the caller may control: one of its own, or any job for an admin."""
    job = await services.board.find(job_id)
    if job.peer != caller.uid and caller.role != "admin":
        raise Unauthorized(
            f"job {job.id} belongs to uid {job.peer}; uid {caller.uid} may only control its own jobs",
            hint="Ask its owner, or a user with the role admin.",
        )
    return job


async def own_open_job(services: Services, caller: Caller, job_id: str, what: str) -> AnyJob:
    """The same for a job that has not ended; `what` is what the caller wants done to it."""
    job = await own_job(services, caller, job_id)
    if job.terminal:
        raise InvalidRequest(
            f"job {job.id} {_ENDED[job.state]}, and cannot be {what} any more",
            hint="Ask for the work again if it is still wanted.",
        )
    return job
