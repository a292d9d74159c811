"""model.add: adds a local file, a directory or a set of shards under a name."""

from __future__ import annotations

import os
from typing import TypeVar

import msgspec

from modeld.jobs.job import Job
from modeld.operations.job_operation import JobOperation, Submission
from modeld.operations.operation import Caller
from modeld.operations.services import Services
from modeld.store import Digest, ModelName
from modeld.store.ingest.adopt import How
from modeld.store.publish.name_changes import Notes
from modelwire.errors import InvalidRequest, PermissionDenied
from modelwire.limits import LICENSE
from modelwire.requests import ModelAdd, ModelPull
from modelwire.values import Added, Pulled

_LONGEST_PATH = 4095
"""The kernel's limit. A path that is refused here is stored nowhere; later it would be in the ledger and the log."""


N = TypeVar("N", bound=ModelAdd | ModelPull)
A = TypeVar("A", bound=Added)


class NewModel(JobOperation[N, A]):
    """What all ways to bring in a model have in common."""

    def changes(self, request: N, /) -> str | None:
        return request.name if request.replace else None

    def made(self, outcome: A, /) -> bool:
        return self._services.store.models.stands_for(outcome)

    def check_fields(self, request: N) -> None:
        _check_length("license", request.license, LICENSE, "Give the license's name or address, not its text.")
        if request.sha256 is not None:
            Digest.parse(request.sha256)


class Add(NewModel[ModelAdd, Added]):
    request, value = ModelAdd, Added

    def check(self, caller: Caller, request: ModelAdd, /) -> Submission[ModelAdd]:
        _check_length("path", request.path, _LONGEST_PATH, "Give a shorter path; no file has one so long.")
        self.check_fields(request)
        if not os.path.isabs(request.path) or "\0" in request.path:
            raise InvalidRequest(
                f"$.path: {request.path!r} is not an absolute path",
                hint="Give the whole path; the daemon has another working directory.",
            )
        name = ModelName.parse(request.name) if request.name is not None else ModelName.suggest(request.path)
        if request.move and request.link:
            raise InvalidRequest(
                "$.link: a file is either moved or linked",
                hint="Choose one: a move takes the source away, a link keeps it.",
            )
        self._check_link(request, caller.uid)
        stored = msgspec.structs.replace(request, name=name.text)
        what = [stored.path, stored.name, stored.sha256, stored.replace, stored.license]
        how = [stored.move, stored.link, *(["force_format"] if stored.force_format else [])]
        return Submission(stored, self.key(*what, caller.uid, *how), stored.name)

    async def work(self, job: Job[ModelAdd, Added], /) -> Added:
        request = job.request
        self._check_link(request, job.peer)  # again: an earlier version may have accepted it
        how: How = "move" if request.move else "link" if request.link else "copy"
        async with self.mismatch_recorded(job, request.path):
            adding = add_path(self._services, job, request.path, self.notes(job), how)
            return await self.with_phases(job, request.path, adding)

    def _check_link(self, request: ModelAdd, uid: int) -> None:
        """The owner of a linked file keeps what they had mapped of it, and could change a blob that others rely on."""
        if request.link and not self._services.is_own(uid):
            raise PermissionDenied(
                f"{request.path} cannot be linked: only the daemon's own user shares files with the store",
                hint="Add it without --link: the store copies it.",
                details={"path": request.path, "uid": uid},
            )

    def took_place(self, request: ModelAdd, intent: Added, /) -> bool:
        """The content alone does not decide: the name may have stood for the same bytes before, and the job was to
        change the license."""
        store = self._services.store
        if not store.models.stands_for(intent):
            return False
        if request.move:
            # The last step. A source that is still to be removed: run again, the work finds its bytes and removes it.
            return not os.path.lexists(request.path)
        return store.models.view(intent.name).license == request.license


async def add_path(
    services: Services,
    job: Job[ModelAdd, Added] | Job[ModelPull, Pulled],
    path: str,
    notes: Notes[Added],
    how: How = "copy",
) -> Added:
    """Adds what is at the path, with the rights of the client, as the request of the job says."""
    request = job.request
    requester = await services.requester_of(job)
    return await services.store.add(
        path,
        name=request.name,
        sha256=request.sha256,
        replace=request.replace,
        license=request.license,
        force_format=request.force_format,
        how=how,
        order=job.order,
        progress=job.progress,
        reader=await services.reader_for(job.peer),
        notes=notes,
        requester=requester,
    )


def _check_length(field: str, text: str | None, longest: int, hint: str) -> None:
    if text is not None and (length := len(text.encode())) > longest:
        raise InvalidRequest(f"$.{field}: it has {length} bytes, {longest} are allowed", hint=hint)
