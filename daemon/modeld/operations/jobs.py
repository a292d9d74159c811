"""job.*: looking at jobs, attaching to them, controlling them."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import msgspec

from modeld.jobs.job import Job
from modeld.operations.calling import Call, Caller, Handlers
from modeld.operations.following import follow
from modeld.operations.house import House
from modelwire import requests
from modelwire.errors import InvalidRequest, Unauthorized
from modelwire.values import JobList, JobView, Value

_LIST_LIMIT = 1000
"""Rows of one answer: about 600 KiB, well under the cap of a reply."""

_PIECE = 50
"""Jobs of a list that are made ready in one go: about half a millisecond."""

_BRIEF_ERROR = 1000
"""Characters of an error in a list; `job.show` tells all of it. A thousand whole ones can be longer than a reply."""

_LONG = ("files", "blobs", "plan", "models", "victims")
"""Parts of outcomes that can have thousands of rows: they too are told by `job.show` alone."""

_STOP_PATIENCE_SECONDS = 5.0
"""How long a control waits to show the state that it caused. Work looks at its stop sign every few milliseconds;
a publication that has begun is finished first."""


def handlers(house: House) -> Handlers:
    listing = anyio.Lock()

    async def list_jobs(call: Call, request: requests.JobList) -> JobList:
        if not 1 <= request.limit <= _LIST_LIMIT:
            raise InvalidRequest(
                f"$.limit: {request.limit} is not between 1 and {_LIST_LIMIT}",
                hint="the newest come first; `state` leaves out those that are of no interest",
            )
        while True:
            # One list after the other, and only for peers that take them: the 64 that one may ask for in a single
            # write would be 40 MiB.
            await call.until_writable()
            async with listing:
                if call.writable:
                    jobs = await house.board.recent(request.limit, request.state)
                    return JobList(jobs=await _views(jobs))

    async def show(_: Call, request: requests.JobShow) -> JobView:
        return (await house.board.find(request.job)).view()

    async def attach(call: Call, request: requests.JobAttach) -> JobView:
        job = await house.board.find(request.job)
        await follow(call, house.board.attach(job, call.caller.uid))
        if not job.terminal and job.failure is not None:
            raise job.failure
        return job.view()

    async def cancel(call: Call, request: requests.JobCancel) -> JobView:
        job = await own_job(house, call.caller, request.job)
        await house.board.cancel(job, f"by uid {call.caller.uid}")
        with anyio.move_on_after(_STOP_PATIENCE_SECONDS):
            await job.ended.wait()
        return job.view()

    async def pause(call: Call, request: requests.JobPause) -> JobView:
        job = await own_job(house, call.caller, request.job)
        refuse_ended(job, "paused")
        await house.board.pause(job)
        with anyio.move_on_after(_STOP_PATIENCE_SECONDS):
            while job.state == "running" and not job.ended.is_set():
                await job.changed.wait()
        return job.view()

    async def resume(call: Call, request: requests.JobResume) -> JobView:
        job = await own_job(house, call.caller, request.job)
        refuse_ended(job, "resumed")
        await house.board.resume(job)
        return job.view()

    async def prioritize(call: Call, request: requests.JobPrioritize) -> JobView:
        job = await own_job(house, call.caller, request.job)
        refuse_ended(job, "given another priority")
        await house.board.prioritize(job, request.priority)
        return job.view()

    return Handlers(
        quick={},
        long={
            requests.JobList: list_jobs,
            requests.JobShow: show,
            requests.JobAttach: attach,
            requests.JobCancel: cancel,
            requests.JobPause: pause,
            requests.JobResume: resume,
            requests.JobPrioritize: prioritize,
        },
        looks=frozenset({requests.JobList, requests.JobShow}),
    )


async def _views(jobs: list[Job]) -> tuple[JobView, ...]:
    """In pieces, between which the others have their turn."""
    views: list[JobView] = []
    for at in range(0, len(jobs), _PIECE):
        views += [_brief(job.view()) for job in jobs[at : at + _PIECE]]
        await anyio.lowlevel.checkpoint()
    return tuple(views)


def _brief(view: JobView) -> JobView:
    if isinstance(view.value, Value):
        long = {field: () for field in _LONG if getattr(view.value, field, ())}
        view = msgspec.structs.replace(view, value=msgspec.structs.replace(view.value, **long))
    error = view.error
    if error is None or len(error.message) + len(str(error.details)) <= _BRIEF_ERROR:
        return view
    message = error.message if len(error.message) <= _BRIEF_ERROR else error.message[:_BRIEF_ERROR] + "…"
    return msgspec.structs.replace(view, error=msgspec.structs.replace(error, message=message, details={}))


async def own_job(house: House, caller: Caller, job_id: str) -> Job:
    """One's own jobs, or anybody's for an admin."""
    job = await house.board.find(job_id)
    if job.peer != caller.uid and caller.role != "admin":
        raise Unauthorized(
            f"job {job.id} belongs to uid {job.peer}; uid {caller.uid} may only control its own jobs",
            hint="ask its owner, or somebody with the role admin",
        )
    return job


def refuse_ended(job: Job, what: str) -> None:
    if job.terminal:
        raise InvalidRequest(
            f"job {job.id} is {job.state}: it cannot be {what} any more", hint="ask for the work again if it is wanted"
        )
