"""model.pin and model.unpin: a model that is kept for good, and one that no longer is."""

from __future__ import annotations

from typing import TypeVar

from modeld.jobs.job import Job
from modeld.operations.job_operation import JobOperation, Submission
from modeld.operations.operation import Caller
from modeld.store import ModelName
from modelwire.requests import ModelPin, ModelUnpin
from modelwire.values import Pinned

P = TypeVar("P", bound=ModelPin | ModelUnpin)


class _Pinning(JobOperation[P, Pinned]):
    value = Pinned
    pinned: bool

    def check(self, caller: Caller, request: P, /) -> Submission[P]:
        name = ModelName.parse(request.name).text
        return Submission(request, self.key(request.name, caller.uid), name)

    async def work(self, job: Job[P, Pinned], /) -> Pinned:
        return await self._services.store.pinning.pin(
            job.request.name,
            pinned=self.pinned,
            requester=await self._services.requester_of(job),
            order=job.order,
            notes=self.notes(job),
            stopped=job.progress.stopped,
        )

    def changes(self, request: P, /) -> str:
        return request.name

    def made(self, outcome: Pinned, /) -> bool:
        return self._services.store.pinning.stands(outcome)


class Pin(_Pinning[ModelPin]):
    request, pinned = ModelPin, True


class Unpin(_Pinning[ModelUnpin]):
    request, pinned = ModelUnpin, False
