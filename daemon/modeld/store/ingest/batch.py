"""Many small files into the store with two syncs for all of them instead of four for each.

A thousand files of 16 KiB: 0.7 s one after the other, a third of that together.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from types import TracebackType
from typing import TYPE_CHECKING

from modeld.store.blobs.blobs import Blob, Trusted, name_or_find, never_trusted, stat_named, sync_names
from modeld.store.blobs.hashing import CHUNK
from modeld.store.blobs.staging import Staged, discard, stage_copy, sync_staged
from modeld.store.disk import durable
from modeld.store.disk.durable import FilesystemSync, outcome_unknown, store_faults

if TYPE_CHECKING:
    from modeld.progress import FileProgress
    from modeld.store.digest import Digest
    from modeld.store.disk.layout import Layout
    from modeld.store.disk.space import Space

TOGETHER_FROM = 8
"""Fewer files are synced one by one: a sync of the whole filesystem is for many."""


class Batch:
    """`with Batch(...) as batch:` then `stage` each file and `commit` them all.

    On the way out, whatever has no name is taken away. A blob that got its name stays: it is good, and
    whoever asks for the same again finds it.
    """

    def __init__(self, layout: Layout, *, space: Space, observer: FileProgress) -> None:
        self._layout = layout
        self._space = space
        self._observer = observer
        self._staged: list[Staged] = []
        self._synced = False
        with store_faults("open", layout.staging):
            durable.make_directories(layout.staging, below=layout.root)
            self._together = FilesystemSync(layout.staging)

    def __enter__(self) -> Batch:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for staged in self._staged:
            discard(staged)
        with contextlib.suppress(OSError):
            self._together.close()

    def stage(self, source_fd: int, source_path: str, *, expected: Digest | None = None) -> Staged:
        """As `ingest.stage_copy`. A big file is synced at once, so that the batch does not wait for it."""
        with durable.source_faults(source_path):
            small = os.fstat(source_fd).st_size <= CHUNK
        staged = stage_copy(
            self._layout,
            source_fd,
            source_path,
            expected=expected,
            space=self._space,
            observer=self._observer,
            sync=not small,
        )
        self.take(staged)
        return staged

    def take(self, staged: Staged) -> None:
        """One that was staged elsewhere; from here on it is the batch's to discard. From any thread."""
        self._staged.append(staged)

    @property
    def staged(self) -> tuple[Staged, ...]:
        """In the order in which they came."""
        return tuple(self._staged)

    def sync(self) -> None:
        """All bytes are on stable storage: what has to come before the first name, and may come long before."""
        if not self._synced and not self._sync_together(sum(not staged.synced for staged in self._staged)):
            for staged in self._staged:
                sync_staged(staged)
        self._synced = True

    def let_go(self, digests: Collection[Digest]) -> None:
        """These have turned out to be in the store already."""
        kept = [staged for staged in self._staged if staged.digest not in digests]
        for staged in self._staged:
            if staged.digest in digests:
                discard(staged)
        self._staged = kept

    def sync_names(self, digests: Collection[Digest]) -> None:
        """Of blobs that were found: whoever named them may have died, or never cared to sync."""
        if not self._sync_together(len(digests)):
            for digest in digests:
                sync_names(self._layout, digest)

    def commit(self, *, trusted: Trusted = never_trusted) -> list[tuple[Blob, bool]]:
        """As `blobs.commit` for each, in the order in which they were staged."""
        staged_files, layout = self._staged, self._layout
        self.sync()
        named: set[Digest] = set()
        found: list[Blob | None] = []
        for staged in staged_files:
            if staged.digest in named:
                found.append(None)
                continue
            blob = name_or_find(layout, staged, trusted, self._observer)
            if blob is None:
                named.add(staged.digest)
            found.append(blob)
        with outcome_unknown():
            if not self._sync_together(len(named)):
                for digest in named:
                    sync_names(layout, digest)
        results: list[tuple[Blob, bool]] = []
        for staged, blob in zip(staged_files, found, strict=True):
            if blob is not None:
                results.append((blob, True))
                continue
            results.append((stat_named(layout, staged.digest), staged.digest not in named))
            named.discard(staged.digest)
        return results

    def _sync_together(self, count: int) -> bool:
        if count < TOGETHER_FROM:
            return False
        with store_faults("sync the filesystem of", self._layout.root):
            return self._together.sync()
