"""Each file of a collection on its way in: found in the store, adopted, or copied. What byte threads do for it.

Nothing here gives a name to anything: whatever was staged is the batch's, to be committed or discarded as a whole.
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from modeld.inspect.formats import HEAD_BYTES, detect_format
from modeld.progress import FileProgress, check
from modeld.store.blobs import blobs, staging
from modeld.store.blobs.blobs import Blob
from modeld.store.blobs.linked import Linked
from modeld.store.digest import Digest, Signature
from modeld.store.disk.durable import source_faults
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Space
from modeld.store.ingest.adding import OpenFile, resembles_one
from modeld.store.ingest.adopt import Adopted, How, stage_adopted
from modeld.store.ingest.batch import Batch
from modeld.store.ingest.collect import Collection, Part
from modeld.store.publish.holds import Holds
from modelwire.errors import DigestMismatch, SourceUnavailable


@dataclass(frozen=True, slots=True)
class Landed:
    """A file whose digest is known now: `blob` when it was here already, else it is among the staged ones."""

    part: Part
    digest: Digest
    size: int
    source: Signature
    blob: Blob | None = None
    adopted: Adopted | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What the records said before the first file was opened."""

    sources: dict[Signature, Digest]
    verified: dict[Digest, Signature]
    same_size: dict[int, list[Digest]]


@dataclass(slots=True)
class Landing:
    """For several byte threads at once."""

    layout: Layout
    collection: Collection
    how: How
    expected: Digest | None
    known: Known
    linked: Linked
    holds: Holds
    held: ExitStack
    batch: Batch
    space: Space
    """What was promised for the whole."""
    single_space: Space
    """Where one file gets room that was not promised: a move that turns out to have to copy."""
    observer: FileProgress
    format: str = "unknown"
    """Of the file that stands for the model."""
    _holding: threading.Lock = field(default_factory=threading.Lock)

    def land(self, part: Part) -> Landed:
        """Blocking. Whatever it raises, it leaves no name and no file but in the batch."""
        check(self.observer)
        descriptor = self.collection.open(part)
        try:
            where = self.collection.where(part)
            with source_faults(where):
                source = Signature.of(os.fstat(descriptor))
                if part is self.collection.parts[self.collection.first]:
                    self.format = detect_format(os.pread(descriptor, HEAD_BYTES, 0), where)
            if not self._is_as_listed(source, part.signature):
                raise changed(where)
            landed = self._found(part, descriptor, where, source) or self._staged(part, descriptor, where, source)
        finally:
            os.close(descriptor)
        self.observer.finished()
        return landed

    def _is_as_listed(self, now: Signature, listed: Signature) -> bool:
        # A first attempt to adopt a file leaves its trace in the time of its last change.
        return now == (listed if self.how == "copy" else replace(listed, ctime_ns=now.ctime_ns))

    def find_good(self, digest: Digest, trusted: Signature | None) -> Blob | None:
        """The good blob of this digest, if it is here; no sweep takes it before the add has ended. Its name may not
        last: whoever uses it has all of them synced."""
        with self._holding:
            self.held.enter_context(self.holds.relying_on(digest))
        if not os.path.lexists(self.layout.blob(digest)):
            return None
        return blobs.find_good(
            self.layout, digest, trusted=lambda blob: blob.signature == trusted, observer=self.observer, sync=False
        )

    # -- bytes that are here

    def _found(self, part: Part, descriptor: int, where: str, source: Signature) -> Landed | None:
        blob = self._itself(source) or self._by_record(source, where)
        if blob is None and self.how == "copy" and self.expected is None:
            blob = self._by_likeness(descriptor, where, source)
        if blob is None or blob.size != source.size:
            return None
        if self.expected is not None and not self.expected.matches(blob.digest):
            raise _mismatch(where, self.expected, blob.digest)
        self.observer.advance(done=blob.size, reused=blob.size)
        return Landed(part, blob.digest, blob.size, source, blob)

    def _itself(self, source: Signature) -> Blob | None:
        """The file is a blob already, by another name, because it was linked before."""
        digest = self.linked.digest_of(source) if self.linked else None
        if digest is None:
            return None
        before = self.linked.signature(digest)
        blob = self.find_good(digest, before)
        if blob is not None and blob.signature != before:
            self.linked.good(digest, blob.signature)
        return blob

    def _by_record(self, source: Signature, where: str) -> Blob | None:
        digest = self.known.sources.get(source)
        if digest is not None and self.expected is not None and not self.expected.matches(digest):
            raise _mismatch(where, self.expected, digest)
        if self.how != "move":
            # A move takes the file away: what it is said to be is no reason for that, only what was read in it.
            digest = digest or self.expected
        return None if digest is None else self.find_good(digest, self.known.verified.get(digest))

    def _by_likeness(self, descriptor: int, where: str, source: Signature) -> Blob | None:
        candidates = self.known.same_size.get(source.size, [])
        if not candidates or not resembles_one(self.layout, OpenFile(descriptor, where, source, ""), candidates):
            return None
        digest, _ = staging.hash_source(descriptor, where, observer=self.observer)
        return self.find_good(digest, self.known.verified.get(digest))

    # -- bytes that are not

    def _staged(self, part: Part, descriptor: int, where: str, source: Signature) -> Landed:
        if self.how != "copy":
            adopted = stage_adopted(
                self.layout,
                descriptor,
                where,
                how=self.how,
                asker=self.collection.reader.uid,
                expected=self.expected,
                space=self.space,
                observer=self.observer,
            )
            if adopted is not None:
                self.batch.take(adopted.staged)
                return Landed(part, adopted.staged.digest, source.size, adopted.staged.source, None, adopted)
            if source.device == os.stat(self.layout.staging).st_dev:
                staged = staging.stage_copy(
                    self.layout,
                    descriptor,
                    where,
                    expected=self.expected,
                    space=self.single_space,
                    observer=self.observer,
                )
                self.batch.take(staged)
                return Landed(part, staged.digest, staged.size, source)
        staged = self.batch.stage(descriptor, where, expected=self.expected)
        return Landed(part, staged.digest, staged.size, source)


def changed(where: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"{where} changed while it was being added; nothing was added",
        hint="Add it again when no other program is writing it.",
        details={"path": where},
    )


def _mismatch(where: str, expected: Digest, actual: Digest) -> DigestMismatch:
    return DigestMismatch(
        f"{where} has the digest {actual.text}, {expected.text} was expected; nothing was added",
        hint="Check where the file and the digest come from.",
        details={"path": where, "expected_sha256": expected.hex, "actual_sha256": actual.hex},
    )
