"""Commits staged files, which gives them their names: one or many, from any producer, with as few syncs as possible.

Before the naming every failure removes the staged files. After it nothing is undone: the bytes are good, and only the
durability of their names is unknown, which the same request again makes sure.

A thousand files of 16 KiB: 0.7 s one after the other, a third of that together.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from typing import NamedTuple

from modeld.progress import FileProgress
from modeld.store.blobs.blobs import Blob, find_good, require_blob, sync_names
from modeld.store.blobs.block_checksums import BLOCK, BlockSums, save_blocks
from modeld.store.blobs.hashing import CHUNK
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.durable import FilesystemSync, outcome_unknown, store_faults
from modeld.store.disk.layout import Layout
from modeld.store.ingest.look import Learned, look_at
from modeld.store.ingest.staged import Staged
from modelwire.errors import Corrupt

TOGETHER_FROM = 8
"""Fewer files are synced one by one: a sync of the whole filesystem is for many."""

MAX_ATTEMPTS = 5
"""At naming: each fails only when another program put a bad blob there meanwhile."""


class Committed(NamedTuple):
    blob: Blob
    reused: bool
    """The store had the same content already."""

    sure: bool = True
    """False when a program wrote to the file while it was named: its present bytes are not verified."""


class Batch:
    """`take` each staged file, then `commit` them all. Files without a name at the end are discarded: by the commit, or
    by `discard`. A blob that got its name stays: it is good, and the next request for the same finds it."""

    def __init__(self, layout: Layout, count: int = 1) -> None:
        """Blocking. `count` files are to come."""
        self._layout = layout
        self._staged: list[Staged] = []
        self._let_go: list[Staged] = []
        self._prepared = False
        self._together: FilesystemSync | None = None
        if count >= TOGETHER_FROM:
            with store_faults("open", layout.staging):
                durable.make_directories(layout.staging, below=layout.root)
                self._together = FilesystemSync(layout.staging)

    @property
    def shares_syncs(self) -> bool:
        return self._together is not None

    @property
    def ended(self) -> bool:
        """Nothing is left to discard."""
        return not self._staged and not self._let_go and self._together is None

    @property
    def staged(self) -> tuple[Staged, ...]:
        """In the order of `take`."""
        return tuple(self._staged)

    def syncs_alone(self, size: int) -> bool:
        """Whether the producer syncs the file as it stages it: a big one, so that the others do not wait for it, and
        every file of a small batch."""
        return self._together is None or size > CHUNK

    def take(self, staged: Staged) -> None:
        """Adds a file; from here on the batch discards it. From any thread."""
        self._staged.append(staged)

    def let_go(self, digests: Collection[Digest]) -> None:
        """Drops files whose blobs the store has: their staged names are removed now; the rest of their staging is
        undone at the end."""
        found = [staged for staged in self._staged if staged.digest in digests]
        self._staged = [staged for staged in self._staged if staged.digest not in digests]
        self._let_go += found
        for staged in found:
            staged.take_back()

    def sync_names(self, digests: Collection[Digest]) -> None:
        """Syncs the names of blobs that were found: the program that named them may not have synced."""
        if not self._sync_together(len(digests)):
            for digest in digests:
                sync_names(self._layout, digest)

    def prepare(self) -> None:
        """Syncs all bytes and inspects each content once. It must precede the first naming, and may precede it by
        long."""
        if self._prepared:
            return
        if not self._sync_together(sum(not staged.synced for staged in self._staged)):
            for staged in self._staged:
                _sync(staged)
        learned: dict[Digest, Learned] = {}
        for staged in self._staged:
            if staged.digest not in learned:
                learned[staged.digest] = look_at(staged.path, staged.origin)
            staged.learned = learned[staged.digest]
        self._prepared = True

    def commit(
        self, *, verified: Mapping[Digest, Signature] | None = None, progress: FileProgress | None = None
    ) -> list[Committed]:
        """Blocking; call it once. Returns the blob of each file, in the order of `take`. `verified` has the signatures
        of blobs at their last good verification: those that are unchanged are not hashed again."""
        try:
            for staged in self._staged:
                staged.check()
            self.prepare()
            return self._commit(verified or {}, progress or FileProgress())
        finally:
            self.discard()

    def discard(self) -> None:
        """Idempotent."""
        for staged in (*self._staged, *self._let_go):
            staged.discard()
        self._staged, self._let_go = [], []
        together, self._together = self._together, None
        if together is not None:
            with contextlib.suppress(OSError):
                together.close()

    def _commit(self, verified: Mapping[Digest, Signature], progress: FileProgress) -> list[Committed]:
        layout = self._layout
        named: set[Digest] = set()
        found: list[Blob | None] = []
        for staged in self._staged:
            blob = None
            if staged.digest not in named:
                blob = _name_or_find(layout, staged, verified.get(staged.digest), progress)
            if blob is None:
                named.add(staged.digest)
            found.append(blob)
        # ---- The blobs have their names: from here on nothing is undone. ----
        with outcome_unknown():
            if not self._sync_together(len(named)):
                for digest in named:
                    sync_names(layout, digest)
        results: list[Committed] = []
        for staged, blob in zip(self._staged, found, strict=True):
            if blob is not None:
                results.append(Committed(blob, True))
                continue
            blob, first = require_blob(layout, staged.digest), staged.digest in named
            results.append(Committed(blob, not first, not first or staged.named(blob)))
            # For many small files checksums would cost as much as the files, and a repair fetches a small file whole.
            if first and (staged.size > BLOCK or not self.shares_syncs):
                save_blocks(layout, staged.digest, BlockSums(staged.size, staged.blocks))
            named.discard(staged.digest)
        return results

    def _sync_together(self, count: int) -> bool:
        if self._together is None or count < TOGETHER_FROM:
            return False
        with store_faults("sync the filesystem of", self._layout.root):
            return self._together.sync()


def _sync(staged: Staged) -> None:
    """Syncs a file that was staged without a sync. A failure condemns the file: never call it twice."""
    if staged.synced:
        return
    with store_faults("make durable", staged.path):
        descriptor = os.open(staged.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            durable.sync_file(descriptor)
        finally:
            durable.close(descriptor)


def _name_or_find(layout: Layout, staged: Staged, verified: Signature | None, progress: FileProgress) -> Blob | None:
    """Names the staged file and returns None, or returns the good blob that has the name."""
    path = layout.blob(staged.digest)
    for _attempt in range(MAX_ATTEMPTS):
        with store_faults("name the blob", path):
            try:
                named = durable.name_without_replacing(staged.path, path)
            except FileNotFoundError:
                durable.make_directories(os.path.dirname(path), below=layout.root)
                named = durable.name_without_replacing(staged.path, path)
        if named:
            return None
        found = find_good(layout, staged.digest, size=staged.size, verified=verified, progress=progress)
        if found is not None:
            return found
    raise Corrupt(
        f"{path} is taken by bad bytes again each time they are set aside",
        hint="Find the program that writes there.",
        details={"path": path},
    )
