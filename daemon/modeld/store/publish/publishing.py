"""Publishes complete bytes under a name: the last step of every add and pull.

In the publisher's turn and under the name's lock it names the blob, writes the manifest and notes the job; only then
the client gets its answer. A reader sees the complete model or none, and a crash in between is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypedDict

import anyio
import msgspec

from modeld.progress import JobProgress
from modeld.store.blobs.blobs import Blob
from modeld.store.catalog.history import THE_DAEMON, Requester
from modeld.store.digest import Digest
from modeld.store.manifests import documents, manifests, writing
from modeld.store.manifests.entries import Entry
from modeld.store.manifests.manifests import File
from modeld.store.manifests.registrations import Registration
from modeld.store.names import ModelName
from modeld.store.publish import amending
from modeld.store.publish.name_changes import NameChanges, Notes, announced
from modeld.store.publish.owners import check_hides_no_other, check_owner, check_registrant, new_owner, not_owner
from modeld.store.publish.quotas import check_quota
from modelwire.errors import AlreadyExists, Corrupt, InvalidRequest, Unsupported, WireError
from modelwire.knowledge.document import ModelDocument
from modelwire.values import Added, ModelFacts, ModelFile

FormatRule = Literal["usual", "strict_format", "force_format"]
"""What may be published: what is not certainly something else, only what is read and is what its name promises, or
anything."""

Record = Callable[[Added, bool], None]
"""Notes where the bytes of what is about to be published are from, and whether its name is new."""

Commit = Callable[[], tuple[Blob, bool]]
"""Blocking: names the blob, or finds it; returns True beside it when the store had it already."""


def format_rule(*, force: bool, strict: bool) -> FormatRule:
    if force and strict:
        raise InvalidRequest(
            "$.strict_format: a format is either forced or strict",
            hint="Choose one: force_format stores what is no model, strict_format refuses what cannot be read.",
        )
    return "force_format" if force else "strict_format" if strict else "usual"


class PublishTerms(TypedDict, total=False):
    """Fields of a publish request that only some of those who bring in a model give."""

    ensuring: Ensuring | None
    document: ModelDocument | None
    known_as: str | None
    fixed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensuring:
    """The terms of a publication that ensures that a reference is here."""

    replaces: Digest | None = None
    """The only bytes that may be replaced."""

    automatic: bool = False
    """Whether nobody asked for this name. Then it must be free, or stand for what may be replaced: a model of the same
    bytes may be another user's, or have been named by hand."""

    one_file: bool = False
    """Whether a digest is compared with the bytes afterwards."""

    def allows(self, standing: Entry) -> bool:
        return not self.automatic or (standing.manifest is not None and standing.manifest.digest == self.replaces)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishRequest:
    """The name to publish under, what it may replace, and on whose behalf."""

    name: ModelName
    expected: Digest | None = None
    replace: bool = False
    follows: bool = False
    """Whether `replace` is for newer bytes of the reference that the name has, and was not asked for."""

    fixed: bool = False
    """Whether newer bytes of the reference that the name has are other bytes too."""

    ensuring: Ensuring | None = None

    document: ModelDocument | None = None
    """What describes the model, when the requester says it."""

    hash_file: bool = False
    """Whether a local file is read although bytes of the expected digest are here."""

    license: str | None = None
    known_as: str | None = None
    """An id by which the model is known beside its name from then on."""

    formats: FormatRule = "usual"

    provenance: str
    """Where the bytes come from, for the history."""

    requester: Requester = THE_DAEMON
    order: int
    progress: JobProgress
    notes: Notes[Added] | None = None

    @property
    def is_of_one_file(self) -> bool:
        """Whether a digest is given: it is of a model of one file."""
        return self.expected is not None or (self.ensuring is not None and self.ensuring.one_file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Publishing(NameChanges):
    """`NameChanges` with publications. What judges looks at the disk, and so blocks."""

    def judge(self, request: PublishRequest, digest: Digest | None, files: Sequence[File] = ()) -> bool:
        """As the function `judge`, for the present entry of the name."""
        return judge(self._standing(request, digest), request, digest, files)

    def _standing(self, request: PublishRequest, digest: Digest | None) -> Entry | None:
        entry = self.index.entry(request.name)
        if entry is None:
            if request.ensuring is not None and request.ensuring.automatic:
                # Nobody has asked for this name, so no right to the models of others counts.
                request = replace(request, requester=msgspec.structs.replace(request.requester, all_models=False))
            check_hides_no_other(self.index, self.registrations, request.name, request.requester)
            if (registration := self.registrations.of(request.name)) is not None:
                judge_registered(registration, request, digest)
        return entry

    def judge_unseen(self, request: PublishRequest, size: int | None) -> None:
        """As `judge`, for bytes of an unknown digest: they are other bytes when their size is neither the manifest's
        nor the present one, either of which may be wrong."""
        self.judge(request, None)
        standing = self.index.entry(request.name)
        if standing is None or standing.manifest is None or size is None or _may_replace(standing, request):
            return
        if size not in (standing.manifest.total_bytes, standing.view().size_bytes):
            raise _other_bytes(standing, request)

    async def publish(
        self,
        request: PublishRequest,
        digest: Digest,
        commit: Commit,
        record: Record,
        *,
        format: str,  # noqa: A002 - the manifest's word
        source: Mapping[str, str],
        files: Sequence[File] = (),
        path: str | None = None,
        warning: str | None = None,
        facts: Mapping[Digest, ModelFacts],
        last: Callable[[], object] | None = None,
    ) -> Added:
        """The same bytes under the same name again change nothing and are success.

        With `files`, `digest` is that of the file that stands for the model, and `path` is that of their tree. `facts`
        are those of the files of known formats. `record` is called before the name is given, without waiting. `last` is
        a blocking step that follows when the model is there, and that a job which is done has taken.
        """
        stopped = request.progress.stopped
        async with self.turn(request.order, request.name, stopped=stopped, notes=request.notes):
            request.progress.phase("publish")
            standing = await self.in_thread(partial(self._standing, request, digest))
            same = judge(standing, request, digest, files)
            # A cancel does not interrupt it: half a publication is of no use, and the rest takes milliseconds.
            with anyio.CancelScope(shield=True):
                blob, reused = await self.in_thread(commit)
                shown = standing.usable().format if same and standing is not None else format
                added = _added(request, blob, shown, files, path, reused=reused, warning=warning)
                if same and standing is not None and await self._lacks(standing, request):
                    record(added, False)
                    await self._amend(request, added, standing, last)
                elif not same or not await self._make_durable(request.name):
                    await self._name(request, added, blob, source, files, facts, standing, record, last)
                else:
                    record(added, False)
                    if last is not None:
                        async with announced(request.notes, added):
                            await self.in_thread(last)
        return added

    async def _name(
        self,
        request: PublishRequest,
        added: Added,
        blob: Blob,
        source: Mapping[str, str],
        files: Sequence[File],
        facts: Mapping[Digest, ModelFacts],
        standing: Entry | None,
        record: Record,
        last: Callable[[], object] | None,
    ) -> None:
        """Writes the manifest, the last write: then the model exists."""
        blobs = {Digest.parse(file.blob): file.size_bytes for file in files} or {blob.digest: blob.size}
        await self.in_thread(partial(check_quota, self.index, request.requester.quota, request.name, blobs))
        registration = None if standing is not None else self.registrations.of(request.name)
        registered = None if registration is None or not _is_of(registration, blob.digest) else registration

        said = request.document if registered is None else registered.document

        def composed() -> dict[str, Any]:
            document = writing.compose(
                request.name,
                digest=blob.digest,
                size=blob.size,
                format=added.format,
                license=request.license or (said and said.license) or None,
                source=source,
                files=files,
                owner=new_owner(request.requester, standing),
                id_=request.known_as,
                before=_before(standing),
            )
            given = registered.model if registered is not None else request.document
            if given is not None:
                of_bytes = {"size_bytes": blob.size, "sha256": blob.digest.hex}
                document["model"] = msgspec.to_builtins(given) | of_bytes
            return documents.described(document, self.layout, facts)

        document = await self.in_thread(composed)
        record(added, standing is None)
        async with announced(request.notes, added):
            try:
                await self.write(request.name, document, replace=request.replace)
            except AlreadyExists:
                # Another tool was faster, without the lock. What it published may be the very same.
                same = await self.in_thread(partial(self.judge, request, blob.digest, files))
                if not same or not await self._make_durable(request.name):
                    raise
            if registration is not None:
                with suppress(WireError):  # the next start finds the manifest, and ends it then
                    await self.in_thread(partial(self.registrations.end, request.name))
            if last is not None:
                await self.in_thread(last)

    async def _lacks(self, standing: Entry, request: PublishRequest) -> bool:
        lacks = partial(amending.lacks, standing, request.known_as, request.document, request.requester)
        return await self.in_thread(lacks)

    async def _amend(
        self, request: PublishRequest, added: Added, standing: Entry, last: Callable[[], object] | None
    ) -> None:
        """Writes the manifest of these bytes once more, with the id and the document of the request."""

        document = await self.in_thread(partial(amending.amended, standing, request.known_as, request.document))
        async with announced(request.notes, added):
            await self.write(request.name, document, replace=True)
            if last is not None:
                await self.in_thread(last)

    async def _make_durable(self, name: ModelName) -> bool:
        return await self.in_thread(partial(writing.make_durable, self.layout, name))


def judge(standing: Entry | None, request: PublishRequest, digest: Digest | None, files: Sequence[File] = ()) -> bool:
    """Whether the name stands for the requested bytes already; raises when the request must not have the name. Without
    a `digest` the bytes are not compared."""
    if standing is None:
        return False
    name = request.name
    if standing.name.text != name.text:
        raise AlreadyExists(
            f"'{name.text}' is another spelling of '{standing.name.text}', which is already there",
            hint=f"Use '{standing.name.text}', or choose a name that differs in more than case.",
            details={"name": name.text, "existing": standing.name.text},
        )
    if isinstance(standing.fault, Unsupported):
        raise standing.fault
    if request.ensuring is not None and not request.ensuring.allows(standing):
        raise writing.taken(name)
    if _may_replace(standing, request):
        return False
    if standing.manifest is None:
        why = standing.fault.message if standing.fault is not None else f"{standing.path} cannot be used"
        raise AlreadyExists(
            f"the name '{name.text}' is taken by a manifest that cannot be used: {why}",
            hint="Repair or remove that file, or request that it be replaced.",
            details={"name": name.text, "path": standing.path},
        )
    if digest is None:
        return False
    if not standing.manifest.is_of(digest.text, files):
        raise _other_bytes(standing, request, wanted=digest.text)
    if request.license is not None and request.license != standing.manifest.license:
        raise AlreadyExists(
            f"'{name.text}' has these bytes already, with {_license(standing.manifest.license)}",
            hint="Request a replacement to record another license.",
            details={"name": name.text, "license": standing.manifest.license},
        )
    if amending.lacks_id(standing, request.known_as):
        check_owner(standing, request.requester, "given an id")
    return True


def of_several_files(where: str, count: int) -> InvalidRequest:
    """The refusal of a digest for a model of so many files."""
    return InvalidRequest(
        f"$.sha256: {where} is a model of {count} files, and a digest is of one",
        hint="Leave the digest out; `modelctl show` prints the digest of each file.",
    )


def judge_registered(registration: Registration, request: PublishRequest, digest: Digest | None) -> None:
    """Raises when the request must not bring the bytes of a registered model, or brings others."""
    if registration.name != request.name.text:
        raise AlreadyExists(
            f"'{request.name.text}' is another spelling of '{registration.name}', which is registered",
            hint=f"Use '{registration.name}', or choose a name that differs in more than case.",
            details={"name": request.name.text, "existing": registration.name},
        )
    check_registrant(registration, request.requester, "replaced")
    if digest is not None and not _is_of(registration, digest) and not request.replace:
        expected = f"sha256:{registration.document.sha256}"
        raise AlreadyExists(
            f"'{registration.name}' is registered for other bytes, {expected}",
            hint="Choose another name, remove the registration, or request that it be replaced.",
            details={"name": registration.name, "existing": expected, "wanted": digest.text},
        )


def _is_of(registration: Registration, digest: Digest) -> bool:
    """Whether these may be the bytes of the registered model. Compares in constant time."""
    expected = registration.document.sha256
    return not expected or Digest(expected).matches(digest)


def _may_replace(standing: Entry, request: PublishRequest) -> bool:
    """Raises when the request insists on it and may not. One that only follows a reference may find the same bytes."""
    if not request.replace:
        return False
    if not request.follows:
        check_owner(standing, request.requester, "replaced")
    return request.requester.may_change(standing.owner)


def _other_bytes(standing: Entry, request: PublishRequest, **details: str) -> WireError:
    if request.replace:
        return not_owner(standing, request.requester, "replaced")
    fault = writing.taken(request.name)
    if not request.requester.may_change(standing.owner):
        whose = "" if standing.owner is None else f": uid {standing.owner} owns it"
        fault.hint = f"Choose another name{whose}."
    fault.details.update(existing=standing.usable().digest.text, **details)
    return fault


def _license(text: str | None) -> str:
    return "no license recorded" if text is None else f"the license {text!r}"


def _before(standing: Entry | None) -> dict[str, Any] | None:
    """The manifest that is replaced, for the fields that are not modeld's; none when it cannot be read."""
    if standing is None or standing.manifest is None:
        return None
    try:
        return manifests.read_document(standing.path)
    except (OSError, Corrupt):
        return None


def _added(
    request: PublishRequest,
    blob: Blob,
    format: str,  # noqa: A002 - the value's word
    files: Sequence[File],
    path: str | None,
    *,
    reused: bool,
    warning: str | None,
) -> Added:
    return Added(
        name=request.name.text,
        blob=blob.digest.text,
        size_bytes=sum(file.size_bytes for file in files) if files else blob.size,
        format=format,
        path=blob.path if path is None else path,
        reused=reused,
        warning=warning,
        files=tuple(
            ModelFile(path=file.path, blob=file.blob, size_bytes=file.size_bytes, role=file.role) for file in files
        ),
    )
