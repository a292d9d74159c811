"""Finds bytes that the store has already, for every producer.

It finds them by the record of an unchanged source, by the expected digest, as another name of a blob, or by likeness to
a blob. A blob counts only while its last verification matches its signature; else it is hashed first, and a bad one
goes to quarantine. No sweep removes a blob from before the look-up until the request has ended.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Final, NamedTuple

from modeld.progress import FileProgress
from modeld.store.blobs import blobs
from modeld.store.blobs.blobs import Blob
from modeld.store.blobs.block_checksums import BLOCK, BlockSummer, load_blocks
from modeld.store.blobs.linked import Linked
from modeld.store.catalog.records import Records
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modeld.store.ingest import copying
from modeld.store.ingest.adopt import How
from modeld.store.ingest.staged import digest_mismatch
from modeld.store.publish.holds import Holds
from modelwire.errors import Corrupt, DigestMismatch

PROBE_FROM: Final = 2 * BLOCK
"""Smaller files are copied at once: the comparison costs as much."""


class Vanished(Corrupt):
    """A blob that the request needs has been removed or changed."""


class Found(NamedTuple):
    blob: Blob
    read: bool
    """False when the expected digest alone was the answer: the file was not read."""


class Presence:
    """For one request and all its files. `load_records` is for the event loop, the rest blocks, in any thread."""

    def __init__(self, layout: Layout, linked: Linked, records: Records, holds: Holds, held: ExitStack) -> None:
        self._layout = layout
        self._linked = linked
        self._records = records
        self._holds = holds
        self._held = held
        self.syncs_names = True
        """Whether it syncs the names of blobs that it finds: the program that named them may not have. Else the caller
        does."""

        self._holding = threading.Lock()
        self._sources: dict[Signature, Digest] = {}
        self._verified: dict[Digest, Signature] = {}
        self._same_size: dict[int, list[Digest]] = {}

    async def load_records(self, *, sources: Sequence[Signature] = (), digests: Iterable[Digest] = ()) -> None:
        """Loads the records of these sources and blobs. Call it before the first look-up of them."""
        if sources:
            self._sources = await self._records.digests_of_sources(sources)
        for size in {source.size for source in sources if source.size >= PROBE_FROM and source not in self._sources}:
            self._same_size[size] = await self._records.digests_of_size(size)
        alike = (digest for found in self._same_size.values() for digest in found)
        self._verified |= await self._records.verified_signatures({*self._sources.values(), *alike, *digests})

    def recorded_digest(self, source: Signature) -> Digest | None:
        """The recorded digest of a file with exactly this signature."""
        return self._sources.get(source)

    def hold(self, digest: Digest) -> None:
        with self._holding:
            self._held.enter_context(self._holds.relying_on(digest))

    def find(self, digest: Digest, progress: FileProgress) -> Blob | None:
        """The good blob, if the store has it."""
        self.hold(digest)
        self._holds.until_settled(digest)
        if not os.path.lexists(self._layout.blob(digest)):
            return None
        return blobs.find_good(
            self._layout,
            digest,
            verified=self._verified.get(digest),
            progress=progress,
            sync=self.syncs_names,
        )

    def find_file(
        self,
        descriptor: int,
        path: str,
        source: Signature,
        how: How,
        expected: Digest | None,
        progress: FileProgress,
    ) -> Found | None:
        """The good blob of an open file's content, found without copying. DigestMismatch when it is known to be another
        than expected."""
        blob, read = self._find_linked(source, progress), True
        if blob is None:
            digest = self.recorded_digest(source)
            if digest is not None and expected is not None and not expected.matches(digest):
                raise _known_mismatch(path, expected, digest)
            if digest is None and how != "move":
                # A move removes the file: the expected digest does not justify that, only the bytes that were read.
                digest, read = expected, expected is None
            if digest is None and how == "copy":
                digest = self._hash_if_alike(descriptor, path, source, progress)
            blob = None if digest is None else self.find(digest, progress)
        if blob is None or blob.size != source.size:
            return None  # of another size: the file has other bytes than expected, which reading it will show
        if expected is not None and not expected.matches(blob.digest):
            raise _known_mismatch(path, expected, blob.digest)
        progress.advance(done=blob.size, reused=blob.size)
        return Found(blob, read)

    def _find_linked(self, source: Signature, progress: FileProgress) -> Blob | None:
        """The blob that this very file is, because it was linked before."""
        digest = self._linked.digest_of(source) if self._linked else None
        if digest is None:
            return None
        before = self._linked.signature(digest)
        if before is not None:
            self._verified[digest] = before
        blob = self.find(digest, progress)
        if blob is not None and blob.signature != before:
            self._linked.good(digest, blob.signature)
        return blob

    def _hash_if_alike(self, descriptor: int, path: str, source: Signature, progress: FileProgress) -> Digest | None:
        """Reading a file costs less than copying it, but reading and then copying it costs more: so it is hashed alone
        only when a blob of its size has some of its blocks too."""
        candidates = self._same_size.get(source.size)
        if not candidates or not resembles_one(self._layout, descriptor, path, source.size, candidates):
            return None
        progress.phase("verify")
        return copying.hash_source(descriptor, path, progress=progress)


def still_there(layout: Layout, blob: Blob) -> None:
    """In the publisher's turn: a sweep may have run since the blob was found, or another program has written to it."""
    now = blobs.stat_blob(layout, blob.digest)
    if now is None or now.signature != blob.signature:
        raise Vanished(
            f"{blob.path} disappears from the store, or changes, before the model that needs it is published",
            hint="Find the program that changes blobs of this store, then try again.",
            retryable=True,
            details={"path": blob.path},
        )


def _known_mismatch(path: str, expected: Digest, actual: Digest) -> DigestMismatch:
    hint = "The file has not changed since it was last read; check where it and the digest come from."
    return digest_mismatch(path, expected, actual, hint)


def resembles_one(layout: Layout, descriptor: int, path: str, size: int, candidates: list[Digest]) -> bool:
    """Whether some blob has the same first, middle and last block: 48 MiB read instead of the whole."""
    piece = memoryview(bytearray(BLOCK))
    read: dict[int, tuple[int, ...]] = {}
    for digest in candidates:
        known = load_blocks(layout, digest)
        if known is None or known.size != size:
            continue
        ranges = list(known.ranges())
        for number in dict.fromkeys((0, len(ranges) // 2, len(ranges) - 1)):
            if number not in read:
                offset, length = ranges[number]
                with durable.source_faults(path):
                    got = durable.read_at(descriptor, piece[:length], offset)
                summer = BlockSummer()
                summer.update(piece[:got])
                read[number] = summer.finish()
            if read[number] != (known.sums[number],):
                break
        else:
            return True
    return False
