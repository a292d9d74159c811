"""model.copy: gives the same bytes a second name."""

from __future__ import annotations

from functools import partial

import msgspec

from modeld.jobs.job import Job
from modeld.operations.job_operation import JobOperation, Submission, requester_of
from modeld.operations.operation import Call, Caller
from modeld.store import ModelName, Requester
from modelwire.requests import ModelCopy
from modelwire.values import Copied


class Copy(JobOperation[ModelCopy, Copied]):
    request, value = ModelCopy, Copied

    async def run(self, call: Call, request: ModelCopy, /) -> Copied:
        if request.dry_run:
            store = self._services.store
            requester = Requester(peer=call.caller.uid)
            plan = await store.index.in_thread(
                partial(store.renaming.plan_copy, request.source, request.destination, requester)
            )
            return msgspec.structs.replace(plan, dry_run=True)
        return await super().run(call, request)

    def check(self, caller: Caller, request: ModelCopy, /) -> Submission[ModelCopy]:
        ModelName.parse(request.source)
        name = ModelName.parse(request.destination).text
        return Submission(request, self.key(request.source, request.destination, caller.uid), name)

    async def work(self, job: Job[ModelCopy, Copied], /) -> Copied:
        request = job.request
        return await self._services.store.renaming.copy(
            request.source,
            request.destination,
            requester=requester_of(job),
            order=job.order,
            notes=self.notes(job),
            stopped=job.progress.stopped,
        )

    def changes(self, request: ModelCopy, /) -> str:
        return request.source

    def made(self, outcome: Copied, /) -> bool:
        return self._services.store.renaming.copied(outcome)
