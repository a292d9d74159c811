"""model.pull: what a reference means, of the network, of this machine, or in the store already."""

from __future__ import annotations

import contextlib
from typing import Final

from modeld.jobs.job import Job
from modeld.operations.job_operation import JobOperation, Submission, asker_of
from modeld.operations.operation import Caller
from modeld.operations.services import Services
from modeld.pulls.outcome import PullNotes, pulled_from
from modeld.pulls.pull import Pull as NetworkPull
from modeld.pulls.request import Asking
from modeld.sources.local import LocalReference
from modeld.sources.stored import StoredReference
from modeld.store import Digest, Unproven
from modelwire.errors import DigestMismatch, NotFound, WireError
from modelwire.requests import ModelPull
from modelwire.values import Added, Pulled

FETCHES: Final = "model.pull"
ADDS: Final = "model.add"
"""The queues of pulls: of those that go out, and of those that find what they want on this machine."""


class Pull(JobOperation[ModelPull, Pulled]):
    request, value = ModelPull, Pulled

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._asking = Asking(services.workshop)

    def check(self, caller: Caller, request: ModelPull, /) -> Submission[ModelPull]:
        stored, key = self._asking.read(request, caller.uid)
        self._asking.remember(key, request, [job.key for job in self._services.board.jobs])
        return Submission(stored, key, stored.name)

    def queue(self, request: ModelPull, /) -> str:
        """What is on this machine is added, and must not wait for a slow line."""
        with contextlib.suppress(WireError):  # reported by the work, which reads it again
            if not self._services.workshop.read(request.ref).network:
                return ADDS
        return FETCHES

    async def work(self, job: Job[ModelPull, Pulled], /) -> Pulled:
        reference = self._asking.reference(job, job.request)
        async with self.mismatch_kept(job, reference.text):
            if isinstance(reference, LocalReference):
                return await self._add(job, reference)
            if isinstance(reference, StoredReference):
                return await self._stored(job, reference)
            services = self._services
            return await NetworkPull(services.workshop, services.activity, job, reference, self.notes(job)).run()

    def took_place(self, _: ModelPull, intent: Pulled, /) -> bool:
        return self._services.store.published(intent)

    async def _add(self, job: Job[ModelPull, Pulled], reference: LocalReference) -> Pulled:
        """What is on this machine is added, with the rights of who asks."""
        source, request = reference.text, job.request
        added = await self._services.store.add(
            reference.path,
            name=request.name,
            sha256=request.sha256,
            replace=request.replace,
            license=request.license,
            order=job.order,
            observer=job.meter,
            reader=self._services.reader_for(job.peer),
            notes=PullNotes(self.notes(job), lambda added: pulled_from(added, source)),
            asker=asker_of(job),
        )
        return pulled_from(added, source)

    async def _stored(self, job: Job[ModelPull, Pulled], reference: StoredReference) -> Pulled:
        """A name stands for what is here, and asks nobody."""
        job.meter.phase("checking_local")
        store, name = self._services.store, reference.name.text
        try:
            resolved = store.resolve(name)
        except NotFound as fault:
            if fault.details.get("close"):
                raise
            raise NotFound(
                fault.message,
                hint="a name alone means what is here; to fetch it, say where from:"
                f" ollama:{name}, hf:org/repo, ./{name}",
                details=fault.details,
            ) from None
        except Unproven:
            resolved = await store.proven(name, asker=asker_of(job), failed=self._services.model_failed)
        view, wanted = store.show(resolved.name), job.request.sha256
        expected, actual = wanted and Digest.parse(wanted), Digest.parse(view.blob)
        if expected and not actual.matches(expected):
            raise DigestMismatch(
                f"'{view.name}' has the digest {actual.text}, {expected.text} was expected",
                hint="check the digest, or pull by a reference that says where the model comes from",
                details={"expected_sha256": expected.hex, "actual_sha256": actual.hex},
            )
        added = Added(
            name=view.name,
            blob=view.blob,
            size_bytes=view.size_bytes,
            format=view.format,
            path=resolved.path,
            reused=True,
            files=view.files,
        )
        job.meter.total(view.size_bytes)
        job.meter.advance(done=view.size_bytes, reused=view.size_bytes)
        return pulled_from(added, name, current=True)
