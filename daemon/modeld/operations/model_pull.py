"""model.pull: adds what a reference names, from the network, from this machine, or from the store itself.

A reference may hold a password or a signed query. The ledger, the log and the manifest get its canonical spelling,
which has none; the secret stays in memory for as long as its job lives. So such a job cannot go on after a restart,
and its error says so.
"""

from __future__ import annotations

import contextlib
import dataclasses
from functools import partial
from typing import Final

import msgspec

from modeld.jobs.board import Attachment
from modeld.jobs.publication import PublicationNotes
from modeld.operations.job_operation import Submission, requester_of
from modeld.operations.model_add import NewModel, add_path, format_key
from modeld.operations.operation import Call, Caller
from modeld.operations.room import with_room
from modeld.operations.services import Services
from modeld.pulls.pull import Pull as NetworkPull
from modeld.pulls.pull import PullJob, PullNotes
from modeld.sources.local import LocalReference
from modeld.sources.reference import Reference, fingerprint
from modeld.sources.stored import StoredReference
from modeld.store import Digest, Manner, ModelName, WouldBlock
from modelwire.errors import (
    DigestMismatch,
    Interrupted,
    InvalidRequest,
    NotFound,
    Offline,
    PermissionDenied,
    SourceNotFound,
    SourceUnauthorized,
    WireError,
)
from modelwire.limits import CREDENTIALS
from modelwire.requests import ModelPull
from modelwire.values import Pulled

FETCHES: Final = "model.pull"
ADDS: Final = "model.add"
"""The queues of pulls: of those that use the network, and of those whose bytes are on this machine."""

_LONGEST_GLOBS: Final = 16 * 1024
"""All globs together: they are part of the job's row and of its key."""

_OWN_CREDENTIALS: Final = (
    "The daemon's tokens and passwords are for its own user. Give yours with --credentials-file, or ask the operator"
    " for an [[access.credentials]] in the configuration."
)

_SECRET: Final = "model.pull with a secret "  # noqa: S105 - the prefix of a job's key, not a secret


