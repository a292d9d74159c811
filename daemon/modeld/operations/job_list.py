"""job.list and job.show: the jobs as they are now."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import msgspec

from modeld.jobs.job import AnyJob
from modeld.operations.job_view import view_of
from modeld.operations.operation import Call, SlowOperation
from modeld.operations.services import Services
from modelwire import requests, values
from modelwire.errors import InvalidRequest
from modelwire.values import JobView, Value

_LIST_LIMIT = 1000
"""Rows of one reply: about 600 KiB, well under the cap of a reply."""

_PIECE = 50
"""Jobs of a list that are converted without a break: about half a millisecond."""

_BRIEF_ERROR = 1000
"""Characters of an error in a list; `job.show` returns all of it. A thousand whole ones can be longer than a reply."""

_LONG = ("files", "blobs", "plan", "models", "victims")
"""Parts of outcomes that can have thousands of rows: `job.show` alone returns them."""


class List(SlowOperation[requests.JobList, values.JobList]):
    request, value = requests.JobList, values.JobList
    is_lookup = True

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._in_turn = anyio.Lock()

    async def run(self, call: Call, request: requests.JobList, /) -> values.JobList:
        if not 1 <= request.limit <= _LIST_LIMIT:
            raise InvalidRequest(
                f"$.limit: {request.limit} is not between 1 and {_LIST_LIMIT}",
                hint="Ask for fewer: the newest come first, and `state` selects jobs by their state.",
            )
        while True:
            # One list after the other, and only for peers that take them: 64 lists, which one peer may request in a
            # single write, would be 40 MiB.
            await call.until_writable()
            async with self._in_turn:
                if call.writable:
                    jobs = await self._services.board.recent(request.limit, request.state)
                    return values.JobList(jobs=await _views(jobs))


class Show(SlowOperation[requests.JobShow, JobView]):
    request, value = requests.JobShow, JobView
    is_lookup = True

    async def run(self, _: Call, request: requests.JobShow, /) -> JobView:
        return view_of(await self._services.board.find(request.job))


async def _views(jobs: list[AnyJob]) -> tuple[JobView, ...]:
    """Converts the jobs in pieces; other requests have their turn between two of them."""
    views: list[JobView] = []
    for at in range(0, len(jobs), _PIECE):
        views += [_brief(view_of(job)) for job in jobs[at : at + _PIECE]]
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
