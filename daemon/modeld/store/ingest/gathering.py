"""Many files become one model, or one file becomes a blob without being copied.

All files land first: found, adopted or copied by several threads, within room that was promised for all of them. Then,
in the publisher's turn, all of them get their names and the manifest is written last. So a reader sees the whole model
or nothing, and what fails before that leaves nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from modeld.progress import FileProgress, Stopped
from modeld.store.blobs import blobs
from modeld.store.blobs.blobs import Blob
from modeld.store.blobs.block_checksums import BLOCK, BlockSums, save_blocks
from modeld.store.digest import Digest, Signature
from modeld.store.disk.durable import store_faults
from modeld.store.disk.space import Allotment, Reservation
from modeld.store.ingest.adding import MAX_ATTEMPTS, PROBE_FROM, Intake, Vanished, printable, still_there
from modeld.store.ingest.adopt import How
from modeld.store.ingest.batch import Batch
from modeld.store.ingest.collect import Collection, Part
from modeld.store.ingest.landing import Known, Landed, Landing, changed
from modeld.store.manifests.manifests import File
from modeld.store.manifests.trees import Relinked, only_links_changed
from modeld.store.publish.publishing import Wish, judge
from modelwire.errors import Corrupt, InvalidRequest, WireError
from modelwire.values import Added

T = TypeVar("T")

PORTION_BYTES: Final = 64 * 1024 * 1024
PORTION_FILES: Final = 64
"""What a thread takes at once: a hop for each small file would cost as much as the file, and other jobs wait for
the same threads."""


async def add_collection(intake: Intake, wish: Wish, collection: Collection, how: How) -> Added:
    """The collection under a name. Returns when the model is complete, verified and durable."""
    if wish.expected is not None and not collection.alone:
        raise InvalidRequest(
            f"$.sha256: {collection.root} is a model of {len(collection.parts)} files, and a digest is of one",
            hint="add it without --sha256; `modelctl show` tells the digest of each file",
        )
    judge(intake.counter.index.entry(wish.name), wish, wish.expected if collection.alone else None)
    wish.observer.phase("checking_local")
    wish.observer.total(collection.size)
    wish.observer.files_total = len(collection.parts)
    for _attempt in range(MAX_ATTEMPTS):
        try:
            with ExitStack() as held:
                return await _Gathering(intake, wish, collection, how, held).run()
        except Vanished:
            continue
    raise Corrupt(
        f"blobs for {collection.root} disappear from the store each time they are to be used",
        hint="find the program that removes blobs of this store",
    )


@dataclass(frozen=True, slots=True)
class _Rooms:
    """For what is written anew, and for what is only counted because it is on this filesystem already."""

    to_write: Reservation
    to_adopt: Reservation

    def __enter__(self) -> _Rooms:
        return self

    def __exit__(self, *_: object) -> None:
        self.to_write.release()
        self.to_adopt.release()


class _Gathering:
    """One attempt."""

    def __init__(self, intake: Intake, wish: Wish, collection: Collection, how: How, held: ExitStack) -> None:
        self._intake = intake
        self._layout = intake.counter.layout
        self._trees = intake.counter.index.trees
        self._wish = wish
        self._collection = collection
        self._how: How = how
        self._held = held
        self._observer = FileProgress(wish.observer)
        self._landed: dict[str, Landed] = {}
        self._proven: dict[Digest, Blob] = {}
        self._named: list[Blob] = []
        self._relinked: list[Relinked] = []
        self._unsure: set[Digest] = set()
        """Written to in the moment of their naming: nobody has verified what they are now."""

    async def run(self) -> Added:
        known = await self._known()
        with await self._in_thread(partial(self._reserve, known)) as rooms:
            space = Allotment(rooms.to_write)
            batch = await self._in_thread(partial(Batch, self._layout, space=space, observer=self._observer))
            try:
                landing = self._landing(known, batch, space)
                await self._land_all(landing)
                await self._in_thread(self._collection.check_complete)
                await self._prove(landing)
                await self._in_thread(batch.sync)
                added = await self._publish(landing)
            finally:
                with anyio.CancelScope(shield=True):
                    await self._in_thread(partial(self._clean_up, batch))
        with anyio.CancelScope(shield=True):
            await self._afterwards()
        return added

    # -- before the first byte

    async def _known(self) -> Known:
        records, parts = self._intake.records, self._collection.parts
        sources = await records.digests_of_sources([part.signature for part in parts])
        sizes = {part.signature.size for part in parts if part.signature.size >= PROBE_FROM}
        same_size = {size: found for size in sizes if (found := await records.digests_of_size(size))}
        digests = {*sources.values(), *(digest for found in same_size.values() for digest in found)}
        if self._wish.expected is not None:
            digests.add(self._wish.expected)
        return Known(sources, await records.verified_all(digests), same_size)

    def _reserve(self, known: Known) -> _Rooms:
        """For all that may have to be written: what turns out to be here already is given back at the end."""
        self._wish.observer.phase("reserving")
        here = os.stat(self._layout.staging).st_dev
        to_write = to_adopt = 0
        for part in self._collection.parts:
            digest = known.sources.get(part.signature)
            if digest is not None and os.path.lexists(self._layout.blob(digest)):
                continue
            if self._how == "copy" or part.signature.device != here:
                to_write += part.signature.size
            else:
                to_adopt += part.signature.size
        with ExitStack() as undoing:
            rooms = _Rooms(
                undoing.enter_context(self._intake.space.reserve(to_write)),
                undoing.enter_context(self._intake.space.adopt(to_adopt)),
            )
            undoing.pop_all()
        return rooms

    def _landing(self, known: Known, batch: Batch, space: Allotment) -> Landing:
        return Landing(
            layout=self._layout,
            collection=self._collection,
            how=self._how,
            expected=self._wish.expected,
            known=known,
            linked=self._trees.linked,
            holds=self._intake.holds,
            held=self._held,
            batch=batch,
            space=space,
            single_space=self._intake.space,
            observer=self._observer,
        )

    # -- bytes

    async def _land_all(self, landing: Landing) -> None:
        portions = _portions(self._collection.parts)
        faults: list[Exception] = []

        async def work() -> None:
            for portion in portions:
                try:
                    await self._in_thread(partial(self._land, landing, portion))
                except Exception as fault:  # noqa: BLE001 - raised below, when the other threads have stopped
                    faults.append(fault)
                    self._wish.observer.stop_files()
                    return

        async with anyio.create_task_group() as tasks:
            for _thread in range(int(self._intake.threads.total_tokens)):
                tasks.start_soon(work)
        if faults:
            raise next((fault for fault in faults if not isinstance(fault, Stopped)), faults[0])

    def _land(self, landing: Landing, portion: list[Part]) -> None:
        for part in portion:
            self._landed[part.path] = landing.land(part)

    async def _prove(self, landing: Landing) -> None:
        """What lies in the store already is hashed before the turn: no publication waits for a whole read."""
        there = {
            landed.digest
            for landed in self._landed.values()
            if landed.blob is None and os.path.lexists(self._layout.blob(landed.digest))
        }
        recorded = await self._intake.records.verified_all(there)

        def prove() -> None:
            there.difference_update(self._take_back_links(landing, there))
            for digest in there:
                blob = landing.find_good(digest, recorded.get(digest))
                if blob is not None:
                    self._proven[digest] = blob

        if there:
            await self._in_thread(prove)
        for path, landed in self._landed.items():
            blob = self._proven.get(landed.digest) if landed.blob is None else None
            if blob is not None:
                self._landed[path] = replace(landed, blob=blob)
                self._observer.advance(reused=blob.size)
        await self._in_thread(partial(landing.batch.let_go, self._proven))
        found = {landed.digest for landed in self._landed.values() if landed.blob is not None}
        await self._in_thread(partial(landing.batch.sync_names, found))

    def _take_back_links(self, landing: Landing, there: set[Digest]) -> set[Digest]:
        """Files that turned out to be blobs already, by another name: what was hashed is the blob itself, and the
        name in the staging directory has to go before its signature is taken."""
        themselves: set[Digest] = set()
        for path, landed in self._landed.items():
            blob = blobs.stat_blob(self._layout, landed.digest) if landed.digest in there else None
            if landed.adopted is None or blob is None or blob.signature.inode != landed.source.inode:
                continue
            landing.batch.let_go({landed.digest})
            now = blobs.stat_named(self._layout, landed.digest)
            if not only_links_changed(Relinked(landed.source, now.signature)):
                raise changed(self._collection.where(landed.part))
            self._trees.linked.good(landed.digest, now.signature, landed.adopted.source_path)
            self._landed[path] = replace(landed, blob=now)
            themselves.add(landed.digest)
        return themselves

    # -- names

    async def _publish(self, landing: Landing) -> Added:
        parts = self._collection.parts
        first = self._landed[parts[self._collection.first].path]
        files = [] if self._collection.alone else [self._file(part) for part in parts]
        tree = self._trees.path(self._wish.name, files) if files else None
        judge(self._intake.counter.index.entry(self._wish.name), self._wish, first.digest, files)
        added, _ = await self._intake.counter.publish(
            self._wish,
            first.digest,
            partial(self._commit, landing, files),
            format=landing.format,
            source={"registry": "local", "filename": printable(parts[self._collection.first].path)},
            files=files,
            path=tree,
        )
        return added

    def _file(self, part: Part) -> File:
        landed = self._landed[part.path]
        return File(path=part.path, blob=landed.digest.text, size_bytes=landed.size, role=part.role)

    def _commit(self, landing: Landing, files: list[File]) -> tuple[Blob, bool]:
        """In the publisher's turn. The manifest comes after it."""
        reused = [still_there(self._layout, landed.blob)[0] for landed in self._landed.values() if landed.blob]
        self._check_adopted()
        if self._how == "link":
            self._mark_linked()
        staged = landing.batch.staged
        results = landing.batch.commit(trusted=self._is_proven)
        # ---- The blobs have their names: from here on nothing is taken back. ----
        for each, (_blob, was_here) in zip(staged, results, strict=True):
            if not was_here and each.size > BLOCK:
                save_blocks(self._layout, each.digest, BlockSums(each.size, each.blocks))
        if files:
            self._observer.advance(committed=sum(blob.size for blob, was_here in results if not was_here))
        self._named = [*reused, *(blob for blob, _ in results)]
        self._settle_links(results)
        if files:
            _, self._relinked = self._trees.ensure(self._wish.name, files)
        by_digest = {blob.digest: blob for blob in self._named}
        first = self._landed[self._collection.parts[self._collection.first].path]
        return by_digest[first.digest], all(was_here for _, was_here in results)

    def _is_proven(self, blob: Blob) -> bool:
        proven = self._proven.get(blob.digest)
        return proven is not None and proven.signature == blob.signature

    def _check_adopted(self) -> None:
        """By its old name a file can be written to until that is gone: what was hashed must be what gets the name."""
        for landed in self._landed.values():
            if landed.adopted is None or landed.blob is not None:
                continue
            path = landed.adopted.staged.path
            with store_faults("look at", path):
                now = Signature.of(os.lstat(path))
            # Two files of a model may be one with two names: then each adoption changes the other's links.
            if now != landed.source and (self._how == "move" or not only_links_changed(Relinked(landed.source, now))):
                raise changed(self._collection.where(landed.part))

    def _mark_linked(self) -> None:
        """Before the blobs get their names: after a crash nobody takes a shared file for the store's alone."""
        for landed in self._landed.values():
            if landed.adopted is not None and not os.path.lexists(self._layout.blob(landed.digest)):
                self._trees.linked.good(landed.digest, landed.source, landed.adopted.source_path)

    def _settle_links(self, results: list[tuple[Blob, bool]]) -> None:
        """Getting its name has changed a file's signature, and nothing else of it may have changed since it was
        hashed: else the old signature stays, and the model is suspect from the start."""
        hashed = {(landed.digest, landed.source.inode): landed.adopted for landed in self._landed.values()}
        for blob, was_here in results:
            adopted = hashed.get((blob.digest, blob.signature.inode))
            if was_here or adopted is None:
                continue
            if not only_links_changed(Relinked(adopted.staged.source, blob.signature)):
                self._unsure.add(blob.digest)
            elif blob.digest in self._trees.linked:
                self._trees.linked.good(blob.digest, blob.signature, adopted.source_path)

    # -- the end

    def _clean_up(self, batch: Batch) -> None:
        """What has no name is taken away, and sources that did not become blobs are as they were."""
        for landed in self._landed.values():
            if landed.adopted is None:
                continue
            with contextlib.suppress(WireError):
                blob = blobs.stat_blob(self._layout, landed.digest)
                if blob is None:
                    self._trees.linked.forget(landed.digest)
                if blob is None or blob.signature.inode != landed.source.inode:
                    landed.adopted.give_back()
        batch.__exit__(None, None, None)

    async def _afterwards(self) -> None:
        """The model is there. What is noted now saves work later; what a move leaves behind is taken away."""
        index = self._intake.counter.index
        if self._how == "link":
            index.forget()  # of every model that has one of these blobs
        if self._how == "move":
            await self._in_thread(self._remove_sources)
        by_digest = {blob.digest: blob for blob in self._named}
        sources = {landed.digest: landed.source for landed in self._landed.values()}
        await self._intake.records.all_good(
            [(blob, sources[digest]) for digest, blob in by_digest.items() if digest not in self._unsure]
        )
        await self._intake.records.relinked(self._relinked)

    def _remove_sources(self) -> None:
        for landed in self._landed.values():
            before = blobs.stat_blob(self._layout, landed.digest)
            self._collection.reader.remove(self._collection.where(landed.part), landed.source)
            after = blobs.stat_blob(self._layout, landed.digest)
            if before is not None and after is not None and before.signature != after.signature:
                self._relinked.append(Relinked(before.signature, after.signature))
                self._trees.linked.relinked(after, before.signature)
        self._collection.remove_empty_directories()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._intake.threads)


def _portions(parts: tuple[Part, ...]) -> Iterator[list[Part]]:
    portion: list[Part] = []
    size = 0
    for part in parts:
        if portion and (size + part.signature.size > PORTION_BYTES or len(portion) == PORTION_FILES):
            yield portion
            portion, size = [], 0
        portion.append(part)
        size += part.signature.size
    if portion:
        yield portion
