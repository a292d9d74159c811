"""model.add: a local file, a directory or a set of shards under a name."""

from __future__ import annotations

import os

import msgspec

from modeld.jobs.job import Job
from modeld.operations.job_operation import JobOperation, Submission, requester_of
from modeld.operations.operation import Caller
from modeld.store import Digest, ModelName
from modelwire.errors import InvalidRequest
from modelwire.requests import ModelAdd
from modelwire.values import Added

_LONGEST_PATH = 4095
"""As much as the kernel takes. What is refused here is stored nowhere; later it would be in the ledger and the log."""

_LONGEST_LICENSE = 1024
"""A name or an address of a license. It is part of every list of models, so it is no place for the license itself."""


class Add(JobOperation[ModelAdd, Added]):
    request, value = ModelAdd, Added

    def check(self, caller: Caller, request: ModelAdd, /) -> Submission[ModelAdd]:
        _bounded("path", request.path, _LONGEST_PATH, "no file has a longer one")
        _bounded("license", request.license, _LONGEST_LICENSE, "give the license's name or address, not its text")
        if not os.path.isabs(request.path) or "\0" in request.path:
            raise InvalidRequest(
                f"$.path: {request.path!r} is not an absolute path",
                hint="the daemon has another working directory than you: give the whole path",
            )
        name = ModelName.parse(request.name) if request.name is not None else ModelName.suggest(request.path)
        if request.sha256 is not None:
            Digest.parse(request.sha256)
        if request.move and request.link:
            raise InvalidRequest(
                "$.link: a file is either moved or linked", hint="a move takes the source away, a link keeps it"
            )
        stored = msgspec.structs.replace(request, name=name.text)
        what = [stored.path, stored.name, stored.sha256, stored.replace, stored.license]
        return Submission(stored, self.key(*what, caller.uid, stored.move, stored.link), stored.name)

    async def work(self, job: Job[ModelAdd, Added], /) -> Added:
        request = job.request
        async with self.mismatch_kept(job, request.path):
            return await self._services.store.add(
                request.path,
                name=request.name,
                sha256=request.sha256,
                replace=request.replace,
                license=request.license,
                how="move" if request.move else "link" if request.link else "copy",
                order=job.order,
                progress=job.meter,
                reader=await self._services.reader_for(job.peer),
                notes=self.notes(job),
                requester=requester_of(job),
            )

    def took_place(self, request: ModelAdd, intent: Added, /) -> bool:
        """Its content alone does not tell: the name may have stood for it before, and the job was to change what is
        said about it."""
        store = self._services.store
        if not store.models.stands_for(intent):
            return False
        if request.move and os.path.lexists(request.path):
            return False  # the source was to go: asked again, the work finds its bytes and takes it away
        return store.models.view(intent.name).license == request.license


def _bounded(field: str, text: str | None, longest: int, hint: str) -> None:
    if text is not None and (length := len(text.encode())) > longest:
        raise InvalidRequest(f"$.{field}: it has {length} bytes, {longest} are allowed", hint=hint)
