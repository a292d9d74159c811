"""model.verify: hashes the bytes of models and compares them with their digests."""

from __future__ import annotations

from functools import partial
from typing import Final

from modeld.jobs.job import Job
from modeld.operations.job_operation import JobOperation, Submission, requester_of
from modeld.operations.operation import Caller
from modeld.store import ModelName
from modelwire.errors import InvalidRequest
from modelwire.requests import ModelVerify
from modelwire.values import Verification

_LONGEST_NAMES: Final = 16 * 1024
"""All names together: they are part of the job's row and of its key."""


class Verify(JobOperation[ModelVerify, Verification]):
    request, value = ModelVerify, Verification

    def check(self, caller: Caller, request: ModelVerify, /) -> Submission[ModelVerify]:
        if sum(len(name) + 3 for name in request.names) > _LONGEST_NAMES:
            raise InvalidRequest(
                f"$.names: they are longer than {_LONGEST_NAMES} characters",
                hint="Give fewer at a time, or verify `all`.",
            )
        names = sorted({ModelName.parse(name).text for name in request.names})
        if bool(names) == request.all:
            raise InvalidRequest(
                "$.names: models are verified by name, or all of them with `all`",
                hint="Give names or `all`, not both.",
            )
        return Submission(request, self.key(*names, caller.uid), names[0] if len(names) == 1 else None)

    async def work(self, job: Job[ModelVerify, Verification], /) -> Verification:
        return await self._services.store.verifier.verify(
            None if job.request.all else job.request.names,
            order=job.order,
            progress=job.progress,
            requester=requester_of(job),
            on_failed=partial(self._services.model_failed, job=job.id),
        )
