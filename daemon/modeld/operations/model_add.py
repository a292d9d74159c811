"""model.add: adds a local file, a directory or a set of shards under a name."""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from contextlib import ExitStack
from functools import partial
from typing import Final, TypeVar, Unpack

import anyio
import msgspec

from modeld.jobs.board import Attachment
from modeld.jobs.job import AnyJob, Job
from modeld.operations.job_operation import JobOperation, Submission, requester_of
from modeld.operations.model_ids import NewId, under_id
from modeld.operations.operation import Call, Caller
from modeld.operations.room import with_room
from modeld.operations.services import Services
from modeld.store import Digest, ModelName, Reader
from modeld.store.catalog.history import ID, REGISTERED, Outcome
from modeld.store.disk.durable import source_faults
from modeld.store.ingest.adopt import How
from modeld.store.ingest.collect import handed_reader
from modeld.store.ingest.readers import check_answers, check_handed
from modeld.store.names import is_id
from modeld.store.publish.name_changes import Notes
from modeld.store.publish.owners import check_owner
from modeld.store.publish.publishing import PublishTerms, format_rule
from modelwire.errors import AlreadyExists, Interrupted, InvalidRequest, PermissionDenied
from modelwire.limits import LICENSE
from modelwire.requests import ModelAdd, ModelProvision, ModelPull, ModelRepair
from modelwire.values import Added, Value

ADDS: Final = "model.add"
"""The queue of what brings in bytes of this machine."""

_LONGEST_PATH: Final = 4095
"""The kernel's limit. A path that is refused here is stored nowhere; later it would be in the ledger and the log."""


F = TypeVar("F", bound=ModelAdd | ModelProvision | ModelPull | ModelRepair)
N = TypeVar("N", bound=ModelAdd | ModelPull)
A = TypeVar("A", bound=Added)
V = TypeVar("V", bound=Value)


def format_key(request: ModelAdd | ModelPull) -> list[str]:
    """What a rule for formats adds to the key of a job."""
    rule = format_rule(force=request.force_format, strict=request.strict_format)
    return [] if rule == "usual" else [rule]


def signature_key(request: ModelAdd | ModelPull) -> list[str]:
    """What a signature adds to the key of a job: two requests with two signatures share none."""
    return [] if request.signature is None else ["signature", hashlib.sha256(request.signature.encode()).hexdigest()]


class LocalFiles(JobOperation[F, V]):
    """Work that may read files of this machine."""

    @abstractmethod
    def path_of(self, request: F, /) -> str | None:
        """The file or directory of this machine that it is about."""

    def goes_on(self, job: Job[F, V], /) -> bool:
        return job.request.transfer is None

    async def submit(self, call: Call, request: F, /) -> Attachment[F, V]:
        """Local files are those that the client has handed over, or those at a path that means the same to it and to
        the daemon. Who has the files handed over closes them: this request, then the job, when it ends."""
        if request.transfer is None:
            self.check(call.caller, request)
            path = self.path_of(request)
            if path is not None:
                with source_faults(path):
                    opened = await call.handed.may_name_paths()
                if not opened:
                    raise by_descriptors(path, call.caller.uid)
            return await super().submit(call, request)
        handed = call.handed.take(request.transfer)
        with ExitStack() as refused:
            refused.callback(handed.close)
            request = msgspec.structs.replace(request, transfer=handed.id)
            self.check(call.caller, request)
            if (path := self.path_of(request)) is None:
                raise InvalidRequest(
                    "$.transfer: files were handed over for what is not on this machine", hint="Leave the field out."
                )
            look = check_handed if self._services.is_own(call.caller.uid) else check_answers
            root = handed_reader(path, handed)
            await handed.examine(lambda name, descriptor: look(root.where(name), descriptor))
            self._services.handed.remember(handed)
            attachment = await super().submit(call, request)
            if attachment.job.request.transfer == handed.id:
                refused.pop_all()
                attachment.job.ended.then(handed.close)
        return attachment

    def key(self, *parts: object, request: F | None = None) -> str:
        """Nobody joins work on files that a client has handed over, but by its own token."""
        if request is not None and request.transfer is not None:
            parts = (*parts, "transfer", request.token or request.transfer)
        return super().key(*parts)


class NewModel(LocalFiles[N, A]):
    """What all ways to bring in a model have in common."""

    def kept(self, request: N, /) -> N:
        return request if request.signature is None else msgspec.structs.replace(request, signature=None)

    async def check_change(self, uid: int, name: str, /) -> None:
        index, requester = self._services.store.index, await self._services.requester(uid)
        entry = await index.in_thread(partial(index.entry, ModelName.parse(name)))
        if entry is not None:
            check_owner(entry, requester, "replaced")

    def changes(self, request: N, /) -> str | None:
        return request.name if request.replace else None

    def made(self, outcome: A, /) -> bool:
        return self._services.store.models.stands_for(outcome)

    def check_fields(self, request: N) -> None:
        _check_length("license", request.license, LICENSE, "Give the license's name or address, not its text.")
        if request.signature == "":
            raise InvalidRequest("$.signature: it is empty", hint="Give the content of the signer's file.")
        if request.sha256 is not None:
            Digest.parse(request.sha256)


