"""The last steps of every add and pull: files that are in the store or staged become one published model.

In the publisher's turn all of them have their names before the manifest is written. So a reader sees the whole model or
nothing. A local file is committed in that turn, a download as soon as it is verified: the files of an abandoned pull
are kept, and two models that share a file share its transfer. Blobs without a manifest are no model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread

from modeld.inspect.formats import format_of_name
from modeld.progress import FileProgress
from modeld.store import parts
from modeld.store.blobs.blobs import Blob
from modeld.store.catalog.history import History, Requester
from modeld.store.catalog.records import Records
from modeld.store.digest import Digest, Relinked, Signature
from modeld.store.disk.space import Space
from modeld.store.ingest.commit import Batch, Committed
from modeld.store.ingest.look import Learned, look_at
from modeld.store.ingest.present import Presence, still_there
from modeld.store.ingest.staged import Staged
from modeld.store.manifests.manifests import File
from modeld.store.publish.holds import Holds
from modeld.store.publish.publishing import Publishing, PublishRequest
from modelwire.values import Added

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyFile:
    """One file of a model that is ready to be published: its bytes are in the store, or staged."""

    path: str
    content: Blob | Staged
    role: str | None = None
    source: Signature | None = None
    """Of the local file that was read, or is known, to have these bytes."""

    new: bool = False
    """This request has added the blob."""

    served: Mapping[str, int] = field(default_factory=dict)
    """Bytes from each source."""

    learned: Learned | None = None
    """Set when the blob was inspected as it was committed."""

    @property
    def digest(self) -> Digest:
        return self.content.digest

    @property
    def size(self) -> int:
        return self.content.size


def first_of(files: Sequence[ReadyFile]) -> ReadyFile:
    """The file that stands for the model."""
    return files[parts.first_weights([(file.path, file.role or "", file.size) for file in files])]


def listed(files: Sequence[ReadyFile]) -> list[File]:
    """The files as a manifest lists them."""
    return [
        File(path=file.path, blob=file.digest.text, size_bytes=file.size, role=file.role or parts.role_of(file.path))
        for file in files
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingest:
    """The parts of the store that byte work needs. For the event loop."""

    publishing: Publishing
    records: Records
    history: History
    space: Space
    holds: Holds
    threads: anyio.CapacityLimiter
    keep_cache: bool

    async def in_thread(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self.threads)

    def presence(self, held: ExitStack) -> Presence:
        """The blobs that it finds are held until `held` is closed."""
        linked = self.publishing.index.trees.linked
        return Presence(self.publishing.layout, linked, self.records, self.holds, held)

    # -- downloads

    async def find(self, digest: Digest, held: ExitStack, progress: FileProgress) -> Blob | None:
        """The good blob, if the store has it. Until `held` is closed no sweep removes the blob or its partial
        download."""
        presence = self.presence(held)
        presence.hold(digest)
        if not os.path.lexists(self.publishing.layout.blob(digest)):
            return None
        await presence.load_records(digests=[digest])
        return await self.in_thread(partial(presence.find, digest, progress))

    async def commit(self, staged: Staged) -> Blob:
        """Names a file that was just verified, and records the verification. Sets `staged.learned`."""
        verified = await self.records.verified_signatures([staged.digest])

        def commit() -> Committed:
            batch = Batch(self.publishing.layout)
            batch.take(staged)
            return batch.commit(verified=verified)[0]

        with anyio.CancelScope(shield=True):
            committed = await self.in_thread(commit)
            if committed.sure:
                await self.records.record_good([(committed.blob, None)])
        return committed.blob

    # -- models

    async def publish(
        self,
        request: PublishRequest,
        files: Sequence[ReadyFile],
        source: Mapping[str, str],
        requester: Requester,
        *,
        alone: bool,
        provenance: str | None,
        batch: Batch | None = None,
    ) -> Added:
        """Publishes a model of one file (`alone`), or of several with a tree. Staged files are in `batch` too.

        `provenance` is the source for the history; None when nothing was read or fetched.
        """
        layout, trees = self.publishing.layout, self.publishing.index.trees
        first, tree = first_of(files), [] if alone else listed(files)
        self.publishing.judge(request, first.digest, tree)
        named: dict[Digest, Committed] = {}
        relinked: list[Relinked] = []

        def commit() -> tuple[Blob, bool]:
            for file in files:
                if isinstance(file.content, Blob):
                    still_there(layout, file.content)
                    named[file.digest] = Committed(file.content, not file.new)
            committed = [] if batch is None else batch.commit()
            # ---- The blobs have their names: from here on nothing is undone. ----
            for each in committed:
                named.setdefault(each.blob.digest, each)
            new = [each.blob.size for each in named.values() if not each.reused]
            request.progress.advance(committed=sum(new))
            if tree:
                relinked.extend(trees.ensure(request.name, tree)[1])
            return named[first.digest].blob, not new

        learned = first.content.learned if isinstance(first.content, Staged) else first.learned
        if learned is None:
            path = first.content.path
            learned = await self.in_thread(lambda: look_at(path, first.path))
        added = await self.publishing.publish(
            request,
            first.digest,
            commit,
            format=learned.format or format_of_name(first.path),
            source=source,
            files=tree,
            path=trees.path(request.name, tree) if tree else None,
        )
        with anyio.CancelScope(shield=True):
            sources = {file.digest: file.source for file in files}
            if batch is not None:
                good = [(each.blob, sources[digest]) for digest, each in named.items() if each.sure]
                await self.records.record_good(good)
            await self.records.record_relinked(relinked)
            if provenance is not None:
                served = {file.digest.text: file.served for file in files if file.served}
                await self.history.record_added(added, provenance, requester, served)
        return added
