"""The last steps of every add and pull: files that are in the store or staged become one published model.

In the publisher's turn all of them have their names before the manifest is written. So a reader sees the whole model or
nothing. A local file is committed in that turn, a download as soon as it is verified: the files of an abandoned pull
are kept, and two models that share a file share its transfer. Blobs without a manifest are no model.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from modeld.inspect.formats import UNKNOWN
from modeld.inspect.inspection import Inspection
from modeld.progress import FileProgress, JobProgress, Stopped
from modeld.signatures.rules import Rules
from modeld.store import parts
from modeld.store.blobs import blobs
from modeld.store.blobs.blobs import Blob
from modeld.store.catalog.facts import Facts
from modeld.store.catalog.history import History, Quota, Requester, added_from
from modeld.store.catalog.records import Records
from modeld.store.digest import Digest, Relinked, Signature
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Space
from modeld.store.disk.user_space import UserSpaces
from modeld.store.ingest.commit import Batch, Committed
from modeld.store.ingest.from_site import SiteBlob
from modeld.store.ingest.look import look_at
from modeld.store.ingest.staged import Staged
from modeld.store.ingest.trusted import Origin, check_signed
from modeld.store.manifests.manifests import File, content_of
from modeld.store.manifests.sites import Sites
from modeld.store.manifests.trees import Trees
from modeld.store.names import ModelName
from modeld.store.parts import printable
from modeld.store.publish.holds import Holds
from modeld.store.publish.publishing import FormatRule, Publishing, PublishRequest
from modeld.store.publish.quotas import check_bytes, owned_by
from modelwire.errors import Corrupt, InvalidRequest, PermissionDenied, SourceNotFound, SourceUnavailable
from modelwire.values import Added, ModelFacts

Item = TypeVar("Item")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyFile:
    """One file of a model that is ready to be published: its bytes are in the store, or staged."""

    path: str
    content: Blob | Staged
    role: str | None = None
    source: Signature | None = None
    """Of a local file that is known to have these bytes for as long as it has this signature."""

    read: bool = False
    """This request has read or fetched the bytes."""

    new: bool = False
    """This request has added the blob."""

    served: Mapping[str, int] = field(default_factory=dict)
    """Bytes from each source."""

    validator: str | None = None
    """Of the version whose bytes these are, as its source said it: an ETag, or a date that serves as one."""

    inspection: Inspection | None = None
    """Set when the blob was inspected as it was committed."""

    @property
    def digest(self) -> Digest:
        return self.content.digest

    @property
    def size(self) -> int:
        return self.content.size


_LONGEST_VERSION: Final = 200
"""Characters of a revision or an ETag in the history: four times those that hubs and servers give. Any server chooses
its own."""

MAX_ATTEMPTS: Final = 3


class Vanished(Corrupt):
    """A blob that the request needs has been removed or changed."""


async def until_there(attempt: Callable[[], Awaitable[T]]) -> T:
    """The result of an attempt to use blobs that are there. Each but the last may fail because another program removes
    one of them meanwhile."""
    for _attempt in range(MAX_ATTEMPTS - 1):
        with suppress(Vanished):
            return await attempt()
    return await attempt()


async def for_each(
    items: Iterable[Item], work: Callable[[Item], Awaitable[None]], progress: JobProgress, *, at_once: int
) -> None:
    """Works on the files of one job, some at once. When one fails the others stop, and then its error is raised."""
    waiting, faults = iter(items), list[Exception]()

    async def work_on() -> None:
        for item in waiting:
            if faults:
                return
            try:
                await work(item)
            except Exception as fault:  # noqa: BLE001 - raised below, when the others have stopped
                faults.append(fault)
                progress.stop_files()

    async with anyio.create_task_group() as tasks:
        for _ in range(at_once):
            tasks.start_soon(work_on)
    if faults:
        raise next((fault for fault in faults if not isinstance(fault, Stopped)), faults[0])


def still_there(layout: Layout, blob: Blob, trees: Trees) -> Blob:
    """The blob as it is now. In the publisher's turn: a sweep may have run since the blob was found, or another program
    has written to it. What the trees of other models do to its links is no change."""
    now = blobs.stat_blob(layout, blob.digest)
    if now is None or not trees.only_relinked(blob.signature, now.signature):
        raise Vanished(
            f"{blob.path} disappears from the store, or changes, before the model that needs it is published",
            hint="Find the program that changes blobs of this store, then try again.",
            retryable=True,
            details={"path": blob.path},
        )
    return now


def first_of(files: Sequence[ReadyFile]) -> ReadyFile:
    """The file that stands for the model."""
    return files[parts.first_weights([(file.path, file.role or "", file.size) for file in files])]


def standing_for(files: Sequence[File], *, alone: bool) -> tuple[Digest, Sequence[File]]:
    """What names a model of these files: the digest of the one that stands for it, and all that its manifest lists."""
    first = parts.first_weights([(file.path, file.role or "", file.size_bytes) for file in files])
    return Digest.parse(files[first].blob), () if alone else files


def listed(files: Sequence[ReadyFile]) -> list[File]:
    """The files as a manifest lists them."""
    return [
        File(path=file.path, blob=file.digest.text, size_bytes=file.size, role=file.role or parts.role_of(file.path))
        for file in files
    ]


def _inspected(files: Sequence[ReadyFile]) -> dict[str, Inspection]:
    """Blocking. What each file says about itself, by its path."""
    known = {
        file.path: file.content.inspection if isinstance(file.content, Staged) else file.inspection for file in files
    }
    return {file.path: known[file.path] or look_at(file.content.path, file.path) for file in files}


def _facts(inspected: Mapping[str, Inspection], file: ReadyFile) -> ModelFacts | None:
    return inspected[file.path].facts if file.path in inspected else None


def _refuse_unsound(inspected: Mapping[str, Inspection], rule: FormatRule) -> None:
    for path, each in inspected.items():
        if each.fault is not None and rule != "force_format":
            raise Corrupt(
                f"{path} is no model: {each.fault}; nothing was published",
                hint="Get the whole file and try again, or store it as it is with --force-format.",
                details={"path": path, "reason": each.fault},
            )
        reason = each.doubt if rule == "strict_format" and parts.role_of(path) in parts.OF_WEIGHTS else None
        if reason is not None:
            raise Corrupt(
                f"{path} is refused: {reason}; nothing was published",
                hint="Leave out --strict-format to store it as it is.",
                details={"path": path, "reason": reason},
            )


def _warning(inspected: Mapping[str, Inspection]) -> str | None:
    """The first thing to know of these files."""
    return next((f"{path}: {each.surprise}" for path, each in inspected.items() if each.surprise), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingest:
    """The parts of the store that byte work needs. For the event loop."""

    publishing: Publishing
    records: Records
    history: History
    facts: Facts
    space: Space
    user_spaces: UserSpaces
    holds: Holds
    threads: anyio.CapacityLimiter
    keep_cache: bool
    sites: Sites
    rules: Rules

    async def in_thread(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self.threads)

    def space_of(self, requester: Requester, name: ModelName) -> Space:
        """The space that the work on a new model of this name may take."""
        space, quota = self.share_of(requester), requester.quota
        if quota is None or quota.bytes is None:
            return space
        return self.user_spaces.limited(quota.user, space, partial(self._check_quota, quota, name))

    def share_of(self, requester: Requester) -> Space:
        """The same for work that gives the user no new model."""
        return self.space if requester.share is None else self.user_spaces.of(requester.share)

    def _check_quota(self, quota: Quota, name: ModelName, promised: int, more: int) -> None:
        """What the name stands for does not count: it may be these very bytes, and is replaced by others."""
        check_bytes(quota, owned_by(self.publishing.index, quota, without=name).bytes, more, promised)

    # -- downloads

    async def find(
        self, digest: Digest, held: ExitStack, progress: FileProgress, requester: Requester, space: Space
    ) -> Blob | None:
        """The good blob, if the store has it, or a site of which it can be had. Until `held` is closed no sweep removes
        the blob or its partial download."""
        held.enter_context(self.holds.relying_on(digest))
        blob = await self.find_here(digest, progress)
        if blob is not None:
            return blob
        for site, path in await self.sites.blobs(digest):
            with suppress(Corrupt, SourceUnavailable, SourceNotFound, PermissionDenied, InvalidRequest):
                return await self.bring(SiteBlob(path=path, digest=digest), site.readers, progress, requester, space)
        return None

    async def find_here(self, digest: Digest, progress: FileProgress) -> Blob | None:
        """As `find`, in the store itself. The caller holds the digest."""
        layout = self.publishing.layout
        if not await self.publishing.in_thread(partial(os.path.lexists, layout.blob(digest))):
            return None
        verified = await self.records.verified_signatures([digest])

        def find() -> Blob | None:
            self.holds.until_settled(digest)
            blob = blobs.find_good(layout, digest, verified=verified.get(digest), progress=progress)
            if blob is not None:
                blobs.sync_names(layout, digest)
            return blob

        blob = await self.in_thread(find)
        if blob is not None and blob.signature != verified.get(digest):
            await self.records.record_good([(blob, None)])
        return blob

    async def bring(
        self,
        wanted: SiteBlob,
        readers: anyio.CapacityLimiter,
        progress: FileProgress,
        requester: Requester,
        space: Space,
    ) -> Blob:
        """Adds the blob of a site to the store. The caller holds the digest, and counts its bytes as here. `readers`
        are the threads of the site: those of the store go on when it hangs."""
        layout, linked = self.publishing.layout, self.publishing.index.trees.linked
        stage = partial(wanted.stage, layout, space=space, progress=progress, linked=linked, keep_cache=self.keep_cache)
        staged = await anyio.to_thread.run_sync(stage, limiter=readers)
        progress.advance(done=-staged.size)
        with anyio.CancelScope(shield=True):  # else a staged file of a request that ends now would stay
            blob = await self.commit(staged)
            await self.history.clear_condemned([wanted.digest])
            await self.history.record([added_from(wanted.path, wanted.digest)], requester)
        return blob

    async def commit(self, staged: Staged) -> Blob:
        """Names a file that was just verified, and records the verification. Sets `staged.inspection`. The caller holds
        the digest: no manifest names the blob yet."""
        verified = await self.records.verified_signatures([staged.digest])

        def commit() -> Committed:
            batch = Batch(self.publishing.layout)
            batch.take(staged)
            self.holds.until_settled(staged.digest)
            try:
                found = batch.settle(verified).get(staged.digest)
                committed = Committed(found, reused=True) if found else batch.commit()[staged.digest]
            finally:
                batch.discard()
            if not committed.reused:  # bad bytes may have had the name
                self.publishing.index.trees.replaced(staged.digest)
            return committed

        with anyio.CancelScope(shield=True):
            committed = await self.in_thread(commit)
            await self.records.record_good([(committed.blob, None)])
            if not committed.reused:
                staged.reservation.leave(committed.blob.path, committed.blob.size)
        return committed.blob

    # -- models

    async def publish(
        self,
        request: PublishRequest,
        files: Sequence[ReadyFile],
        source: Mapping[str, str],
        *,
        origin: Origin,
        alone: bool,
        batch: Batch | None = None,
        last: Callable[[], object] | None = None,
    ) -> Added:
        """Publishes a model of one file (`alone`), or of several with a tree. Staged files are in `batch` too. The
        history records the bytes that were read or fetched, and whose signature was required. `last` is as in
        `Publishing.publish`. Raises Untrusted."""
        layout, index = self.publishing.layout, self.publishing.index
        trees = index.trees
        first, tree = first_of(files), [] if alone else listed(files)
        stands = await self.publishing.in_thread(partial(self.publishing.judge, request, first.digest, tree))
        contents = {file.path: file.content for file in files}
        signed = partial(check_signed, self.rules, origin, contents, index, layout, request.progress)
        proof = await self.in_thread(signed)
        inspected = await self.in_thread(partial(_inspected, [first] if stands else [first, *files]))
        if not stands:
            _refuse_unsound(inspected, request.formats)
        facts = {each.digest: known for each in [first, *files] if (known := _facts(inspected, each)) is not None}
        named: dict[Digest, Committed] = {}
        relinked: list[Relinked] = []

        def commit() -> tuple[Blob, bool]:
            for file in files:
                if isinstance(file.content, Blob):
                    named[file.digest] = Committed(still_there(layout, file.content, trees), not file.new)
            if batch is not None:
                named.update(batch.commit())
                for digest, each in named.items():
                    self.records.remember(digest, each.blob.signature)
            # ---- The blobs have their names: from here on nothing is undone. ----
            new = [each.blob.size for each in named.values() if not each.reused]
            trees.replaced(*(digest for digest, each in named.items() if not each.reused))
            request.progress.advance(committed=sum(new))
            if tree:
                relinked.extend(trees.ensure(request.name, tree)[1])
            return named[first.digest].blob, not new

        def record(added: Added, is_new: bool) -> None:
            read = [file for file in files if file.read]
            outcomes = [
                added_from(request.provenance, file.digest, file.served, _version(file, source)) for file in read
            ]
            if proof is not None:
                outcomes.append(proof.outcome(request.name, first.digest, content_of(added.blob, added.files)))
            if is_new:
                self.history.note_new_name(request.name, request.requester)
            self.history.note_published(outcomes, request.requester)

        added = await self.publishing.publish(
            request,
            first.digest,
            commit,
            record,
            format=facts[first.digest].format if first.digest in facts else UNKNOWN,
            source=source,
            files=tree,
            path=trees.path(request.name, tree) if tree else None,
            warning=_warning(inspected),
            facts=facts,
            last=last,
        )
        for each in named.values():
            self.user_spaces.named(each.blob.path)
        self.facts.remember(facts)
        with anyio.CancelScope(shield=True):
            sources = {file.digest: file.source for file in files}
            if batch is not None:
                await self.records.record_good([(each.blob, sources[digest]) for digest, each in named.items()])
            await self.records.record_relinked(relinked)
            await self.history.clear_condemned(sources)
        return added


def _version(file: ReadyFile, source: Mapping[str, str]) -> dict[str, str]:
    """For the history: what is known of the version of the source that had these bytes."""
    said = {"revision": source.get("revision"), "validator": file.validator}
    return {word: printable(text)[:_LONGEST_VERSION] for word, text in said.items() if text}
