"""model.pull: adds what a reference names, from the network, from this machine, or from the store itself."""

from __future__ import annotations

import contextlib
from typing import Final

from modeld.jobs.job import Job
from modeld.operations.job_operation import JobOperation, Submission
from modeld.operations.operation import Caller
from modeld.operations.services import Services
from modeld.pulls.local import add_local, use_stored
from modeld.pulls.pull import Pull as NetworkPull
from modeld.pulls.request import PullRequests
from modeld.sources.local import LocalReference
from modeld.sources.stored import StoredReference
from modelwire.errors import WireError
from modelwire.requests import ModelPull
from modelwire.values import Pulled

FETCHES: Final = "model.pull"
ADDS: Final = "model.add"
"""The queues of pulls: of those that use the network, and of those whose bytes are on this machine."""


class Pull(JobOperation[ModelPull, Pulled]):
    request, value = ModelPull, Pulled

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._requests = PullRequests(services.pulls)

    def check(self, caller: Caller, request: ModelPull, /) -> Submission[ModelPull]:
        stored, key = self._requests.accept(request, caller.uid, [job.key for job in self._services.board.jobs])
        return Submission(stored, key, stored.name)

    def queue(self, request: ModelPull, /) -> str:
        """A pull from this machine waits with the adds, and not behind slow downloads."""
        with contextlib.suppress(WireError):  # the work reports it: it reads the reference again
            if not self._services.pulls.sources.read(request.ref).network:
                return ADDS
        return FETCHES

    async def work(self, job: Job[ModelPull, Pulled], /) -> Pulled:
        services, reference, notes = self._services, self._requests.reference(job, job.request), self.notes(job)
        async with self.mismatch_recorded(job, reference.text):
            if isinstance(reference, LocalReference):
                return await add_local(services.store, job, reference, await services.reader_for(job.peer), notes)
            if isinstance(reference, StoredReference):
                return await use_stored(services.store, job, reference, services.model_failed)
            pull = await NetworkPull.planned(services.pulls, services.activity, job, reference, notes)
            return await pull.run()

    def took_place(self, _: ModelPull, intent: Pulled, /) -> bool:
        return self._services.store.models.stands_for(intent)
