"""Carries out pulls for jobs: those of model.pull, and those that bring in a model on their way to something else."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any, Final, Unpack

from modeld.jobs.job import AnyJob, W
from modeld.operations.job_operation import JobOperation, Submission, requester_of
from modeld.operations.model_add import ADDS, add_path
from modeld.operations.room import with_room
from modeld.operations.services import Services
from modeld.pulls.pull import Otherwise, Pull, PullNotes
from modeld.sources.local import LocalReference
from modeld.sources.reference import Reference, fingerprint
from modeld.sources.stored import StoredReference
from modeld.store import Digest, Manner, ModelName, WouldBlock
from modeld.store.publish.name_changes import Notes
from modeld.store.publish.publishing import PublishTerms, of_several_files
from modelwire.errors import (
    DigestMismatch,
    Interrupted,
    InvalidRequest,
    NotFound,
    Offline,
    SourceNotFound,
    SourceUnauthorized,
    WireError,
)
from modelwire.requests import ModelPull
from modelwire.values import Pulled

FETCHES: Final = "model.pull"
"""The queue of what uses the network. What brings in bytes of this machine waits with the adds."""

_OWN_CREDENTIALS: Final = (
    "The daemon's tokens and passwords are for its own user. Give yours with --credentials-file, or ask the operator"
    " for an [[access.credentials]] in the configuration."
)

_SECRET: Final = " with a secret "  # noqa: S105 - a part of a key, not a secret
"""In the key of a job, after the name of its kind."""


class Fetching:
    """For the jobs of one operation."""

    def __init__(self, operation: JobOperation[Any, Any], services: Services) -> None:
        self._operation = operation
        self._services = services

    def read(self, request: ModelPull, directory: str | None = None) -> Reference:
        reference = self._services.pulls.sources.read(request.ref, directory)
        if not request.include and not request.exclude:
            return reference
        if not reference.network:
            raise InvalidRequest(
                "$.include: files are chosen from what a network source has, not from what is on this machine",
                hint="Add a directory that holds only the wanted files.",
            )
        return reference.choosing(request.include, request.exclude)

    def name(self, given: str | None, reference: Reference) -> ModelName:
        """The name under which a pull of the reference publishes, or finds, its model."""
        name = reference.suggested_name if given is None else ModelName.parse(given)
        if reference.fixed_name is not None and name != reference.fixed_name:
            raise InvalidRequest(
                f"$.name: '{reference.text}' means the model of that name; a pull gives it no second name",
                hint=f"For a file, write ./{reference.text}; for a model in the store, run"
                f" `modelctl cp {reference.text} {name.text}`.",
                details={"name": reference.text},
            )
        return name

    def queue(self, text: str) -> str:
        """A pull from this machine waits with the adds, and not behind slow downloads."""
        with contextlib.suppress(WireError):  # the work reports it: it reads the reference again
            if not self._services.pulls.sources.read(text).network:
                return ADDS
        return FETCHES

    def submission(self, request: W, key: str, name: str, reference: Reference) -> Submission[W]:
        """Of a request for what the reference means. Two requests with two passwords share no job."""
        if not reference.secrets:
            return Submission(request, key, name)
        print_ = fingerprint(f"{reference.secrets.userinfo}\0{reference.secrets.query}")
        return Submission(request, f"{self._operation.name}{_SECRET}{key}{print_}", name, reference)

    def goes_on(self, job: AnyJob) -> bool:
        return not job.key.startswith(f"{self._operation.name}{_SECRET}")

    async def fetch(
        self,
        job: AnyJob,
        request: ModelPull,
        notes: Notes[Pulled],
        *,
        otherwise: Otherwise | None = None,
        **terms: Unpack[PublishTerms],
    ) -> Pulled:
        """Pulls for the job. The request is of the job, or made for it; `otherwise` as for `Pull.planned`, for what
        comes over the network. A name that has no model is given to bytes of the expected digest when a document, or a
        registration, says so. Call it in `outcome_recorded`."""
        services, reference = self._services, self._reference(job, request)
        if isinstance(reference, LocalReference):
            in_shape = PullNotes(notes, partial(Pulled, source=reference.text))
            add = partial(add_path, services, job, request, reference.path, in_shape, **terms)
            work = with_room(services, job, add)
            return in_shape.pulled(await self._operation.with_phases(job, reference.path, work))
        if isinstance(reference, StoredReference):
            path = services.store.layout.manifest(reference.name)
            work = self._stored_or_described(job, request, reference, notes, terms)
            return await self._operation.with_phases(job, path, work)
        user = await services.source_user(job.peer, reference.text)
        requester = await services.requester_of(job)

        async def pull() -> Pulled:
            planned = await Pull.planned(
                services.pulls,
                services.activity,
                job,
                request,
                reference,
                notes,
                otherwise=otherwise,
                requester=requester,
                user=user,
                **terms,
            )
            return await planned.run()

        try:
            return await with_room(services, job, pull)
        except (SourceUnauthorized, SourceNotFound) as fault:
            if not user.lends and not reference.secrets:
                # Many servers say that there is nothing where there is something private.
                spelling = "" if isinstance(fault, SourceUnauthorized) else "Check the spelling. If it is private: "
                fault.hint = spelling + _OWN_CREDENTIALS
            raise

    async def _stored_or_described(
        self,
        job: AnyJob,
        request: ModelPull,
        reference: StoredReference,
        notes: Notes[Pulled],
        terms: PublishTerms,
    ) -> Pulled:
        """A model that is described without an address has its bytes when a blob of its digest is here."""
        services, ensuring = self._services, terms.get("ensuring")
        one_file = request.sha256 is not None or (ensuring is not None and ensuring.one_file)
        if terms.get("document") is None:  # a document that is given goes into the manifest that is there, too
            try:
                return await self._find_stored(job, request, reference.name, one_file=one_file)
            except NotFound:
                if services.store.registrations.of(reference.name) is None or request.sha256 is None:
                    raise
        requester, nobody = await services.requester_of(job), await services.source_user(None, reference.text)
        planned = await Pull.planned(
            services.pulls,
            services.activity,
            job,
            request,
            reference,
            notes,
            requester=requester,
            user=nobody,
            **terms,
        )
        try:
            return await planned.run()
        except Offline:
            raise SourceNotFound(
                f"the document of '{reference.text}' has no place to fetch it from, and no blob of its digest is here",
                hint=f"Bring its bytes under that name: `modelctl add PATH --name {reference.text}`.",
                details={"name": reference.text, "expected_sha256": request.sha256},
            ) from None

    async def _find_stored(self, job: AnyJob, request: ModelPull, name: ModelName, *, one_file: bool) -> Pulled:
        store, progress = self._services.store, job.progress
        progress.phase("checking_local")
        try:
            resolved = await store.look_up(name.text)
        except NotFound as fault:
            if fault.details.get("close"):
                raise
            raise NotFound(
                fault.message,
                hint=f"A name alone means a model in the store; to fetch it, add its source:"
                f" ollama:{name.text}, hf:org/repo, ./{name.text}.",
                details=fault.details,
            ) from None
        except WouldBlock:
            resolved = await store.resolver.resolve(
                name.text, manner=Manner(requester=requester_of(job), on_failed=self._services.model_failed)
            )
        view, wanted = await store.models.show(resolved.name), request.sha256
        if one_file and view.files:
            raise of_several_files(f"'{view.name}'", len(view.files))
        expected, actual = wanted and Digest.parse(wanted), Digest.parse(view.blob)
        if expected and not actual.matches(expected):
            raise DigestMismatch(
                f"'{view.name}' has the digest {actual.text}, {expected.text} was expected",
                hint="Check the digest, or pull by a reference that names the source of the model.",
                details={"name": view.name, "expected_sha256": expected.hex, "actual_sha256": actual.hex},
            )
        progress.total(view.size_bytes)
        progress.reuse(view.size_bytes)
        return Pulled(
            name=view.name,
            blob=view.blob,
            size_bytes=view.size_bytes,
            format=view.format,
            path=resolved.path,
            reused=True,
            files=view.files,
            source=name.text,
            current=True,
        )

    def _reference(self, job: AnyJob, request: ModelPull) -> Reference:
        """Of a job that runs, with its secrets."""
        if self.goes_on(job):
            return self.read(request)
        if not isinstance(job.secret, Reference):
            raise Interrupted(
                f"the reference of job {job.id} held a password or a signed query, which is kept nowhere:"
                " it cannot go on after a restart of the daemon",
                hint="Pull it again with the whole reference; the bytes that are here are kept.",
                retryable=False,
            )
        return job.secret
