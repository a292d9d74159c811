"""Bytes on their way into the store: complete, checked and durable, and still invisible.

A staged file has no name that anyone looks for. Giving it one is `blobs.commit`; until then, whatever
happens, `discard` or the next start takes it away.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from modeld.progress import FileProgress, check
from modeld.store.blobs.block_checksums import BlockSummer
from modeld.store.blobs.hashing import CHUNK, FrontToBackReader, FrontToBackWriter, HashRing, hash_file
from modeld.store.blobs.quarantine import quarantine
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.durable import source_faults, store_faults
from modeld.store.disk.space import Reservation, Space
from modelwire.errors import DigestMismatch, SourceUnavailable

if TYPE_CHECKING:
    from modeld.store.disk.layout import Layout


@dataclass(frozen=True, slots=True)
class Staged:
    """A file in the staging directory that is whole, read-only and, when `synced`, on stable storage."""

    path: str
    digest: Digest
    size: int
    blocks: tuple[int, ...]
    source: Signature
    """Of the file that the bytes came from, at the moment they were read."""
    reservation: Reservation = field(repr=False, compare=False)
    synced: bool = True
    """False only within a batch, which syncs all its files before it names the first."""


@dataclass(frozen=True, slots=True)
class _Read:
    digest: Digest
    size: int
    blocks: tuple[int, ...]


def stage_copy(
    layout: Layout,
    source_fd: int,
    source_path: str,
    *,
    expected: Digest | None = None,
    space: Space,
    observer: FileProgress,
    keep_cache: bool = False,
    sync: bool = True,
) -> Staged:
    """Copies an open file into the staging directory, hashing it on the way. Blocks; for a byte thread.

    Whatever it raises (an error of the wire, or Stopped), it leaves neither a file nor a reservation;
    bytes of the wrong digest are in quarantine.
    """
    with source_faults(source_path):
        source = Signature.of(os.fstat(source_fd))
    observer.phase("reserving")
    observer.total(source.size)
    reservation = space.reserve(source.size)
    path = f"{layout.staging}/ingest-{os.getpid()}-{secrets.token_hex(8)}.tmp"
    try:
        with store_faults("create the staging file", path):
            target_fd = _create(layout, path)
        try:
            read = _fill(target_fd, path, source_fd, source_path, source.size, reservation, observer, keep_cache)
            check_unchanged(source_fd, source_path, source, read.size)
            if expected is not None and not expected.matches(read.digest):
                raise _mismatch(layout, path, source_path, expected, read.digest, observer)
            seal(layout, target_fd, path, sync=sync)
        except BaseException:
            with contextlib.suppress(OSError):
                durable.close(target_fd)
            raise
        with store_faults("close", path):
            durable.close(target_fd)
    except BaseException:
        with contextlib.suppress(OSError):
            durable.remove(path)
        reservation.release()
        raise
    return Staged(path, read.digest, read.size, read.blocks, source, reservation, sync)


def discard(staged: Staged) -> None:
    """Takes back what `stage_copy` made. A file that cannot be removed is left to the next start."""
    with contextlib.suppress(OSError):
        durable.remove(staged.path)
    staged.reservation.release()


def seal(layout: Layout, descriptor: int, path: str, *, sync: bool = True) -> None:
    """Read-only, of the right group, on stable storage: what a file must be before it may get a name.

    A failure condemns the file. It is not tried again: the kernel reports a lost page once.
    """
    with store_faults("make durable", path):
        durable.share_with_group_of(layout.blobs_dir, descriptor)
        durable.make_read_only(descriptor)
        if sync:
            durable.sync_file(descriptor)


def sync_staged(staged: Staged) -> None:
    """For one that was staged without a sync. A failure condemns it."""
    if staged.synced:
        return
    with store_faults("make durable", staged.path):
        descriptor = os.open(staged.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            durable.sync_file(descriptor)
        finally:
            durable.close(descriptor)


def hash_source(source_fd: int, source_path: str, *, observer: FileProgress) -> tuple[Digest, Signature]:
    """The digest of an open file and what it was then, without writing a byte.

    For content that may be here already: reading it alone costs less than copying it for nothing.
    """
    with source_faults(source_path):
        source = Signature.of(os.fstat(source_fd))
        observer.total(source.size)
        digest, size = hash_file(source_fd, source.size, observer)
    check_unchanged(source_fd, source_path, source, size)
    return digest, source


def check_unchanged(source_fd: int, source_path: str, before: Signature, read: int) -> None:
    """SourceUnavailable when the file is not what it was before `read` bytes were taken from it."""
    with source_faults(source_path):
        after = Signature.of(os.fstat(source_fd))
        more = os.pread(source_fd, 1, read)
    if after == before and read == before.size and not more:
        return
    if more and after.size == before.size == read:
        what = f"it says that it has {read} bytes, and there are more"
    elif after.size != before.size:
        what = f"its size went from {before.size} to {after.size} bytes"
    elif read != before.size:
        what = f"it ended after {read} of {before.size} bytes"
    elif after.mtime_ns != before.mtime_ns:
        what = "it was written to"
    else:
        what = "its owner, mode or links changed"
    raise SourceUnavailable(
        f"{source_path} changed while it was being read: {what}; nothing was added",
        hint="Add it again when no other program is writing it.",
        details={"path": source_path},
    )


def _create(layout: Layout, path: str) -> int:
    try:
        return durable.create_file(path)
    except FileNotFoundError:
        durable.make_directories(layout.staging, below=layout.root)
        return durable.create_file(path)


def _fill(
    target_fd: int,
    target_path: str,
    source_fd: int,
    source_path: str,
    size: int,
    reservation: Reservation,
    observer: FileProgress,
    keep_cache: bool,
) -> _Read:
    observer.phase("copy")
    check(observer)
    if size <= CHUNK:
        return _copy_small(target_fd, target_path, source_fd, source_path, size, reservation, observer)
    with store_faults("share the source's extents with", target_path):
        cloned = durable.clone(source_fd, target_fd)
    if cloned:
        reservation.settle(size)
        observer.advance(done=size)
        return _hash_clone(target_fd, target_path, size, observer)
    with store_faults("allocate", target_path):
        if durable.preallocate(target_fd, size):
            reservation.settle(size)
    reader = FrontToBackReader(source_fd, size, keep_cache=keep_cache)
    writer = FrontToBackWriter(target_fd, keep_cache=keep_cache)
    summer = BlockSummer()
    offset = 0
    with HashRing() as ring:
        while offset < size:
            check(observer)
            buffer = ring.take()
            with source_faults(source_path):
                got = reader.read(buffer[: size - offset], offset)
            if got == 0:
                break
            ring.submit(got)
            summer.update(buffer[:got])
            with store_faults("write to", target_path):
                writer.write(buffer[:got], offset)
            reservation.settle(got)
            offset += got
            observer.advance(done=got, verified=ring.newly_hashed())
        digest = ring.finish()
        observer.advance(verified=ring.newly_hashed())
    return _Read(digest, offset, summer.finish())


def _copy_small(
    target_fd: int,
    target_path: str,
    source_fd: int,
    source_path: str,
    size: int,
    reservation: Reservation,
    observer: FileProgress,
) -> _Read:
    """One buffer, no thread: to start one costs more than to hash a small file."""
    data = memoryview(bytearray(size))
    with source_faults(source_path):
        got = durable.read_at(source_fd, data, 0) if size else 0
    data = data[:got]
    summer = BlockSummer()
    summer.update(data)
    if got:
        with store_faults("write to", target_path):
            durable.write_at(target_fd, data, 0)
    reservation.settle(got)
    observer.advance(done=got, verified=got)
    return _Read(Digest(hashlib.sha256(data).hexdigest()), got, summer.finish())


def _hash_clone(target_fd: int, target_path: str, size: int, observer: FileProgress) -> _Read:
    """The store's side is hashed: what the source says afterwards does not matter any more."""
    observer.phase("verify")
    summer = BlockSummer()
    with store_faults("read back", target_path):
        digest, hashed = hash_file(target_fd, size, observer, summer=summer)
    return _Read(digest, hashed, summer.finish())


def _mismatch(
    layout: Layout, path: str, source_path: str, expected: Digest, actual: Digest, observer: FileProgress
) -> DigestMismatch:
    observer.phase("quarantine")
    kept: str | None = None
    with contextlib.suppress(OSError):
        kept = quarantine(layout, path, "digest-mismatch")
    return DigestMismatch(
        f"{source_path} has the digest {actual.text}, {expected.text} was expected; nothing was added",
        hint="Check where the file and the digest come from; the same file will not match next time either.",
        details={
            "path": source_path,
            "expected_sha256": expected.hex,
            "actual_sha256": actual.hex,
            "quarantine_path": kept,
        },
    )
