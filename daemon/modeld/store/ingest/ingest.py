"""The flow that every way into the store ends with: files that are here or staged become one published model.

An add lands all its files first: found, adopted or copied by several threads, within room that was promised for all of
them. Then, in the publisher's turn, all of them get their names and the manifest is written last. So a reader sees the
whole model or nothing, and what fails before that leaves nothing.

A download is committed file by file, as soon as each is verified: a model of many files that is given up halfway has
brought something, and two models that share a file share its transfer. Blobs without a manifest are no model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from modeld.inspect.formats import format_of_name
from modeld.store import parts
from modeld.store.blobs import blobs
from modeld.store.blobs.blobs import Blob
from modeld.store.catalog.history import Asker, History
from modeld.store.digest import Digest, Signature
from modeld.store.disk.durable import source_faults
from modeld.store.disk.space import Allotment, Space
from modeld.store.ingest import copying
from modeld.store.ingest.adopt import Adopted, How, stage_adopted
from modeld.store.ingest.collect import Collection, Part
from modeld.store.ingest.commit import Batch, Committed
from modeld.store.ingest.look import Learned, look_at
from modeld.store.ingest.present import Presence, Vanished, still_there
from modeld.store.ingest.staged import Staged, changed
from modeld.store.manifests.manifests import File
from modeld.store.manifests.trees import Relinked
from modeld.store.observer import Observer, SharedObserver, Stopped, check
from modeld.store.publish.holds import Holds
from modeld.store.publish.publishing import Publishing, PublishRequest
from modeld.store.publish.records import Records
from modelwire.errors import DigestMismatch, InvalidRequest
from modelwire.values import Added

T = TypeVar("T")

MAX_ATTEMPTS: Final = 3
"""At using blobs that are already there: each failed one means that another program took one away meanwhile."""

PORTION_BYTES: Final = 64 * 1024 * 1024
PORTION_FILES: Final = 64
"""What a thread takes at once: a hop for each small file would cost as much as the file, and other jobs wait for
the same threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyFile:
    """One file of a model that is ready to be published: its bytes are in the store, or staged."""

    path: str
    content: Blob | Staged
    role: str | None = None
    source: Signature | None = None
    """Of the local file that was read, or is known, to have these bytes."""

    new: bool = False
    """This request has brought a blob that was not here before."""

    served: Mapping[str, int] = field(default_factory=dict)
    """Which source gave how many of its bytes."""

    learned: Learned | None = None
    """Of a blob that was looked at when it was committed."""

    @property
    def digest(self) -> Digest:
        return self.content.digest

    @property
    def size(self) -> int:
        return self.content.size


def first_of(files: Sequence[ReadyFile]) -> ReadyFile:
    """Which file stands for the model."""
    return files[parts.first_weights([(file.path, file.role or "", file.size) for file in files])]


