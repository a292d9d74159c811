"""A local file copied into the staging directory and hashed on the way, in one pass."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass

from modeld.progress import FileProgress, check
from modeld.store.blobs.block_checksums import BlockSummer
from modeld.store.blobs.hashing import CHUNK, FrontToBackReader, FrontToBackWriter, HashRing, hash_file
from modeld.store.blobs.quarantine import quarantine
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.durable import source_faults, store_faults
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Reservation, Space
from modeld.store.ingest.staged import Staged, changed, digest_mismatch, seal, staging_name


def stage_copy(
    layout: Layout,
    source_fd: int,
    source_path: str,
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
    with source_faults(source_path):
        source = Signature.of(os.fstat(source_fd))
    progress.phase("reserving")
    progress.total(source.size)
    with staging_name(layout, "ingest", space.reserve(source.size)) as (path, reservation):
        with store_faults("create the staging file", path):
            target_fd = _create(layout, path)
        try:
            copy = _Copy(target_fd, path, source_fd, source_path, source.size, reservation, progress, keep_cache)
            digest, size, blocks = copy.run()
            check_unchanged(source_fd, source_path, source, size)
            if expected is not None and not expected.matches(digest):
                progress.phase("quarantine")
                kept: str | None = None
                with contextlib.suppress(OSError):
                    kept = quarantine(layout, path, "digest-mismatch")
                hint = "Check where the file and the digest come from; the same file will not match next time either."
                raise digest_mismatch(source_path, expected, digest, hint, quarantine_path=kept)
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
        origin=source_path,
        source=source,
        reservation=reservation,
        synced=sync,
        sealed=sealed,
    )


def hash_source(source_fd: int, source_path: str, *, progress: FileProgress) -> Digest:
    """The digest of an open file, without writing a byte.

    For content that the store may have: reading alone costs less than a needless copy.
    """
    with source_faults(source_path):
        source = Signature.of(os.fstat(source_fd))
        progress.total(source.size)
        digest, size = hash_file(source_fd, source.size, progress)
    check_unchanged(source_fd, source_path, source, size)
    return digest


def check_unchanged(source_fd: int, source_path: str, before: Signature, read: int) -> None:
    """SourceUnavailable when the file is not what it was before `read` bytes were taken from it."""
    with source_faults(source_path):
        after = Signature.of(os.fstat(source_fd))
        more = os.pread(source_fd, 1, read)
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
    raise changed(source_path, what, doing="read")


def _create(layout: Layout, path: str) -> int:
    try:
        return durable.create_file(path)
    except FileNotFoundError:
        durable.make_directories(layout.staging, below=layout.root)
        return durable.create_file(path)


@dataclass(frozen=True, slots=True)
class _Copy:
    target_fd: int
    target_path: str
    source_fd: int
    source_path: str
    size: int
    reservation: Reservation
    progress: FileProgress
    keep_cache: bool

    def run(self) -> tuple[Digest, int, tuple[int, ...]]:
        """The digest, how many bytes there were, and the checksums of their blocks."""
        self.progress.phase("copy")
        check(self.progress)
        if self.size <= CHUNK:
            return self._small()
        with store_faults("share the source's extents with", self.target_path):
            cloned = durable.clone(self.source_fd, self.target_fd)
        return self._hash_clone() if cloned else self._stream()

    def _small(self) -> tuple[Digest, int, tuple[int, ...]]:
        """One buffer, no thread: starting a thread costs more than hashing a small file."""
        data = memoryview(bytearray(self.size))
        with source_faults(self.source_path):
            got = durable.read_at(self.source_fd, data, 0) if self.size else 0
        data = data[:got]
        summer = BlockSummer()
        summer.update(data)
        if got:
            with store_faults("write to", self.target_path):
                durable.write_at(self.target_fd, data, 0)
        self.reservation.settle(got)
        self.progress.advance(done=got, verified=got)
        return Digest(hashlib.sha256(data).hexdigest()), got, summer.finish()

    def _hash_clone(self) -> tuple[Digest, int, tuple[int, ...]]:
        """Hashes the clone: later changes of the source do not matter."""
        self.reservation.settle(self.size)
        self.progress.advance(done=self.size)
        self.progress.phase("verify")
        summer = BlockSummer()
        with store_faults("read back", self.target_path):
            digest, hashed = hash_file(self.target_fd, self.size, self.progress, summer=summer)
        return digest, hashed, summer.finish()

    def _stream(self) -> tuple[Digest, int, tuple[int, ...]]:
        with store_faults("allocate", self.target_path):
            if durable.preallocate(self.target_fd, self.size):
                self.reservation.settle(self.size)
        reader = FrontToBackReader(self.source_fd, self.size, keep_cache=self.keep_cache)
        writer = FrontToBackWriter(self.target_fd, keep_cache=self.keep_cache)
        summer = BlockSummer()
        offset = 0
        with HashRing() as ring:
            while offset < self.size:
                check(self.progress)
                buffer = ring.take()
                with source_faults(self.source_path):
                    got = reader.read(buffer[: self.size - offset], offset)
                if got == 0:
                    break
                ring.submit(got)
                summer.update(buffer[:got])
                with store_faults("write to", self.target_path):
                    writer.write(buffer[:got], offset)
                self.reservation.settle(got)
                offset += got
                self.progress.advance(done=got, verified=ring.newly_hashed())
            digest = ring.finish()
            self.progress.advance(verified=ring.newly_hashed())
        return digest, offset, summer.finish()
