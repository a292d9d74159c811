"""model.repair: brings back what is damaged or missing of models."""

from __future__ import annotations

from functools import partial

from modeld.operations.job_operation import Submission
from modeld.operations.model_add import LocalFiles, check_path, reader_of
from modeld.operations.model_verify import checked_names
from modeld.operations.operation import Caller
from modeld.pulls import repair
from modeld.pulls.repair import RepairJob
from modeld.store import Reader
from modelwire.requests import ModelRepair
from modelwire.values import Repaired


class Repair(LocalFiles[ModelRepair, Repaired]):
    request, value = ModelRepair, Repaired

    def check(self, caller: Caller, request: ModelRepair, /) -> Submission[ModelRepair]:
        names = checked_names(request)
        if request.from_ is not None:
            check_path("from", request.from_)
        key = self.key(*names, request.from_, caller.uid, request=request)
        return Submission(request, key, names[0] if len(names) == 1 else None)

    def path_of(self, request: ModelRepair, /) -> str | None:
        return request.from_

    def _reader(self, job: RepairJob, path: str) -> Reader:
        return reader_of(self._services, job, path, job.request.transfer, "Repair it again.")

    async def work(self, job: RepairJob, /) -> Repaired:
        services, path = self._services, job.request.from_
        async with self.outcome_recorded(job, path or "its recorded source"):
            return await repair.Repair(
                services.pulls,
                services.activity,
                job,
                requester=await services.requester_of(job),
                user_of=partial(services.source_user, job.peer),
                on_failed=partial(services.model_failed, job=job.id),
                reader=None
                if path is None
                else reader_of(services, job, path, job.request.transfer, "Repair it again."),
            ).run()
