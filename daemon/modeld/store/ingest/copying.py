"""A local file copied into the staging directory and hashed on the way, in one pass."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import NamedTuple

from modeld.platform import files
from modeld.progress import FileProgress, check
from modeld.store.blobs.block_checksums import BlockSummer
from modeld.store.blobs.front_to_back import FrontToBackWriter
from modeld.store.blobs.hashing import WHOLE, hash_file
from modeld.store.blobs.quarantine import quarantine
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.durable import source_faults, store_faults
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Reservation, Space
from modeld.store.ingest.staged import Staged, changed, digest_mismatch, seal, staging_name
from modelwire.errors import SourceUnavailable


class Source(NamedTuple):
    """A local file that is open to be read."""

    descriptor: int
    path: str
    signature: Signature
    """Before the first byte is read."""

    has_writer: bool | None
    """Whether a program could write to it then. Only without one does each later write change the signature: a program
    that has written to a mapped page can write to it again, and leave the file's times."""

    @classmethod
    def of(cls, descriptor: int, path: str, has_writer: Callable[[int], bool | None] = files.has_writer) -> Source:
        with source_faults(path):
            writer = has_writer(descriptor)
            return cls(descriptor, path, Signature.of(os.fstat(descriptor)), writer)

    def refuse_writer(self) -> None:
        if self.has_writer:
            raise SourceUnavailable(
                f"{self.path} is open for writing in some program; nothing was added",
                hint="Add it again when no program is writing it.",
                details={"path": self.path},
            )

    def check_unchanged(self, read: int) -> None:
        """SourceUnavailable when the file is not what it was before `read` bytes were taken from it."""
        before = self.signature
        with source_faults(self.path):
            after = Signature.of(os.fstat(self.descriptor))
            more = os.pread(self.descriptor, 1, read)
        if after == before and read == before.size and not more:
            return
        if more and after.size == before.size == read:
            what = f"it reports a size of {read} bytes, and there are more"
        elif after.size != before.size:
            what = f"its size went from {before.size} to {after.size} bytes"
        elif read != before.size:
            what = f"it ended after {read} of {before.size} bytes"
        elif after.mtime_ns != before.mtime_ns:
            what = "it was written to"
        else:
            what = "its owner, mode or links changed"
        raise changed(self.path, what, doing="read")


def stage_copy(
    layout: Layout,
    source: Source,
    *,
    expected: Digest | None = None,
    space: Space,
    progress: FileProgress,
    keep_cache: bool = False,
    sync: bool = True,
) -> Staged:
    """Copies an open file into the staging directory, hashing it on the way. Blocks; for a byte thread.

    Whatever it raises (an error of the wire, or Stopped), it leaves neither a file nor a reservation; bytes of the
    wrong digest are in quarantine.
    """
    size = source.signature.size
    progress.phase("reserving")
    progress.total(size)
    reservation = space.reserve(size)
    with staging_name(layout, "ingest", reservation) as path:
        with store_faults("create the staging file", path):
            target_fd = durable.stage_file(path, below=layout.root)
        try:
            digest, copied, blocks = _copy(source, target_fd, path, reservation, progress, keep_cache)
            source.check_unchanged(copied)
            if expected is not None and not expected.matches(digest):
                progress.phase("quarantine")
                kept: str | None = None
                with contextlib.suppress(OSError):
                    kept = quarantine(layout, path, "digest-mismatch")
                    reservation.leave(kept, copied)
                hint = "Check where the file and the digest come from; the same file will not match next time either."
                raise digest_mismatch(source.path, expected, digest, hint, quarantine_path=kept)
            sealed = seal(layout, target_fd, path, sync=sync)
        except BaseException:
            with contextlib.suppress(OSError):
                durable.close(target_fd)
            raise
        with store_faults("close", path):
            durable.close(target_fd)
    return Staged(
        path=path,
        digest=digest,
        size=size,
        blocks=blocks,
        origin=source.path,
        source=source.signature,
        reservation=reservation,
        synced=sync,
        sealed=sealed,
    )


def hash_source(source: Source, progress: FileProgress) -> Digest:
    """The digest of an open file, without writing a byte.

    For content that the store may have: reading alone costs less than a needless copy.
    """
    progress.total(source.signature.size)
    with source_faults(source.path):
        digest, size = hash_file(source.descriptor, source.signature.size, progress)
    source.check_unchanged(size)
    return digest


def _copy(
    source: Source, target_fd: int, path: str, reservation: Reservation, progress: FileProgress, keep_cache: bool
) -> tuple[Digest, int, tuple[int, ...]]:
    """The digest, how many bytes there were, and the checksums of their blocks."""
    size = source.signature.size
    small, summer = size <= WHOLE, BlockSummer()
    writer = FrontToBackWriter(target_fd, keep_cache=keep_cache or small)

    def write(data: memoryview, offset: int) -> None:
        with store_faults("write to", path):
            writer.write(data, offset)
        reservation.settle(len(data))
        progress.advance(done=len(data))

    progress.phase("copy")
    if not small:
        check(progress)
        with store_faults("share the source's extents with", path):
            cloned = durable.clone(source.descriptor, target_fd)
        if cloned:
            # The clone is hashed: later changes of the source do not matter.
            reservation.settle(size)
            progress.advance(done=size)
            progress.phase("verify")
            with store_faults("read back", path):
                digest, hashed = hash_file(target_fd, size, progress, summer=summer)
            return digest, hashed, summer.finish()
        with store_faults("allocate", path):
            if durable.preallocate(target_fd, size):
                reservation.settle(size)
    with source_faults(source.path):
        digest, copied = hash_file(source.descriptor, size, progress, summer=summer, write=write, keep_cache=keep_cache)
    return digest, copied, summer.finish()
