"""Adds local files as one model: copied, moved or linked; one file, a set of shards or a directory.

First several threads find, adopt or copy all files, within space that was reserved for all of them. A failure before
the publication leaves nothing behind.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Final

import anyio

from modeld.platform import files
from modeld.progress import FileProgress, check
from modeld.store import parts
from modeld.store.blobs import blobs
from modeld.store.blobs.blobs import Blob
from modeld.store.digest import Digest, Relinked, Signature
from modeld.store.disk.space import Allotment
from modeld.store.ingest import copying
from modeld.store.ingest.adopt import stage_adopted
from modeld.store.ingest.collect import Collection, Part
from modeld.store.ingest.commit import Batch
from modeld.store.ingest.copying import Source
from modeld.store.ingest.ingest import Ingest, ReadyFile, first_of, for_each, standing_for, until_there
from modeld.store.ingest.local_origin import local_origin
from modeld.store.ingest.present import Presence
from modeld.store.ingest.staged import Staged, changed
from modeld.store.ingest.trusted import Origin, check_early
from modeld.store.manifests.manifests import File
from modeld.store.publish.publishing import PublishRequest, of_several_files
from modelwire.errors import AlreadyExists, DigestMismatch
from modelwire.values import Added

PORTION_BYTES: Final = 64 * 1024 * 1024
PORTION_FILES: Final = 64
"""A thread's share of the work: a hop for each small file would cost as much as the file, and other jobs wait for the
same threads."""


async def add_local(
    ingest: Ingest, request: PublishRequest, collection: Collection, signature: bytes | None = None
) -> Added:
    """Publishes the collection under a name. Returns when the model is complete, verified and durable. `signature` is
    that of the request."""
    if request.is_of_one_file and not collection.alone:
        raise of_several_files(collection.root, len(collection.parts))
    await ingest.publishing.in_thread(partial(ingest.publishing.judge, request, request.expected))
    request.progress.phase("checking_local")

    def find_origin() -> Origin:
        origin = local_origin(collection, ingest.rules, signature)
        check_early(ingest.rules, origin, [part.path for part in collection.parts])
        return origin

    origin = await ingest.in_thread(find_origin)

    async def attempt() -> Added:
        with ExitStack() as held:
            held.enter_context(ingest.holds.relying_on(ingest.publishing.layout.staging))
            return await _Adding(ingest, request, collection, origin, held).run()

    return await until_there(attempt)


class _Adding:
    """One attempt."""

    def __init__(
        self, ingest: Ingest, request: PublishRequest, collection: Collection, origin: Origin, held: ExitStack
    ) -> None:
        self._ingest = ingest
        self._origin = origin
        self._in_thread = ingest.in_thread
        self._layout = ingest.publishing.layout
        self._linked = ingest.publishing.index.trees.linked
        self._request = request
        self._collection = collection
        self._how = collection.how
        self._files: dict[str, ReadyFile] = {}
        self._read: dict[str, Signature] = {}
        """Of the files that a move may take away, as they were read."""
        self._relinked: list[Relinked] = []
        """Blobs that have lost the name that a move took away."""
        progress = request.progress.files([part.signature.size for part in collection.parts])
        self._progress = dict(zip((part.path for part in collection.parts), progress, strict=True))
        self._presence = Presence(ingest, collection.how, request, held)
        self._to_write: set[str] = set()
        self._user_space = ingest.space_of(request.requester, request.name)
        self._space = self._user_space
        """The space reserved for the files of `_to_write` and those that are adopted."""

    async def run(self) -> Added:
        listed = self._collection.parts
        await self._presence.load([part.signature for part in listed])
        await self._judge_known()
        with ExitStack() as promised:
            batch = await self._in_thread(partial(self._begin, promised))
            try:
                await self._stage_all(batch)
                staged = [staged.digest for staged in batch.staged]
                verified = await self._ingest.records.verified_signatures(staged)
                await self._in_thread(partial(self._settle, batch, verified))
                ready = [self._files[part.path] for part in listed]
                added = await self._ingest.publish(
                    self._request,
                    ready,
                    {"registry": "local", "filename": parts.printable(first_of(ready).path)},
                    origin=self._origin,
                    alone=self._collection.alone,
                    batch=batch,
                    last=self._remove_sources if self._how == "move" else None,
                )
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await self._in_thread(batch.discard)
                raise
        with anyio.CancelScope(shield=True):
            if self._how == "link":
                self._ingest.publishing.index.forget()  # of every model that has one of these blobs
            await self._ingest.records.record_relinked(self._relinked)
        return added

    # -- before the first byte

    async def _judge_known(self) -> None:
        """A taken name is refused before anything is read, when the records know every file."""
        known: list[File] = []
        for part in self._collection.parts:
            digest = self._request.expected or self._presence.recorded_digest(part.signature)
            if digest is None:
                return
            known.append(File(path=part.path, blob=digest.text, size_bytes=part.signature.size, role=part.role))
        publishing, standing = self._ingest.publishing, standing_for(known, alone=self._collection.alone)
        try:
            await publishing.in_thread(partial(publishing.judge, self._request, *standing))
        except AlreadyExists:
            if self._request.expected is not None or await self._in_thread(self._have_no_writer):
                raise

    def _have_no_writer(self) -> bool:
        """Whether the records still stand for the bytes of all files."""
        for part in self._collection.parts:
            with files.closing(self._collection.open(part)) as descriptor:
                if self._collection.reader.has_writer(descriptor) is not False:
                    return False
        return True

    def _begin(self, promised: ExitStack) -> Batch:
        """Reserves space for all files that may be written. Space for files that are found is released at the end."""
        if not self._collection.alone:  # space for a single file is reserved when it is staged
            self._request.progress.phase("reserving")
            here = os.stat(self._layout.blobs_dir).st_dev  # of the whole store
            missing = [part for part in self._collection.parts if not self._presence.is_recorded(part.signature)]
            to_write = [part for part in missing if self._how == "copy" or part.signature.device != here]
            self._to_write = {part.path for part in to_write}
            size, written = (sum(part.signature.size for part in some) for some in (missing, to_write))
            self._space = Allotment(promised.enter_context(self._user_space.reserve(written)))
            promised.enter_context(self._user_space.adopt(size - written))
        return Batch(self._layout, len(self._collection.parts))

    # -- bytes

    async def _stage_all(self, batch: Batch) -> None:
        async def stage(portion: list[Part]) -> None:
            await self._in_thread(partial(self._stage_portion, batch, portion))

        threads, portions = int(self._ingest.threads.total_tokens), _portions(self._collection.parts)
        try:
            await for_each(portions, stage, self._request.progress, at_once=threads)
        except DigestMismatch as fault:
            actual = fault.details.get("actual_sha256")
            if isinstance(actual, str):  # the next add refuses it without reading the file
                await self._ingest.records.record_source(self._collection.parts[0].signature, Digest(actual))
            raise

    def _stage_portion(self, batch: Batch, portion: list[Part]) -> None:
        """Blocking. Whatever it raises, the only names and files that it leaves are in the batch."""
        for part in portion:
            progress = self._progress[part.path]
            check(progress)
            where = self._collection.where(part)
            with files.closing(self._collection.open(part)) as descriptor:
                source = Source.of(descriptor, where, self._collection.reader.has_writer)
                # An earlier attempt to adopt the file has changed its ctime.
                same = self._how != "copy" and part.signature.only_links_changed(source.signature)
                if source.signature != part.signature and not same:
                    raise changed(where)
                self._files[part.path] = self._find_or_stage(batch, part, source)
            progress.finished()

    def _find_or_stage(self, batch: Batch, part: Part, source: Source) -> ReadyFile:
        progress, expected = self._progress[part.path], self._request.expected
        found = self._presence.find(source, progress)
        signature = source.signature if source.has_writer is False else None
        if found is not None:
            self._read[part.path] = source.signature  # for a move, the file is the blob itself
            known = signature if found.known or found.read else None
            return ReadyFile(path=part.path, content=found.blob, role=part.role, source=known, read=found.read)
        staged: Staged | None = None
        if self._how == "move":
            source.refuse_writer()
        if self._how != "copy":
            staged = stage_adopted(
                self._layout,
                source,
                how=self._how,
                requester_uid=self._collection.reader.uid,
                expected=expected,
                space=self._space,
                progress=progress,
                linked=self._linked,
            )
        if staged is None:
            staged = copying.stage_copy(
                self._layout,
                source,
                expected=expected,
                # A file that was expected to be in the store, or to be adopted, has no space reserved yet.
                space=self._space if part.path in self._to_write else self._user_space,
                progress=progress,
                keep_cache=self._ingest.keep_cache,
                sync=batch.syncs_alone(source.signature.size),
            )
        batch.take(staged)
        self._presence.hold(staged.digest)
        self._read[part.path] = staged.source
        # What has become a blob was closed to writers before it was read.
        known = signature if self._how == "copy" else staged.source
        return ReadyFile(path=part.path, content=staged, role=part.role, source=known, read=True)

    def _settle(self, batch: Batch, verified: Mapping[Digest, Signature]) -> None:
        """Blocking. Does all work that can precede the publisher's turn: no publication waits for a whole read."""
        self._collection.check_complete()
        progress = FileProgress(self._request.progress)
        relied_on = {file.digest for file in self._files.values() if isinstance(file.content, Blob)}
        found = batch.settle(verified, progress, relied_on=relied_on)
        for path, file in self._files.items():
            if isinstance(file.content, Staged) and file.digest in found:
                self._files[path] = replace(file, content=found[file.digest])
                progress.advance(reused=file.size)

    # -- the end

    def _remove_sources(self) -> None:
        """Removes the sources of a move, in the publisher's turn: a job that is done has taken them away, and one that
        a crash stopped before is run again while its name still stands for their bytes."""
        for part in self._collection.parts:
            digest = self._files[part.path].digest
            before = blobs.stat_blob(self._layout, digest)
            self._collection.reader.remove(self._collection.where(part), self._read[part.path])
            after = blobs.stat_blob(self._layout, digest)
            if before is not None and after is not None and before.signature != after.signature:
                self._relinked.append(Relinked(before.signature, after.signature))
                self._ingest.publishing.index.trees.note(self._relinked[-1])
                self._linked.relinked(after, before.signature)
        self._collection.remove_empty_directories()


def _portions(waiting: Iterable[Part]) -> Iterator[list[Part]]:
    portion, size = list[Part](), 0
    for part in waiting:
        portion.append(part)
        size += part.signature.size
        if size >= PORTION_BYTES or len(portion) == PORTION_FILES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion
