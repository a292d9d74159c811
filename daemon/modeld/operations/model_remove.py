"""model.remove: removes a name. Its bytes stay until a sweep finds that nothing holds them, or go at once."""

from __future__ import annotations

import contextlib

import anyio
import anyio.to_thread
import msgspec

from modeld.jobs.job import Job
from modeld.operations.job_operation import JobOperation, Submission
from modeld.operations.operation import Caller
from modeld.store import Digest, ModelName
from modelwire.errors import WireError
from modelwire.requests import ModelRemove
from modelwire.values import Removed


class Remove(JobOperation[ModelRemove, Removed]):
    request, value = ModelRemove, Removed
    frees_space = True

    def check(self, caller: Caller, request: ModelRemove, /) -> Submission[ModelRemove]:
        name = ModelName.parse(request.name).text
        added = ["now"] if request.now else []  # a job of an earlier version has the key without it
        return Submission(request, self.key(request.name, request.force, caller.uid, *added), name)

    async def work(self, job: Job[ModelRemove, Removed], /) -> Removed:
        notes = self.notes(job)
        requester, stopped = await self._services.requester_of(job), job.progress.stopped
        unregistered = await self._services.store.registering.remove(
            ModelName.parse(job.request.name), requester=requester, order=job.order, notes=notes, stopped=stopped
        )
        if unregistered is not None:
            return unregistered
        removed = await self._services.store.renaming.remove(
            job.request.name,
            force=job.request.force,
            requester=requester,
            order=job.order,
            notes=notes,
            stopped=stopped,
        )
        if not job.request.now:
            return removed
        with anyio.CancelScope(shield=True):
            removed = await self._swept(removed, job.order)
            await notes.published(removed)
        return removed

    async def _swept(self, removed: Removed, order: int) -> Removed:
        """The name is gone whatever becomes of its bytes: what cannot be removed now is left to a later sweep."""
        store, freed = self._services.store, 0
        with contextlib.suppress(WireError):
            freed = (
                await store.sweeper.sweep_blobs(list(map(Digest.parse, removed.blobs)), grace=0, order=order)
            ).freed_bytes
            await anyio.to_thread.run_sync(store.reserve.refill)
        left = max(0, removed.frees_bytes - freed)
        return msgspec.structs.replace(
            removed, freed_bytes=freed, frees_bytes=left, frees_at=removed.frees_at if left else None
        )

    def changes(self, request: ModelRemove, /) -> str:
        return request.name

    def took_place(self, _: ModelRemove, intent: Removed, /) -> bool:
        store = self._services.store
        return store.renaming.removed(intent) and store.registrations.of(ModelName.parse(intent.name)) is None
