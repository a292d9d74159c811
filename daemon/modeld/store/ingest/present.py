"""Finds local files whose bytes the store has already, without copying them.

It finds them by the record of an unchanged source, by the expected digest, as another name of a blob, or by likeness to
a blob. A blob counts only while its last verification matches its signature; else it is hashed first, and a bad one
goes to quarantine. No sweep removes a blob from before the look-up until the request has ended.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from typing import Final, NamedTuple

from modeld.progress import FileProgress
from modeld.store.blobs import blobs
from modeld.store.blobs.blobs import Blob
from modeld.store.blobs.block_checksums import BLOCK, BlockSummer, BlockSums, load_blocks
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modeld.store.ingest import copying
from modeld.store.ingest.adopt import How
from modeld.store.ingest.copying import Source
from modeld.store.ingest.ingest import Ingest
from modeld.store.ingest.staged import digest_mismatch
from modeld.store.publish.publishing import PublishRequest
from modelwire.errors import DigestMismatch

PROBE_FROM: Final = 2 * BLOCK
"""Smaller files are copied at once: the comparison costs as much."""


class Found(NamedTuple):
    blob: Blob
    known: bool
    """An earlier request has read the file, which has not changed since."""
    read: bool
    """This request has read the file."""


class Presence:
    """For one request and all its files. `load` is for the event loop, the rest blocks, in any thread. The blobs that
    it finds are held until `held` is closed."""

    def __init__(self, ingest: Ingest, how: How, request: PublishRequest, held: ExitStack) -> None:
        self._layout = ingest.publishing.layout
        self._linked = ingest.publishing.index.trees.linked
        self._records = ingest.records
        self._holds = ingest.holds
        self._how = how
        self._expected = request.expected
        self._hash_file = request.hash_file
        self._held = held
        self._holding = threading.Lock()
        self._sources: dict[Signature, Digest] = {}
        self._verified: dict[Digest, Signature] = {}
        self._same_size: dict[int, list[Digest]] = {}

    async def load(self, sources: Sequence[Signature]) -> None:
        """Loads the records of these sources, and of the blobs that they may be."""
        self._sources = await self._records.digests_of_sources(sources)
        for size in {source.size for source in sources if source.size >= PROBE_FROM}:
            self._same_size[size] = await self._records.digests_of_size(size)
        alike = (digest for found in self._same_size.values() for digest in found)
        expected = [] if self._expected is None else [self._expected]
        self._verified = await self._records.verified_signatures({*self._sources.values(), *alike, *expected})

    def recorded_digest(self, source: Signature) -> Digest | None:
        """The recorded digest of a file with exactly this signature."""
        return self._sources.get(source)

    def is_recorded(self, source: Signature) -> bool:
        """Whether a blob has the name of the recorded digest. Its bytes are not looked at."""
        digest = self.recorded_digest(source)
        return digest is not None and os.path.lexists(self._layout.blob(digest))

    def hold(self, digest: Digest) -> None:
        """Call it before the first look at the blob."""
        with self._holding:
            self._held.enter_context(self._holds.relying_on(digest))
        self._holds.until_settled(digest)

    def find(self, source: Source, progress: FileProgress) -> Found | None:
        """The good blob of an open file's content. DigestMismatch when the file is known not to be the expected one."""
        expected, path = self._expected, source.path
        known = read = False
        blob = self._find_linked(source.signature, progress)
        if blob is None and self._how == "move":
            return None  # it removes the file, which only bytes that this very request reads justify
        if blob is None:
            digest = self.recorded_digest(source.signature) if source.has_writer is False else None
            known = digest is not None
            if digest is not None and expected is not None and not expected.matches(digest):
                raise _known_mismatch(path, expected, digest)
            digest = digest or (None if self._hash_file else expected)
            if digest is None and self._how == "copy":
                digest = self._hash_if_alike(source, progress)
                read = digest is not None
            blob = None if digest is None else self._find_good(digest, progress)
        if blob is None or blob.size != source.signature.size:
            return None  # of another size: the file has other bytes than expected, which reading it will show
        if expected is not None and not expected.matches(blob.digest):
            raise _known_mismatch(path, expected, blob.digest)
        progress.reuse(blob.size)
        return Found(blob, known, read)

    def _find_good(self, digest: Digest, progress: FileProgress) -> Blob | None:
        self.hold(digest)
        return blobs.find_good(self._layout, digest, verified=self._verified.get(digest), progress=progress)

    def _find_linked(self, source: Signature, progress: FileProgress) -> Blob | None:
        """The blob that this very file is, because it was linked before."""
        digest = self._linked.digest_of(source)
        if digest is None:
            return None
        before = self._linked.signature(digest)
        if before is not None:
            self._verified[digest] = before
        blob = self._find_good(digest, progress)
        if blob is not None and blob.signature != before:
            self._linked.good(digest, blob.signature)
        return blob

    def _hash_if_alike(self, source: Source, progress: FileProgress) -> Digest | None:
        """Reading a file costs less than copying it, but reading and then copying it costs more: so it is hashed alone
        only when a blob of its size has some of its blocks too."""
        candidates = self._same_size.get(source.signature.size)
        if not candidates or not resembles_one(self._layout, source, candidates):
            return None
        progress.phase("verify")
        return copying.hash_source(source, progress)


def _known_mismatch(path: str, expected: Digest, actual: Digest) -> DigestMismatch:
    hint = "The file has not changed since it was last read; check where it and the digest come from."
    return digest_mismatch(path, expected, actual, hint)


def resembles_one(layout: Layout, source: Source, candidates: list[Digest]) -> bool:
    """Whether some blob has the same first, middle and last block: 48 MiB read instead of the whole."""
    piece = memoryview(bytearray(BLOCK))

    @cache
    def checksum(offset: int, length: int) -> tuple[int, ...]:
        with durable.source_faults(source.path):
            got = durable.read_at(source.descriptor, piece[:length], offset)
        summer = BlockSummer()
        summer.update(piece[:got])
        return summer.finish()

    def is_like(known: BlockSums | None) -> bool:
        if known is None or known.size != source.signature.size:
            return False
        blocks = list(zip(known.ranges(), known.sums, strict=True))
        some = (blocks[number] for number in (0, len(blocks) // 2, -1))
        return all(checksum(*place) == (expected,) for place, expected in some)

    return any(is_like(load_blocks(layout, digest)) for digest in candidates)
