"""model.verify: hashes the bytes of models and compares them with their digests, or with their checksums."""

from __future__ import annotations

from functools import partial
from typing import Final

from modeld.jobs.job import Job
from modeld.operations.job_operation import JobOperation, Submission, requester_of
from modeld.operations.operation import Caller
from modeld.store import Manner, ModelName
from modelwire.errors import InvalidRequest
from modelwire.requests import ModelRepair, ModelVerify
from modelwire.values import Verification

_LONGEST_NAMES: Final = 16 * 1024
"""All names together: they are part of the job's row and of its key."""


class Verify(JobOperation[ModelVerify, Verification]):
    request, value = ModelVerify, Verification

    def check(self, caller: Caller, request: ModelVerify, /) -> Submission[ModelVerify]:
        names = checked_names(request)
        key = self.key(*names, caller.uid, *(["quick"] if request.quick else []))
        return Submission(request, key, names[0] if len(names) == 1 else None)

    async def work(self, job: Job[ModelVerify, Verification], /) -> Verification:
        return await self._services.store.verifier.verify(
            None if job.request.all else job.request.names,
            Manner(
                quick=job.request.quick,
                order=job.order,
                requester=requester_of(job),
                on_failed=partial(self._services.model_failed, job=job.id),
            ),
            progress=job.progress,
        )


def checked_names(request: ModelVerify | ModelRepair) -> list[str]:
    """In order, and each once; empty for all models."""
    if sum(len(name) + 3 for name in request.names) > _LONGEST_NAMES:
        raise InvalidRequest(
            f"$.names: they are longer than {_LONGEST_NAMES} characters",
            hint="Give fewer at a time, or ask for `all`.",
        )
    names = sorted({ModelName.parse(name).text for name in request.names})
    if bool(names) == request.all:
        raise InvalidRequest(
            "$.names: models are given by name, or all of them with `all`",
            hint="Give names or `all`, not both.",
        )
    return names
