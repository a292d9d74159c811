"""model.copy: gives the same bytes a second name."""

from __future__ import annotations

from collections.abc import Awaitable

import msgspec

from modeld.jobs.job import Job
from modeld.operations.job_operation import JobOperation, Submission
from modeld.operations.operation import Call, Caller
from modeld.operations.room import with_room
from modeld.store import ModelName
from modelwire.errors import PermissionDenied
from modelwire.requests import ModelCopy
from modelwire.values import Copied


class Copy(JobOperation[ModelCopy, Copied]):
    request, value = ModelCopy, Copied

    async def run(self, call: Call, request: ModelCopy, /) -> Copied:
        if request.dry_run:
            store = self._services.store
            requester = await self._services.requester(call.caller.uid)
            plan = await store.plan_copy(request.source, request.destination, requester)
            return msgspec.structs.replace(plan, dry_run=True)
        return await super().run(call, request)

    def check(self, caller: Caller, request: ModelCopy, /) -> Submission[ModelCopy]:
        ModelName.parse(request.source)
        name = ModelName.parse(request.destination).text
        self._check_link(request, caller.uid)
        added = ["link"] if request.link else []
        return Submission(request, self.key(request.source, request.destination, caller.uid, *added), name)

    async def work(self, job: Job[ModelCopy, Copied], /) -> Copied:
        request = job.request
        self._check_link(request, job.peer)  # again: the daemon may run as another user by now
        requester = await self._services.requester_of(job)

        def copy() -> Awaitable[Copied]:
            return self._services.store.copy(
                request.source,
                request.destination,
                link=request.link,
                progress=job.progress,
                requester=requester,
                order=job.order,
                notes=self.notes(job),
                stopped=job.progress.stopped,
            )

        return await with_room(self._services, job, copy)

    def _check_link(self, request: ModelCopy, uid: int) -> None:
        """It makes a file of the site read-only, whose owner could change a blob that others rely on."""
        if request.link and not self._services.is_own(uid):
            raise PermissionDenied(
                f"'{request.source}' cannot be linked: only the daemon's own user shares files with the store",
                hint="Copy it without --link.",
                details={"name": request.source, "uid": uid},
            )

    def changes(self, request: ModelCopy, /) -> str:
        return request.source

    def made(self, outcome: Copied, /) -> bool:
        return self._services.store.renaming.copied(outcome)
