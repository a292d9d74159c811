"""store.sweep: removes the blobs that nothing holds any more."""

from __future__ import annotations

import anyio.to_thread

from modeld.jobs.job import Job
from modeld.operations.job_operation import JobOperation, Submission
from modeld.operations.operation import Caller
from modelwire.errors import InvalidRequest
from modelwire.requests import StoreSweep
from modelwire.values import Swept


class Sweep(JobOperation[StoreSweep, Swept]):
    request, value = StoreSweep, Swept
    frees_space = True

    def check(self, caller: Caller, request: StoreSweep, /) -> Submission[StoreSweep]:
        if request.quarantine and (request.partials or request.grace_s is not None):
            raise InvalidRequest(
                "$.quarantine: it takes what is in quarantine and nothing else, so there is no period and no partial",
                hint="Send two requests.",
            )
        # A job of an earlier version has the key without the options that came later.
        added = [option for option in ("partials", "quarantine") if getattr(request, option)]
        return Submission(request, self.key(request.dry_run, request.grace_s, caller.uid, *added), None)

    async def work(self, job: Job[StoreSweep, Swept], /) -> Swept:
        store, request = self._services.store, job.request
        if request.quarantine:
            swept = await store.sweeper.empty_quarantine(
                dry_run=request.dry_run, order=job.order, progress=job.progress
            )
        else:
            swept = await store.sweeper.sweep(
                dry_run=request.dry_run,
                grace=request.grace_s,
                partials=request.partials,
                order=job.order,
                progress=job.progress,
            )
        await anyio.to_thread.run_sync(store.reserve.refill)
        return swept
