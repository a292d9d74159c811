"""model.move: gives a model another name in place of its present one."""

from __future__ import annotations

from modeld.jobs.job import Job
from modeld.operations.job_operation import JobOperation, Submission
from modeld.operations.operation import Caller
from modeld.store import ModelName
from modelwire.requests import ModelMove
from modelwire.values import Moved


class Move(JobOperation[ModelMove, Moved]):
    request, value = ModelMove, Moved

    def check(self, caller: Caller, request: ModelMove, /) -> Submission[ModelMove]:
        ModelName.parse(request.source)
        name = ModelName.parse(request.destination).text
        return Submission(request, self.key(request.source, request.destination, caller.uid), name)

    async def work(self, job: Job[ModelMove, Moved], /) -> Moved:
        request = job.request
        return await self._services.store.renaming.move(
            request.source,
            request.destination,
            requester=await self._services.requester_of(job),
            order=job.order,
            notes=self.notes(job),
            stopped=job.progress.stopped,
            earlier=job.intent,
        )

    def changes(self, request: ModelMove, /) -> str:
        return request.source

    def made(self, outcome: Moved, /) -> bool:
        return self._services.store.renaming.moved(outcome)