class Add(NewModel[ModelAdd, Added]):
    request, value = ModelAdd, Added

    def check(self, caller: Caller, request: ModelAdd, /) -> Submission[ModelAdd]:
        check_path("path", request.path)
        self.check_fields(request)
        name = ModelName.parse(request.name) if request.name is not None else ModelName.suggest(request.path)
        if request.transfer is not None and (request.move or request.link):
            raise InvalidRequest(
                f"$.{'move' if request.move else 'link'}: a file that is handed over is copied",
                hint="Leave the field out; the client that opened the file can remove it when the model is there.",
            )
        if request.move and request.link:
            raise InvalidRequest(
                "$.link: a file is either moved or linked",
                hint="Choose one: a move takes the source away, a link keeps it.",
            )
        self._check_link(request, caller.uid)
        stored = msgspec.structs.replace(request, name=name.text)
        what = [stored.path, stored.name, stored.sha256, stored.replace, stored.license]
        how = [stored.move, stored.link, *format_key(request), *signature_key(request)]
        how += [] if stored.known_as is None else ["known_as", stored.known_as]
        return Submission(stored, self.key(*what, caller.uid, *how, request=stored), stored.name)

    async def submit(self, call: Call, request: ModelAdd, /) -> Attachment[ModelAdd, Added]:
        if request.known_as is not None:
            check_path("path", request.path)
            request = await under_id(self._services, call.caller.uid, request, request.known_as)
        return await super().submit(call, request)

    def path_of(self, request: ModelAdd, /) -> str:
        return request.path

    async def work(self, job: Job[ModelAdd, Added], /) -> Added:
        request = job.request
        self._check_link(request, job.peer)  # again: an earlier version may have accepted it
        how: How = "move" if request.move else "link" if request.link else "copy"
        async with self.outcome_recorded(job, request.path):
            known_as = request.known_as if request.known_as is not None and is_id(request.known_as) else None
            terms: PublishTerms = {"known_as": known_as}
            notes: Notes[Added] = self.notes(job)
            if known_as is not None:
                notes = NewId(notes, self._services, await self._services.requester_of(job), known_as)
            add = partial(
                add_path,
                self._services,
                job,
                request,
                request.path,
                notes,
                how,
                **terms,
            )
            try:
                added = await self.with_phases(job, request.path, with_room(self._services, job, add))
            except AlreadyExists as fault:
                if request.known_as is None:
                    raise
                raise AlreadyExists(
                    f"{request.path} cannot be registered as '{request.known_as}': {fault.message}",
                    hint="Remove that model first, or register the file under another id or name.",
                    details=fault.details,
                ) from None
        if request.known_as is not None:
            await self._record(job, added, request.known_as)
        return added

    async def _record(self, job: Job[ModelAdd, Added], added: Added, id_: str) -> None:
        digest = Digest.parse(added.blob)
        outcome = Outcome(
            digest=digest,
            outcome=REGISTERED,
            actual=digest,
            model=ModelName.parse(added.name),
            details={ID: id_, "path": job.request.path},
        )
        with anyio.CancelScope(shield=True):
            await self._services.store.history.record([outcome], requester_of(job))

    def _check_link(self, request: ModelAdd, uid: int) -> None:
        """The owner of a linked file keeps what they had mapped of it, and could change a blob that others rely on."""
        if request.link and not self._services.is_own(uid):
            raise PermissionDenied(
                f"{request.path} cannot be linked: only the daemon's own user shares files with the store",
                hint="Run `modelctl add` without --link: the store copies it.",
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
        view = store.models.view(intent.name)
        return view.license == request.license and request.known_as in (None, intent.name, *view.ids)


async def add_path(
    services: Services,
    job: AnyJob,
    request: ModelAdd | ModelPull,
    path: str,
    notes: Notes[Added],
    how: How = "copy",
    **terms: Unpack[PublishTerms],
) -> Added:
    """Adds what is at the path, or was handed over for it, as the request says."""
    reader = reader_of(services, job, path, request.transfer)
    requester = await services.requester_of(job)
    return await services.store.add(
        path,
        name=request.name,
        sha256=request.sha256,
        hash_file=request.hash_file if isinstance(request, ModelPull) else request.known_as is not None,
        replace=request.replace,
        license=request.license,
        formats=format_rule(force=request.force_format, strict=request.strict_format),
        how=how,
        order=job.order,
        progress=job.progress,
        reader=reader,
        notes=notes,
        requester=requester,
        signature=None if request.signature is None else request.signature.encode(),
        **terms,
    )


def reader_of(services: Services, job: AnyJob, path: str, transfer: str | None, again: str | None = None) -> Reader:
    """For the files at the path, which may have been handed over under that word."""
    if transfer is not None:
        handed = services.handed.known(transfer)
        if handed is None:
            raise Interrupted(
                f"the files of job {job.id} were open in the daemon, and are not after its restart",
                hint=again or f"Add {path} again.",
                retryable=False,
                details={"path": path, "job": job.id},
            )
        return handed_reader(path, handed)
    if not services.is_own(job.peer):
        raise by_descriptors(path, job.peer)  # an earlier version accepted it
    return Reader(job.peer)


def by_descriptors(path: str, uid: int) -> PermissionDenied:
    """The refusal of a path. A client that reads `by` hands the files over."""
    return PermissionDenied(
        f"{path} is not opened for uid {uid}: the daemon opens paths for its own user and root alone, and only where"
        " these see the same files as the daemon does",
        hint="Add it with `modelctl add` or another client that opens the file itself and hands it over (files.offer).",
        details={"path": path, "uid": uid, "by": "descriptors"},
    )


def check_path(field: str, path: str) -> None:
    _check_length(field, path, _LONGEST_PATH, "Give a shorter path; no file has one so long.")
    if not os.path.isabs(path) or "\0" in path:
        raise InvalidRequest(
            f"$.{field}: {path!r} is not an absolute path",
            hint="Give the whole path; the daemon has another working directory.",
        )


def _check_length(field: str, text: str | None, longest: int, hint: str) -> None:
    if text is not None and (length := len(text.encode())) > longest:
        raise InvalidRequest(f"$.{field}: it has {length} bytes, {longest} are allowed", hint=hint)
