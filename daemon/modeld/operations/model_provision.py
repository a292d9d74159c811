"""model.provision: ensures that what a reference names is here, verified, and records what it was found to be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal, NamedTuple

import anyio
import msgspec

from modeld.jobs.job import Job
from modeld.operations.fetching import Fetching
from modeld.operations.job_operation import Submission, origin_of, requester_of
from modeld.operations.model_add import LocalFiles
from modeld.operations.operation import Caller
from modeld.operations.registered import of_registered
from modeld.operations.services import Services
from modeld.sources.local import LocalReference
from modeld.sources.reference import Reference
from modeld.store import Digest, ModelName
from modeld.store.catalog.history import ID, UNCHECKED, Outcome
from modeld.store.names import is_id
from modeld.store.publish.name_changes import Notes, PassedOn
from modeld.store.publish.owners import refuses_name
from modeld.store.publish.publishing import Ensuring
from modelwire.errors import AlreadyExists, DigestMismatch, PermissionDenied
from modelwire.requests import ModelProvision, ModelPull
from modelwire.values import Provisioned, Pulled

ProvisionJob = Job[ModelProvision, Provisioned]
Found = Literal["match", "mismatch", "unchecked"]


class _Name(NamedTuple):
    name: ModelName
    replaces: Digest | None = None
    """The bytes that newer ones of the same reference take the place of: no others."""
    license: str | None = None
    automatic: bool = False
    """Whether nobody asked for it."""


class _Recorded(PassedOn):
    """The outcome is on the disk before the model has its name: a restart that finds the model has nothing to add."""

    def __init__(self, notes: Notes[Provisioned], record: Callable[[Pulled], Awaitable[Provisioned]]) -> None:
        super().__init__(notes)
        self._record = record
        self.value: Provisioned | None = None
        self.is_published = False

    async def about_to_publish(self, value: Pulled, /) -> None:
        self.value = await self._record(value)
        await self._notes.about_to_publish(self.value)

    async def published(self, _: Pulled, /) -> None:
        assert self.value is not None
        self.is_published = True
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
        return self._fetching.submission(stored, key, name.text, reference)

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
        async with self.outcome_recorded(job, reference.text):
            if request.name is not None or reference.fixed_name is not None:
                given = _Name(self._fetching.name(request.name, reference))
                return await self._provision(job, reference, given)
            usual = await self._usual_name(job, reference)
            if usual is not None:
                try:
                    return await self._provision(job, reference, usual)
                except (AlreadyExists, PermissionDenied) as fault:  # the name is another model's by now
                    if not refuses_name(fault, usual.name):
                        raise
            return await self._provision(job, reference, await self._own(job, reference))

    async def _provision(self, job: ProvisionJob, reference: Reference, name: _Name) -> Provisioned:
        """Raises what `refuses_name` knows when the name is another model's. An `automatic` name that another
        model takes during a download is given up for the name that belongs to the reference alone."""
        expected = None if job.request.sha256 is None else Digest.parse(job.request.sha256)

        async def judged(pulled: Pulled) -> Provisioned:
            actual = Digest.parse(pulled.blob)
            outcome = await self._record(
                job,
                reference.text,
                ModelName.parse(pulled.name),
                expected,
                actual,
                pulled.path,
                reused=pulled.reused and reference.network,
            )
            return Provisioned(
                id=reference.text,
                local_path=pulled.path,
                digest=actual.text,
                outcome=outcome,
                name=pulled.name,
                warning=_warning(reference.text, expected, actual) if outcome == "mismatch" else pulled.warning,
            )

        async def otherwise() -> tuple[ModelPull, Ensuring]:
            return _wanted(job, reference, await self._own(job, reference))

        notes = _Recorded(self.notes(job), judged)
        wanted, ensuring = _wanted(job, reference, name)
        wanted = of_registered(self._services, wanted, job.peer)
        try:
            pulled = await self._fetching.fetch(
                job,
                wanted,
                notes,
                otherwise=otherwise if name.automatic else None,
                ensuring=ensuring,
                known_as=reference.text if name.automatic and is_id(reference.text) else None,
            )
        except BaseException:
            if notes.value is not None and not notes.is_published:
                with anyio.CancelScope(shield=True):
                    await self._services.store.history.forget_ensured(requester_of(job))
            raise
        return notes.value if notes.value is not None and notes.is_published else await judged(pulled)

    async def record_mismatch(self, job: ProvisionJob, source: str, fault: DigestMismatch) -> None:
        """Records it in the history of the model of the reference; of no model when there is none."""
        details = fault.details
        expected, actual = details.get("expected_sha256"), details.get("actual_sha256")
        if not isinstance(expected, str):
            return
        where = details.get("quarantine_path") or details.get("path")
        await self._record(
            job,
            source,
            await self._name_of(job, fault),
            Digest.parse(expected),
            Digest.parse(actual) if isinstance(actual, str) else None,
            str(where) if where else None,
            origin=origin_of(source, fault),
        )

    async def _name_of(self, job: ProvisionJob, fault: DigestMismatch) -> ModelName | None:
        """The name of the model that the reference has in the store."""
        reference = self._fetching.read(ModelPull(ref=job.request.ref))
        if reference.fixed_name is not None:
            refused = fault.details.get("name")  # where the name stands for one with the default tag
            standing = await self._standing(
                ModelName.parse(refused) if isinstance(refused, str) else reference.fixed_name
            )
            return None if standing.replaces is None else standing.name
        given = job.request.name
        names = [reference.suggested_name, reference.suggested_name.for_id(reference.text, job.peer)]
        for name in names if given is None else [ModelName.parse(given)]:
            standing = await self._standing(name)
            if standing.replaces is not None and await self._is_of(reference, standing.name, standing.replaces):
                return standing.name
        return None

    async def _usual_name(self, job: ProvisionJob, reference: Reference) -> _Name | None:
        """The usual name of the reference, unless it is another model's. The bytes under a name that an earlier job has
        made for this reference follow it, all others stay."""
        store = self._services.store
        usual = await self._standing(reference.suggested_name)
        if usual.replaces is None:
            return usual
        standing = await store.index.in_thread(partial(store.index.entry, usual.name))
        requester = await self._services.requester_of(job)
        if standing is None or not requester.may_change(standing.owner):
            return None
        return usual if await self._is_of(reference, usual.name, usual.replaces) else None

    async def _is_of(self, reference: Reference, name: ModelName, content: Digest) -> bool:
        """Whether these bytes came to the name for this reference. Each witness is enough."""
        store = self._services.store
        standing = await store.index.in_thread(partial(store.index.entry, name))
        known = None if standing is None else standing.manifest
        ids = () if standing is None or known is None or known.digest != content else standing.ids
        return reference.text in ids or await store.history.made_for(name, reference.text, content)

    async def _own(self, job: ProvisionJob, reference: Reference) -> _Name:
        return await self._standing(reference.suggested_name.for_id(reference.text, job.peer))

    async def _standing(self, name: ModelName) -> _Name:
        index = self._services.store.index
        standing = await index.in_thread(partial(index.entry, name))
        if standing is None or standing.manifest is None:
            return _Name(name, automatic=True)
        return _Name(standing.name, standing.manifest.digest, standing.manifest.license, automatic=True)

    async def _record(
        self,
        job: ProvisionJob,
        id_: str,
        name: ModelName | None,
        expected: Digest | None,
        actual: Digest | None,
        path: str | None,
        *,
        origin: str | None = None,
        reused: bool = False,
    ) -> Found:
        """Of no model without a `name`; without an `actual` digest nothing was read."""
        matches = expected is not None and actual is not None and expected.matches(actual)
        outcome: Found = UNCHECKED if expected is None else "match" if matches else "mismatch"
        details: dict[str, str | bool] = {ID: id_, "algo": "sha256", "strict": job.request.strict}
        if path is not None:
            details["path"] = path
        if reused:  # nobody read the source
            details["reused"] = True
        of = expected or actual
        assert of is not None, "what was neither expected nor read has no outcome"
        found = Outcome(
            digest=of,
            outcome=outcome,
            actual=actual,
            source=None if reused or actual is None else origin or id_,
            model=name,
            of_no_model=name is None,
            details=details,
        )
        await self._services.store.history.record_ensured(found, requester_of(job))
        return outcome


def _wanted(job: ProvisionJob, reference: Reference, name: _Name) -> tuple[ModelPull, Ensuring]:
    """The pull that brings the model under this name, and its terms."""
    request = job.request
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
    return wanted, Ensuring(replaces=name.replaces, automatic=name.automatic, one_file=request.sha256 is not None)


def _warning(id_: str, expected: Digest | None, actual: Digest) -> str:
    wanted = "" if expected is None else expected.text
    return f"{id_} has the digest {actual.text}, {wanted} was expected; it is stored under its own"
