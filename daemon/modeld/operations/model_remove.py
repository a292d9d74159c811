"""model.remove: removes a name. Its bytes stay until a sweep finds that nothing holds them."""

from __future__ import annotations

from modeld.jobs.job import Job
from modeld.operations.job_operation import JobOperation, Submission
from modeld.operations.operation import Caller
from modeld.store import ModelName
from modelwire.requests import ModelRemove
from modelwire.values import Removed


class Remove(JobOperation[ModelRemove, Removed]):
    request, value = ModelRemove, Removed
    frees_space = True

    def check(self, caller: Caller, request: ModelRemove, /) -> Submission[ModelRemove]:
        name = ModelName.parse(request.name).text
        return Submission(request, self.key(request.name, request.force, caller.uid), name)

    async def work(self, job: Job[ModelRemove, Removed], /) -> Removed:
        return await self._services.store.renaming.remove(
            job.request.name,
            force=job.request.force,
            order=job.order,
            notes=self.notes(job),
            stopped=job.progress.stopped,
        )

    def changes(self, request: ModelRemove, /) -> str:
        return request.name

    def took_place(self, _: ModelRemove, intent: Removed, /) -> bool:
        return self._services.store.renaming.removed(intent)
