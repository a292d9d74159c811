"""store.sweep: removes the blobs that nothing holds any more."""

from __future__ import annotations

import anyio.to_thread

from modeld.jobs.job import Job
from modeld.operations.job_operation import JobOperation, Submission
from modeld.operations.operation import Caller
from modelwire.requests import StoreSweep
from modelwire.values import Swept


class Sweep(JobOperation[StoreSweep, Swept]):
    request, value = StoreSweep, Swept
    frees_space = True

    def check(self, caller: Caller, request: StoreSweep, /) -> Submission[StoreSweep]:
        return Submission(request, self.key(request.dry_run, request.grace_s, caller.uid), None)

    async def work(self, job: Job[StoreSweep, Swept], /) -> Swept:
        store, request = self._services.store, job.request
        swept = await store.sweeper.sweep(
            dry_run=request.dry_run, grace=request.grace_s, order=job.order, progress=job.progress
        )
        await anyio.to_thread.run_sync(store.reserve.refill)
        return swept
