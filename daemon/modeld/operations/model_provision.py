"""model.provision: ensures that what a reference names is here, verified, and records what it was found to be.

It pulls, so a job of its kind is what waits, goes on and is joined; the outcome belongs to this request.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from modeld.operations.follow import follow
from modeld.operations.job_operation import requester_of
from modeld.operations.model_pull import Pull
from modeld.operations.operation import Call, SlowOperation
from modeld.operations.services import Services
from modeld.pulls.pull import PullJob
from modeld.sources.reference import Reference
from modeld.store import Digest, ModelName
from modeld.store.catalog.history import ID, UNCHECKED, Outcome
from modelwire.errors import DigestMismatch
from modelwire.requests import ModelProvision, ModelPull
from modelwire.values import Provisioned


class Provision(SlowOperation[ModelProvision, Provisioned]):
    request, value = ModelProvision, Provisioned

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._pull = Pull(services)

    async def run(self, call: Call, request: ModelProvision, /) -> Provisioned:
        reference = self._services.pulls.sources.read(request.ref, request.directory)
        expected = None if request.sha256 is None else Digest.parse(request.sha256)
        name, replace, license_ = await self._name(call.caller.uid, request, reference)
        wanted = ModelPull(
            id=request.id,
            ref=request.ref,
            name=name,
            replace=replace,
            license=license_,
            hash_file=True,
            sha256=request.sha256 if request.strict else None,
            offline=request.offline,
            directory=request.directory,
            transfer=request.transfer,
            priority=request.priority,
            token=request.token,
            on_disconnect=request.on_disconnect,
        )
        job = await follow(call, await self._pull.submit(call, wanted))
        record = partial(self._record, job, reference.text, strict=request.strict)
        try:
            pulled = job.outcome()
        except DigestMismatch as fault:
            actual = fault.details.get("actual_sha256")
            if expected is not None and isinstance(actual, str):
                where = fault.details.get("quarantine_path") or fault.details.get("path")
                await record(expected, Digest.parse(actual), str(where) if where else None)
            raise
        actual = Digest.parse(pulled.blob)
        outcome = await record(expected, actual, pulled.path, reused=pulled.reused and reference.network)
        return Provisioned(
            id=reference.text,
            local_path=pulled.path,
            digest=actual.text,
            outcome=outcome,
            name=pulled.name,
            warning=_warning(reference.text, expected, actual) if outcome == "mismatch" else pulled.warning,
            job=job.id,
        )

    async def _name(
        self, uid: int, request: ModelProvision, reference: Reference
    ) -> tuple[str | None, bool, str | None]:
        """The name of the model, whether its bytes may be replaced, and its license. The bytes under a name that an
        earlier call has made for this reference follow it, all others stay."""
        if request.name is not None or reference.fixed_name is not None:
            return request.name, False, None
        store, wanted = self._services.store, reference.suggested_name
        standing = await store.index.in_thread(partial(store.index.entry, wanted))
        if standing is None:
            return wanted.text, False, None
        requester = await self._services.requester(uid)
        manifest = standing.manifest
        if (
            manifest is not None
            and requester.may_change(standing.owner)
            and await store.history.made_for(standing.name, reference.text, manifest.digest)
        ):
            return standing.name.text, True, manifest.license
        name = wanted.for_id(reference.text, uid)
        known = await store.index.in_thread(partial(store.index.entry, name))
        return name.text, True, None if known is None or known.manifest is None else known.manifest.license

    async def _record(
        self,
        job: PullJob,
        id_: str,
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
            model=None if job.model is None else ModelName.parse(job.model),
            details=details,
        )
        await self._services.store.history.record([found], requester_of(job))
        return outcome


def _warning(id_: str, expected: Digest | None, actual: Digest) -> str:
    wanted = "" if expected is None else expected.text
    return f"{id_} has the digest {actual.text}, {wanted} was expected; it is stored under its own"
