"""model.pull: adds what a reference names, from the network, from this machine, or from the store itself.

A reference may hold a password or a signed query. The ledger, the log and the manifest get its canonical spelling,
which has none; the secret stays in memory for as long as its job lives. So such a job cannot go on after a restart,
and its error says so.
"""

from __future__ import annotations

import dataclasses
from typing import Final

import msgspec

from modeld.jobs.board import Attachment
from modeld.jobs.job import Job
from modeld.operations.fetching import Fetching
from modeld.operations.job_operation import Submission
from modeld.operations.model_add import NewModel, format_key, signature_key
from modeld.operations.operation import Call, Caller
from modeld.operations.registered import of_registered
from modeld.operations.services import Services
from modeld.sources.local import LocalReference
from modeld.sources.reference import Reference
from modelwire.errors import InvalidRequest
from modelwire.limits import CREDENTIALS
from modelwire.requests import ModelPull
from modelwire.values import Pulled

_LONGEST_GLOBS: Final = 16 * 1024
"""All globs together: they are part of the job's row and of its key."""


class Pull(NewModel[ModelPull, Pulled]):
    request, value = ModelPull, Pulled

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._fetching = Fetching(self, services)

    async def submit(self, call: Call, request: ModelPull, /) -> Attachment[ModelPull, Pulled]:
        return await super().submit(call, of_registered(self._services, request, call.caller.uid))

    def check(self, caller: Caller, request: ModelPull, /) -> Submission[ModelPull]:
        self.check_fields(request)
        _check_globs(request)
        reference = self._fetching.read(request, request.directory)
        if request.credentials is not None:
            reference = _with_credentials(reference, request.credentials)
        name = self._fetching.name(request.name, reference)
        stored = msgspec.structs.replace(request, ref=reference.text, name=name.text, directory=None, credentials=None)
        files = [reference.key, stored.include, stored.exclude]
        options = [stored.name, stored.sha256, stored.replace, stored.license, stored.offline, stored.max_rate]
        anew = ["hash_file"] if request.hash_file else []
        given = signature_key(request)
        key = self.key(*files, *options, caller.uid, *format_key(request), *anew, *given, request=stored)
        return self._fetching.submission(stored, key, name.text, reference)

    def goes_on(self, job: Job[ModelPull, Pulled], /) -> bool:
        return super().goes_on(job) and self._fetching.goes_on(job)

    def pull_of(self, request: ModelPull, /) -> ModelPull:
        return request

    def path_of(self, request: ModelPull, /) -> str | None:
        reference = self._fetching.read(request, request.directory)
        return reference.path if isinstance(reference, LocalReference) else None

    def queue(self, request: ModelPull, /) -> str:
        return self._fetching.queue(request.ref)

    async def work(self, job: Job[ModelPull, Pulled], /) -> Pulled:
        async with self.outcome_recorded(job, job.request.ref):
            return await self._fetching.fetch(job, job.request, self.notes(job))


def _with_credentials(reference: Reference, given: str) -> Reference:
    """No error repeats them."""
    fault = None
    if not reference.network:
        fault = f"{reference.text} is on this machine and takes none"
    elif reference.secrets.userinfo is not None:
        fault = "the reference has a user or a password of its own"
    elif not given or len(given) > CREDENTIALS or not given.isprintable():
        fault = f"expected one line of 1 to {CREDENTIALS} characters"
    else:
        userinfo = reference.userinfo_of(given)
        if userinfo is not None:
            secrets = dataclasses.replace(reference.secrets, userinfo=userinfo)
            return dataclasses.replace(reference, secrets=secrets)
        fault = "expected user:password"
    raise InvalidRequest(f"$.credentials: {fault}", hint="Give a token for hf:, and user:password for other places.")


def _check_globs(request: ModelPull) -> None:
    for field, globs in (("include", request.include), ("exclude", request.exclude)):
        if sum(len(glob) + 3 for glob in globs) > _LONGEST_GLOBS:
            raise InvalidRequest(
                f"$.{field}: the globs are longer than {_LONGEST_GLOBS} characters", hint="Give fewer."
            )
        if not all(globs):
            raise InvalidRequest(f"$.{field}: a glob is empty, and fits nothing", hint="Leave it out.")
