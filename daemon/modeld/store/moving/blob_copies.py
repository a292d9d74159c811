"""Copies of all blobs in the directory that a store moves to.

Each is hashed as it is made, and durable before it counts. Which copies are good is known from the catalogue: a copy
whose signature is not recorded is hashed again, so a copying that is interrupted at any point goes on where it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

from modeld.progress import FileProgress, JobProgress
from modeld.store.blobs import blobs
from modeld.store.blobs.linked import Linked
from modeld.store.digest import Digest, Signature
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Reservation, Space, free_bytes_under
from modeld.store.ingest.commit import Batch
from modeld.store.ingest.from_site import SiteBlob
from modeld.store.ingest.staged import Staged
from modeld.store.maintain.walk import DIGEST, BlobFile, Unusable, walk
from modelwire.errors import Corrupt, Internal, NoSpace, SourceNotFound, SourceUnavailable

AT_ONCE: Final = 64
AT_ONCE_BYTES: Final = 1 << 30
"""Of one batch, after which its copies are recorded: what is copied again at most when the daemon is killed."""

_ATTEMPTS: Final = 3
"""For a blob that gets a link while it is read: a tree is made once."""


class Missing(NamedTuple):
    batches: list[list[BlobFile]]
    size: int


class BlobCopies:
    """Blocks; for one thread at a time."""

    def __init__(self, old: Layout, new: Layout, known: Mapping[Digest, Signature], *, min_free: int) -> None:
        """`known` has the signatures of copies that were good when they were recorded."""
        self._old, self._new = old, new
        self._linked = Linked(new)
        self._space = Space(partial(free_bytes_under, new.root), min_free=min_free)
        self.good: dict[Digest, Signature] = {}
        """The copies that have the bytes of their blobs."""
        self._known = dict(known)
        self.faults: dict[Digest, str] = {}
        """Blobs that cannot be copied, and why."""
        self.size = 0
        """Of all blobs, at the last look."""

    def missing(self, stopped: Callable[[], bool]) -> Missing:
        """The blobs that have no good copy. Raises Stopped."""
        found = []
        self.size, gone, self.faults = 0, set(self.good), {}
        for blob in walk(self._old, stopped):
            if isinstance(blob, Unusable):
                self._note_unusable(blob)
            if not isinstance(blob, BlobFile):
                continue
            digest = Digest(blob.digest)
            self.size += blob.info.st_size
            gone.discard(digest)
            if not self._is_good(digest, blob.info.st_size):
                found.append(blob)
        for digest in gone:  # swept meanwhile; a sweep of the new store takes the copy
            del self.good[digest]
        return Missing(_batches(found), sum(blob.info.st_size for blob in found))

    def _note_unusable(self, found: Unusable) -> None:
        """A blob that cannot be looked at is a matter of its models; a directory of many is one of the store."""
        path = "/".join((self._old.root, *found.parts))
        names = [part for part in found.parts if DIGEST.fullmatch(part)]
        if names:
            self.faults[Digest(names[0])] = f"{path} {found.reason}"
        elif not found.parts[-1].startswith("."):
            raise Internal(f"{path} {found.reason}", hint="Look at the disk and at who may read it.", retryable=True)

    def _is_good(self, digest: Digest, size: int) -> bool:
        known = self.good.get(digest) or self._known.get(digest)
        if known is None or known.size != size:
            return False
        copy = blobs.stat_blob(self._new, digest)
        if copy is None or not known.is_unchanged(copy.signature):
            self.good.pop(digest, None)
            return False
        self.good[digest] = known
        return True

    def reserve(self, missing: Missing) -> Reservation:
        """Room for all of them, or NoSpace."""
        to_come = (
            blob.info.st_size
            for batch in missing.batches
            for blob in batch
            if blobs.stat_blob(self._new, Digest(blob.digest)) is None
        )
        try:
            return self._space.reserve(sum(to_come))
        except NoSpace as fault:
            raise NoSpace(
                f"{self._new.root}: {fault.message}",
                hint="Free space there, or name another directory. The store stays where it is.",
                details={**fault.details, "path": self._new.root},
            ) from None

    def copy(self, files: Sequence[BlobFile], space: Space, progress: JobProgress) -> dict[Digest, Signature]:
        """Makes the copies, and returns those that are good. A blob that is not what its name says, or cannot be read,
        is in `faults`."""
        batch, made = Batch(self._new, len(files)), dict[Digest, Signature]()
        try:
            for file in files:
                digest = Digest(file.digest)
                found = blobs.find_good(self._new, digest, size=file.info.st_size, progress=FileProgress(progress))
                if found is not None:
                    blobs.sync_names(self._new, digest)
                    made[digest] = found.signature
                    progress.advance(done=found.size, kept=found.size)
                elif (staged := self._stage(digest, batch, space, progress)) is not None:
                    batch.take(staged)
            made.update((digest, blob.signature) for digest, blob in batch.settle({}).items())
            made.update((digest, named.blob.signature) for digest, named in batch.commit().items())
        finally:
            batch.discard()
        self.good.update(made)
        return made

    def _stage(self, digest: Digest, batch: Batch, space: Space, progress: JobProgress) -> Staged | None:
        blob = SiteBlob(path=self._old.blob(digest), digest=digest)
        for attempt in range(_ATTEMPTS):
            try:
                return blob.stage(
                    self._new,
                    space=space,
                    progress=FileProgress(progress),
                    linked=self._linked,
                    keep_cache=False,
                    syncs=batch.syncs_alone,
                )
            except SourceNotFound:
                return None  # swept since it was listed
            except SourceUnavailable as fault:
                if attempt == _ATTEMPTS - 1:
                    self.faults[digest] = fault.message
            except Corrupt as fault:
                self.faults[digest] = fault.message
                break
        return None

    def relinked(self, digest: Digest, before: Signature) -> None:
        """A copy has another link, which the store has made."""
        now = Signature.of(os.lstat(self._new.blob(digest)))
        if before.only_links_changed(now):
            self.good[digest] = now


def _batches(missing: Sequence[BlobFile]) -> list[list[BlobFile]]:
    batches: list[list[BlobFile]] = []
    size = 0
    for blob in missing:
        size += blob.info.st_size
        if not batches or len(batches[-1]) == AT_ONCE or size > AT_ONCE_BYTES:
            batches.append([])
            size = blob.info.st_size
        batches[-1].append(blob)
    return batches
