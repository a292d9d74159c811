"""model.provision: ensures that what a reference names is here, verified, and records what it was found to be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Literal, NamedTuple

import msgspec

from modeld.jobs.job import Job
from modeld.operations.fetching import Fetching
from modeld.operations.job_operation import Submission, requester_of
from modeld.operations.model_add import LocalFiles
from modeld.operations.operation import Caller
from modeld.operations.registered import of_registered
from modeld.operations.services import Services
from modeld.sources.local import LocalReference
from modeld.sources.reference import Reference
from modeld.store import Digest, ModelName
from modeld.store.catalog.history import ID, UNCHECKED, Outcome
from modeld.store.names import is_id
from modeld.store.publish.name_changes import Notes
from modelwire.errors import AlreadyExists, DigestMismatch
from modelwire.requests import ModelProvision, ModelPull
from modelwire.values import Provisioned, Pulled

ProvisionJob = Job[ModelProvision, Provisioned]


class _Name(NamedTuple):
    name: ModelName
    replaces: Digest | None = None
    """The bytes that newer ones of the same reference take the place of: no others."""
    license: str | None = None
    known_as: str | None = None
    """By which the model is known from then on: the reference, unless the caller has chosen the name."""


class _Recorded:
    """The outcome is on the disk before the model has its name: a restart that finds the model has nothing to add."""

    def __init__(self, notes: Notes[Provisioned], record: Callable[[Pulled], Awaitable[Provisioned]]) -> None:
        self._notes = notes
        self._record = record
        self.value: Provisioned | None = None

    def waits_for(self, holder: str, /) -> AbstractAsyncContextManager[None]:
        return self._notes.waits_for(holder)

    async def about_to_publish(self, value: Pulled, /) -> None:
        self.value = await self._record(value)
        await self._notes.about_to_publish(self.value)

    async def published(self, _: Pulled, /) -> None:
        assert self.value is not None
        await self._notes.published(self.value)


class Provision(LocalFiles[ModelProvision, Provisioned]):
    request, value = ModelProvision, Provisioned

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._fetching = Fetching(self, services)

    def check(self, caller: Caller, request: ModelProvision, /) -> Submission[ModelProvision]:
        if request.sha256 is not None:
            Digest.parse(request.sha256)
        reference = self._fetching.read(ModelPull(ref=request.ref), request.directory)
        name = self._fetching.name(request.name, reference)
        stored = msgspec.structs.replace(request, ref=reference.text, directory=None)
        options = [stored.sha256, stored.strict, stored.name, stored.offline, stored.max_rate]
        key = self.key(reference.key, *options, caller.uid, request=stored)
        return Submission(stored, self._fetching.key(key, reference), name.text)

    def pull_of(self, request: ModelProvision, /) -> ModelPull:
        return ModelPull(ref=request.ref, sha256=request.sha256 if request.strict else None)

    def path_of(self, request: ModelProvision, /) -> str | None:
        reference = self._fetching.read(ModelPull(ref=request.ref), request.directory)
        return reference.path if isinstance(reference, LocalReference) else None

    def queue(self, request: ModelProvision, /) -> str:
        return self._fetching.queue(request.ref)

    def goes_on(self, job: ProvisionJob, /) -> bool:
        return super().goes_on(job) and self._fetching.goes_on(job)

    def made(self, outcome: Provisioned, /) -> bool:
        return self._services.store.models.has_digest(outcome.name, outcome.digest)

    async def work(self, job: ProvisionJob, /) -> Provisioned:
        request, reference = job.request, self._fetching.read(ModelPull(ref=job.request.ref))
        own = reference.suggested_name.for_id(reference.text, job.peer)
        if request.name is not None or reference.fixed_name is not None:
            return await self._provision(job, reference, _Name(self._fetching.name(request.name, reference)))
        usual = await self._usual_name(job, reference)
        if usual is not None:
            try:
                return await self._provision(job, reference, usual)
            except AlreadyExists:  # the name has been given to another model meanwhile
                if usual.name == own:
                    raise
        return await self._provision(job, reference, await self._standing(own, reference))

    async def _provision(self, job: ProvisionJob, reference: Reference, name: _Name) -> Provisioned:
        request = job.request
        expected = None if request.sha256 is None else Digest.parse(request.sha256)
        wanted = ModelPull(
            ref=reference.text,
            name=name.name.text,
            replace=name.replaces is not None,
            license=name.license,
            hash_file=True,
            sha256=request.sha256 if request.strict else None,
            offline=request.offline,
            transfer=request.transfer,
        )
        record = partial(self._record, job, reference.text, name.name, strict=request.strict)

        async def judged(pulled: Pulled) -> Provisioned:
            actual = Digest.parse(pulled.blob)
            outcome = await record(expected, actual, pulled.path, reused=pulled.reused and reference.network)
            return Provisioned(
                id=reference.text,
                local_path=pulled.path,
                digest=actual.text,
                outcome=outcome,
                name=pulled.name,
                warning=_warning(reference.text, expected, actual) if outcome == "mismatch" else pulled.warning,
            )

        notes = _Recorded(self.notes(job), judged)
        wanted = of_registered(self._services, wanted, job.peer)
        try:
            pulled = await self._fetching.fetch(job, wanted, notes, replaces=name.replaces, known_as=name.known_as)
        except DigestMismatch as fault:
            actual = fault.details.get("actual_sha256")
            if expected is not None and isinstance(actual, str):
                where = fault.details.get("quarantine_path") or fault.details.get("path")
                await record(expected, Digest.parse(actual), str(where) if where else None)
            raise
        return notes.value or await judged(pulled)

    async def _usual_name(self, job: ProvisionJob, reference: Reference) -> _Name | None:
        """The usual name of the reference, unless it is another model's. The bytes under a name that an earlier job has
        made for this reference follow it, all others stay."""
        store = self._services.store
        usual = await self._standing(reference.suggested_name, reference)
        if usual.replaces is None:
            return usual
        standing = await store.index.in_thread(partial(store.index.entry, usual.name))
        requester = await self._services.requester_of(job)
        if standing is None or not requester.may_change(standing.owner):
            return None
        followed = reference.text in standing.ids or await store.history.made_for(
            usual.name, reference.text, usual.replaces
        )
        return usual if followed else None

    async def _standing(self, name: ModelName, reference: Reference) -> _Name:
        id_ = reference.text if is_id(reference.text) else None
        index = self._services.store.index
        standing = await index.in_thread(partial(index.entry, name))
        if standing is None or standing.manifest is None:
            return _Name(name, known_as=id_)
        return _Name(standing.name, standing.manifest.digest, standing.manifest.license, id_)

    async def _record(
        self,
        job: ProvisionJob,
        id_: str,
        name: ModelName,
        expected: Digest | None,
        actual: Digest,
        path: str | None,
        *,
        strict: bool,
        reused: bool = False,
    ) -> Literal["match", "mismatch", "unchecked"]:
        outcome: Literal["match", "mismatch", "unchecked"] = (
            UNCHECKED if expected is None else "match" if expected.matches(actual) else "mismatch"
        )
        details: dict[str, str | bool] = {ID: id_, "algo": "sha256", "strict": strict}
        if path is not None:
            details["path"] = path
        if reused:  # nobody read the source
            details["reused"] = True
        found = Outcome(
            digest=expected or actual,
            outcome=outcome,
            actual=actual,
            source=None if reused else id_,
            model=name,
            details=details,
        )
        await self._services.store.history.record([found], requester_of(job))
        return outcome


def _warning(id_: str, expected: Digest | None, actual: Digest) -> str:
    wanted = "" if expected is None else expected.text
    return f"{id_} has the digest {actual.text}, {wanted} was expected; it is stored under its own"