class Pull(NewModel[ModelPull, Pulled]):
    request, value = ModelPull, Pulled

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._secret: dict[str, Reference] = {}
        """The references that hold secrets, by the keys of their jobs."""

    async def submit(self, call: Call, request: ModelPull, /) -> Attachment[ModelPull, Pulled]:
        return await super().submit(call, self._of_registered(request, call.caller.uid))

    def _of_registered(self, request: ModelPull, uid: int) -> ModelPull:
        """A pull of a registered name fetches what its document says, and expects its digest. It is for the user who
        wrote the address: another one would lend paths, networks and tokens to whatever it leads to."""
        store, reference = self._services.store, self._services.pulls.sources.read(request.ref, request.directory)
        if not isinstance(reference, StoredReference) or request.name not in (None, request.ref):
            return request
        meant = (reference.name, reference.name.with_default_tag)
        if any(store.index.knows(each) for each in meant if each is not None):
            return request  # what is here comes before what is registered
        if (registration := store.registrations.find(reference.text)) is None:
            return request
        document = registration.document
        name, address = ModelName.parse(registration.name), document.download_url or ""
        if registration.owner_uid != uid:
            raise PermissionDenied(
                f"'{name.text}' belongs to uid {registration.owner_uid}, who alone pulls it by its name",
                hint=f"Look at its `download_url` with `modelctl show {name.text} --json`, and pull that by itself:"
                f" `modelctl pull ADDRESS --name {name.text}`.",
                details={"name": name.text, "owner": registration.owner_uid, "uid": uid},
            )
        expected = document.sha256 or request.sha256
        if request.sha256 is not None and not Digest.parse(request.sha256).matches(Digest.parse(expected or "")):
            raise DigestMismatch(
                f"'{name.text}' is registered with the digest sha256:{expected}, {request.sha256} was expected",
                hint="Check the digest, or pull by a reference that names the source of the model.",
                details={"expected_sha256": Digest.parse(request.sha256).hex, "actual_sha256": expected},
            )
        if not address and not expected:
            raise SourceNotFound(
                f"'{name.text}' is registered without a place to fetch it from, and without a digest",
                hint=f"Bring its bytes under that name: `modelctl add PATH --name {name.text}`.",
                details={"name": name.text},
            )
        offline = request.offline or not address
        return msgspec.structs.replace(
            request, ref=address or name.text, name=name.text, sha256=expected, directory=None, offline=offline
        )

    def check(self, caller: Caller, request: ModelPull, /) -> Submission[ModelPull]:
        self.check_fields(request)
        _check_globs(request)
        reference = self._read(request, request.directory)
        if request.credentials is not None:
            reference = _with_credentials(reference, request.credentials)
        name = ModelName.parse(request.name) if request.name is not None else reference.suggested_name
        if reference.fixed_name is not None and name != reference.fixed_name:
            raise InvalidRequest(
                f"$.name: '{reference.text}' means the model of that name; a pull gives it no second name",
                hint=f"For a file, write ./{reference.text}; for a model in the store, run"
                f" `modelctl cp {reference.text} {name.text}`.",
                details={"name": reference.text},
            )
        stored = msgspec.structs.replace(request, ref=reference.text, name=name.text, directory=None, credentials=None)
        files = [reference.key, stored.include, stored.exclude]
        options = [stored.name, stored.sha256, stored.replace, stored.license, stored.offline, stored.max_rate]
        anew = ["hash_file"] if request.hash_file else []
        given = self._signatures.key(request)
        key = self.key(*files, *options, caller.uid, *format_key(request), *anew, *given, request=stored)
        if reference.secrets:
            # Two requests with two passwords share no job.
            key = _SECRET + key + fingerprint(f"{reference.secrets.userinfo}\0{reference.secrets.query}")
            live = {job.key for job in self._services.board.jobs}
            self._secret = {known: secret for known, secret in self._secret.items() if known in live}
            self._secret[key] = reference
        stored = msgspec.structs.replace(stored, signature=self._signatures.keep(key, request))
        return Submission(stored, key, stored.name)

    def goes_on(self, job: PullJob, /) -> bool:
        return super().goes_on(job) and not job.key.startswith(_SECRET)

    def path_of(self, request: ModelPull, /) -> str | None:
        reference = self._read(request, request.directory)
        return reference.path if isinstance(reference, LocalReference) else None

    def queue(self, request: ModelPull, /) -> str:
        """A pull from this machine waits with the adds, and not behind slow downloads."""
        with contextlib.suppress(WireError):  # the work reports it: it reads the reference again
            if not self._services.pulls.sources.read(request.ref).network:
                return ADDS
        return FETCHES

    async def work(self, job: PullJob, /) -> Pulled:
        services, reference, notes = self._services, self._reference(job), self.notes(job)
        signature = self._signatures.of(job)
        async with self.outcome_recorded(job, reference.text):
            if isinstance(reference, LocalReference):
                in_shape = PullNotes(notes, partial(Pulled, source=reference.text))
                add = partial(add_path, services, job, reference.path, in_shape, signature=signature)
                return in_shape.pulled(await self.with_phases(job, reference.path, with_room(services, job, add)))
            if isinstance(reference, StoredReference):
                path = services.store.layout.manifest(reference.name)
                return await self.with_phases(job, path, self._stored_or_registered(job, reference, notes))
            user = await services.source_user(job.peer, reference.text)
            requester = await services.requester_of(job)

            async def pull() -> Pulled:
                planned = await NetworkPull.planned(
                    services.pulls,
                    services.activity,
                    job,
                    reference,
                    notes,
                    requester=requester,
                    user=user,
                    signature=signature,
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

    async def _stored_or_registered(
        self, job: PullJob, reference: StoredReference, notes: PublicationNotes[Pulled]
    ) -> Pulled:
        """A registered model without an address has its bytes when a blob of its digest is here."""
        services = self._services
        try:
            return await self._find_stored(job, reference.name)
        except NotFound:
            if services.store.registrations.of(reference.name) is None or job.request.sha256 is None:
                raise
        requester, nobody = await services.requester_of(job), await services.source_user(None, reference.text)
        planned = await NetworkPull.planned(
            services.pulls,
            services.activity,
            job,
            reference,
            notes,
            requester=requester,
            user=nobody,
            signature=self._signatures.of(job),
        )
        try:
            return await planned.run()
        except Offline:
            raise SourceNotFound(
                f"'{reference.text}' is registered without a place to fetch it from, and no blob of its digest is here",
                hint=f"Bring its bytes under that name: `modelctl add PATH --name {reference.text}`.",
                details={"name": reference.text, "expected_sha256": job.request.sha256},
            ) from None

    async def _find_stored(self, job: PullJob, name: ModelName) -> Pulled:
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
        view, wanted = await store.models.show(resolved.name), job.request.sha256
        expected, actual = wanted and Digest.parse(wanted), Digest.parse(view.blob)
        if expected and not actual.matches(expected):
            raise DigestMismatch(
                f"'{view.name}' has the digest {actual.text}, {expected.text} was expected",
                hint="Check the digest, or pull by a reference that names the source of the model.",
                details={"expected_sha256": expected.hex, "actual_sha256": actual.hex},
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

    def _reference(self, job: PullJob) -> Reference:
        """Of a job that runs, with its secrets."""
        if not job.key.startswith(_SECRET):
            return self._read(job.request)
        if job.key not in self._secret:
            raise Interrupted(
                f"the reference of job {job.id} held a password or a signed query, which is kept nowhere:"
                " it cannot go on after a restart of the daemon",
                hint="Pull it again with the whole reference; the bytes that are here are kept.",
                retryable=False,
            )
        return self._secret[job.key]

    def _read(self, request: ModelPull, directory: str | None = None) -> Reference:
        reference = self._services.pulls.sources.read(request.ref, directory)
        if not request.include and not request.exclude:
            return reference
        if not reference.network:
            raise InvalidRequest(
                "$.include: files are chosen from what a network source has, not from what is on this machine",
                hint="Add a directory that holds only the wanted files.",
            )
        return reference.choosing(request.include, request.exclude)


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