def listed(files: Sequence[ReadyFile]) -> list[File]:
    """As a manifest has them."""
    return [
        File(
            path=file.path,
            blob=file.digest.text,
            size_bytes=file.size,
            role=file.role or parts.role_of(file.path),
        )
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
        """What it finds is held until `held` is closed."""
        linked = self.publishing.index.trees.linked
        return Presence(self.publishing.layout, linked, self.records, self.holds, held)

    # -- downloads

    def relying_on(self, digest: Digest) -> AbstractContextManager[None]:
        """No sweep takes this blob meanwhile."""
        return self.holds.relying_on(digest)

    async def find(self, digest: Digest, held: ExitStack, observer: Observer) -> Blob | None:
        """The good blob, if it is here: no sweep takes it before `held` is closed, nor what is to become it."""
        presence = self.presence(held)
        presence.hold(digest)
        if not os.path.lexists(self.publishing.layout.blob(digest)):
            return None
        await presence.recall(digests=[digest])
        return await self.in_thread(partial(presence.find, digest, observer))

    async def commit(self, staged: Staged) -> Blob:
        """Names bytes that were verified just now, and records that they were. What the look at them learned is in
        `staged` afterwards."""
        recorded = (await self.records.verified_all([staged.digest])).get(staged.digest)

        def commit() -> Committed:
            batch = Batch(self.publishing.layout)
            batch.take(staged)
            return batch.commit(trusted=lambda found: found.signature == recorded)[0]

        with anyio.CancelScope(shield=True):
            committed = await self.in_thread(commit)
            await self.records.good([(committed.blob, None)])
        return committed.blob

    # -- local files

    async def add(
        self, request: PublishRequest, collection: Collection, how: How, told_source: str, asker: Asker
    ) -> Added:
        """The collection under a name. Returns when the model is complete, verified and durable."""
        if request.expected is not None and not collection.alone:
            raise InvalidRequest(
                f"$.sha256: {collection.root} is a model of {len(collection.parts)} files, and a digest is of one",
                hint="add it without --sha256; `modelctl show` tells the digest of each file",
            )
        self.publishing.judge(request, request.expected)
        request.observer.phase("checking_local")
        request.observer.total(collection.size)
        request.observer.files(total=len(collection.parts))
        attempt = 1
        while True:
            try:
                with ExitStack() as held:
                    return await _Adding(self, request, collection, how, held).run(told_source, asker)
            except Vanished:
                if attempt == MAX_ATTEMPTS:
                    raise
                attempt += 1

    # -- models

    async def publish(
        self,
        request: PublishRequest,
        files: Sequence[ReadyFile],
        source: Mapping[str, str],
        asker: Asker,
        *,
        alone: bool,
        told_source: str | None,
        batch: Batch | None = None,
    ) -> Added:
        """A model of one file by itself (`alone`), or of several with a tree. What of them is staged is in `batch`.

        Without `told_source` nothing has arrived, and the history says nothing.
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
            # ---- The blobs have their names: from here on nothing is taken back. ----
            for each in committed:
                named.setdefault(each.blob.digest, each)
            new = [each.blob.size for each in named.values() if not each.reused]
            request.observer.advance(committed=sum(new))
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
                await self.records.good(good)
            await self.records.relinked(relinked)
            if told_source is not None:
                served = {file.digest.text: file.served for file in files if file.served}
                await self.history.arrived(added, told_source, asker, served)
        return added


class _Adding:
    """One attempt."""

    def __init__(
        self, ingest: Ingest, request: PublishRequest, collection: Collection, how: How, held: ExitStack
    ) -> None:
        self._ingest = ingest
        self._layout = ingest.publishing.layout
        self._linked = ingest.publishing.index.trees.linked
        self._request = request
        self._collection = collection
        self._how: How = how
        self._presence = ingest.presence(held)
        self._files: dict[str, ReadyFile] = {}
        self._shared = None if collection.alone else SharedObserver(request.observer)
        self._observer: Observer = self._shared or request.observer
        self._to_write: set[str] = set()
        self._space = ingest.space
        """For the files of `_to_write` and those that are adopted: room that was promised for all of them."""

    async def run(self, told_source: str, asker: Asker) -> Added:
        collection, alone = self._collection, self._collection.alone
        expected = [] if self._request.expected is None else [self._request.expected]
        await self._presence.recall(sources=[part.signature for part in collection.parts], digests=expected)
        self._judge_known()
        with ExitStack() as promised:
            if not alone:  # a file by itself is promised its room when it is staged
                await self._in_thread(partial(self._promise, promised))
            batch = await self._batch()
            try:
                await self._land_all(batch)
                if batch.staged or not alone:
                    there = await self._there(batch)
                    await self._in_thread(partial(self._settle, batch, there))
                files = [self._files[part.path] for part in collection.parts]
                origin = {"registry": "local", "filename": printable(first_of(files).path)}
                added = await self._ingest.publish(
                    self._request, files, origin, asker, alone=alone, told_source=told_source, batch=batch
                )
            finally:
                if not batch.ended:
                    with anyio.CancelScope(shield=True):
                        await self._in_thread(batch.discard)
        with anyio.CancelScope(shield=True):
            if self._how == "link":
                self._ingest.publishing.index.forget()  # of every model that has one of these blobs
            if self._how == "move":
                await self._ingest.records.relinked(await self._in_thread(self._remove_sources))
        return added

    # -- before the first byte

    def _judge_known(self) -> None:
        """A taken name is refused before anything is read, when the records know every file."""
        known: list[File] = []
        for part in self._collection.parts:
            digest = self._request.expected or self._presence.recorded(part.signature)
            if digest is None:
                return
            known.append(File(path=part.path, blob=digest.text, size_bytes=part.signature.size, role=part.role))
        stands = Digest.parse(known[self._collection.first].blob)
        self._ingest.publishing.judge(self._request, stands, [] if self._collection.alone else known)

    def _promise(self, promised: ExitStack) -> None:
        """Room for all that may have to be written: what turns out to be here already is given back at the end."""
        self._request.observer.phase("reserving")
        here = os.stat(self._layout.staging).st_dev
        to_write = to_adopt = 0
        for part in self._collection.parts:
            digest = self._presence.recorded(part.signature)
            if digest is not None and os.path.lexists(self._layout.blob(digest)):
                continue
            if self._how == "copy" or part.signature.device != here:
                to_write += part.signature.size
                self._to_write.add(part.path)
            else:
                to_adopt += part.signature.size
        room = promised.enter_context(self._ingest.space.reserve(to_write))
        promised.enter_context(self._ingest.space.adopt(to_adopt))
        self._space = Allotment(room)

    # -- bytes

    async def _batch(self) -> Batch:
        count = len(self._collection.parts)
        return Batch(self._layout) if count == 1 else await self._in_thread(partial(Batch, self._layout, count))

    async def _land_all(self, batch: Batch) -> None:
        portions = list(_portions(self._collection.parts))
        waiting = iter(portions)
        faults: list[Exception] = []

        async def work() -> None:
            for portion in waiting:
                try:
                    await self._in_thread(partial(self._land, batch, portion))
                except Exception as fault:  # noqa: BLE001 - raised below, when the other threads have stopped
                    faults.append(fault)
                    if self._shared is not None:
                        self._shared.failed = True
                    return

        async with anyio.create_task_group() as tasks:
            for _thread in range(min(len(portions), int(self._ingest.threads.total_tokens))):
                tasks.start_soon(work)
        if not faults:
            return
        fault = next((fault for fault in faults if not isinstance(fault, Stopped)), faults[0])
        actual = fault.details.get("actual_sha256") if isinstance(fault, DigestMismatch) else None
        if isinstance(actual, str):  # next time that is known without reading the file
            await self._ingest.records.read_as(self._collection.parts[0].signature, Digest(actual))
        raise fault

    def _land(self, batch: Batch, portion: list[Part]) -> None:
        """Blocking. Whatever it raises, it leaves no name and no file but in the batch."""
        for part in portion:
            check(self._observer)
            where = self._collection.where(part)
            descriptor = self._collection.open(part)
            try:
                with source_faults(where):
                    source = Signature.of(os.fstat(descriptor))
                # A first attempt to adopt a file leaves its trace in the time of its last change.
                ctime_ns = part.signature.ctime_ns if self._how == "copy" else source.ctime_ns
                if source != replace(part.signature, ctime_ns=ctime_ns):
                    raise changed(where)
                self._files[part.path] = self._find_or_stage(batch, part, descriptor, where, source)
            finally:
                os.close(descriptor)
            if self._shared is not None:
                self._shared.file_done()
            else:
                self._request.observer.files(done=1)

    def _find_or_stage(self, batch: Batch, part: Part, descriptor: int, where: str, source: Signature) -> ReadyFile:
        expected = self._request.expected
        found = self._presence.find_file(
            descriptor,
            where,
            source,
            how=self._how,
            expected=expected,
            observer=self._observer,
            sync=not batch.shares_syncs,
        )
        if found is not None:
            known = source if found.read else None
            return ReadyFile(path=part.path, content=found.blob, role=part.role, source=known)
        staged: Staged | None = None
        if self._how != "copy":
            staged = stage_adopted(
                self._layout,
                descriptor,
                where,
                how=self._how,
                asker=self._collection.reader.uid,
                expected=expected,
                space=self._space,
                observer=self._observer,
                linked=self._linked,
            )
        if staged is None:
            staged = copying.stage_copy(
                self._layout,
                descriptor,
                where,
                expected=expected,
                # What was believed to be here, or to be adopted, has to ask for its room now.
                space=self._space if part.path in self._to_write else self._ingest.space,
                observer=self._observer,
                keep_cache=self._ingest.keep_cache,
                sync=batch.syncs_alone(source.size),
            )
        batch.take(staged)
        return ReadyFile(path=part.path, content=staged, role=part.role, source=staged.source)

    async def _there(self, batch: Batch) -> set[Digest]:
        """What was staged and may lie in the store by now, with what the records say of it."""
        there = {staged.digest for staged in batch.staged if os.path.lexists(self._layout.blob(staged.digest))}
        if there:
            await self._presence.recall(digests=there)
        return there

    def _settle(self, batch: Batch, there: set[Digest]) -> None:
        """Blocking; all that can be done before the publisher's turn: no publication waits for a whole read."""
        self._collection.check_complete()
        for digest in there:
            blob = self._itself(batch, digest) or self._presence.find(
                digest, self._observer, sync=not batch.shares_syncs
            )
            if blob is None:
                continue
            batch.let_go({digest})
            for path, file in self._files.items():
                if file.digest == digest and isinstance(file.content, Staged):
                    self._files[path] = replace(file, content=blob)
                    self._observer.advance(reused=blob.size)
        if batch.shares_syncs:
            batch.sync_names({file.digest for file in self._files.values() if isinstance(file.content, Blob)})
        batch.prepare()

    def _itself(self, batch: Batch, digest: Digest) -> Blob | None:
        """A file that turned out to be a blob already, by another name: what was hashed is the blob itself, and the
        name in the staging directory has to go before its signature is taken."""
        there = blobs.stat_blob(self._layout, digest)
        for staged in batch.staged:
            if isinstance(staged, Adopted) and there is not None and staged.is_blob(there):
                batch.let_go({digest})
                blob = blobs.stat_named(self._layout, digest)
                staged.share(blob)
                return blob
        return None

    # -- the end

    def _remove_sources(self) -> list[Relinked]:
        """The model is there: what a move leaves behind is taken away."""
        relinked: list[Relinked] = []
        for part in self._collection.parts:
            file = self._files[part.path]
            assert file.source is not None, "a move takes away only what was read"
            before = blobs.stat_blob(self._layout, file.digest)
            self._collection.reader.remove(self._collection.where(part), file.source)
            after = blobs.stat_blob(self._layout, file.digest)
            if before is not None and after is not None and before.signature != after.signature:
                relinked.append(Relinked(before.signature, after.signature))
                self._linked.relinked(after, before.signature)
        self._collection.remove_empty_directories()
        return relinked

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await self._ingest.in_thread(work)


def _portions(found: tuple[Part, ...]) -> Iterator[list[Part]]:
    portion: list[Part] = []
    size = 0
    for part in found:
        if portion and (size + part.signature.size > PORTION_BYTES or len(portion) == PORTION_FILES):
            yield portion
            portion, size = [], 0
        portion.append(part)
        size += part.signature.size
    if portion:
        yield portion


def printable(filename: str) -> str:
    """Bytes of a file name that are no UTF-8 cannot stand in JSON."""
    return filename.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
