"""Looks up and verifies blobs: committed files, named by their digest."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from modeld.platform import files
from modeld.progress import FileProgress, check
from modeld.store.blobs.background import Background, Place
from modeld.store.blobs.block_checksums import BlockSummer, BlockSums
from modeld.store.blobs.comparing import BlockReader
from modeld.store.blobs.front_to_back import FrontToBackReader
from modeld.store.blobs.hashing import CHUNK, hash_file
from modeld.store.blobs.quarantine import quarantine
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.durable import outcome_unknown, store_fault, store_faults
from modeld.store.disk.layout import Layout
from modelwire.errors import Corrupt, InUse, NotFound

_TICK_NS: Final = 12_000_000
"""Two changes of a file within one tick of the kernel's timer have the same times: 10 ms at the slowest."""

_LOOKS: Final = 5
"""At a blob that gets links while it is hashed: a link is made once for each add or tree of the same bytes."""


@dataclass(frozen=True, slots=True)
class Blob:
    digest: Digest
    size: int
    path: str
    signature: Signature


@dataclass(frozen=True, slots=True)
class Verified:
    """The digest of a blob's bytes. `blob.signature` was taken before the first byte was read: if the file
    changes while it is hashed, a record of this verification no longer matches the file."""

    blob: Blob
    actual: Digest
    blocks: BlockSums | None = None
    """The checksums of its blocks, when the caller asked for them."""

    @property
    def good(self) -> bool:
        return self.blob.digest.matches(self.actual)


@dataclass(frozen=True, slots=True)
class Compared:
    """A blob beside the checksums of its blocks: `same` bytes are as they were, up to the first block that differs."""

    blob: Blob
    same: int

    @property
    def good(self) -> bool:
        return self.same == self.blob.size


def stat_blob(layout: Layout, digest: Digest) -> Blob | None:
    """One lstat. None when the path does not exist; Corrupt when it is not a regular file."""
    path = layout.blob(digest)
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise store_fault(error, "look at", path) from error
    if not stat.S_ISREG(status.st_mode):
        raise Corrupt(
            f"{path} is not a regular file, so it is not a blob",
            hint="Verify the models that name it, then add the content again.",
            details={"path": path},
        )
    return Blob(digest, status.st_size, path, Signature.of(status))


class OpenForWriting(InUse):
    """A program can write to the blob: what its bytes hash to now says nothing about them a moment later."""


class _OnlyRelinked(Corrupt):
    """The blob got a link or lost one while it was hashed."""


def verify_blob(
    layout: Layout,
    digest: Digest,
    progress: FileProgress,
    *,
    as_done: bool = False,
    sums: bool = False,
    background: Background | None = None,
) -> Verified:
    """Hashes a blob. Drops only those pages from the cache that it brought in. `as_done` is that of `hash_file`, `sums`
    asks for the checksums of the blocks too. Raises OpenForWriting."""
    summer = BlockSummer() if sums else None
    with _unwritten(layout, digest) as (descriptor, status):
        progress.total(status.st_size)
        blob = Blob(digest, status.st_size, layout.blob(digest), Signature.of(status))
        if background is not None:
            background.begin(Place(digest, blob.signature, None), progress)
        actual, size = hash_file(descriptor, blob.size, progress, summer=summer, as_done=as_done, background=background)
    return Verified(blob, actual, None if summer is None else BlockSums(size, summer.finish()))


def compare_blob(
    layout: Layout, digest: Digest, known: BlockSums, progress: FileProgress, background: Background | None = None
) -> Compared:
    """Reads a blob up to the first block that differs from its checksum; the bytes read until then count as done. It
    costs a fifth of a hash, and shows what has changed since the checksums were taken: not that nobody changed both.
    In the background it goes on where an earlier reading stopped. Raises OpenForWriting."""
    with _unwritten(layout, digest) as (descriptor, status):
        blob = Blob(digest, status.st_size, layout.blob(digest), Signature.of(status))
        place = Place(digest, blob.signature, 0)
        first = same = 0 if background is None else background.begin(place, progress)
        progress.advance(done=first, kept=first)
        if known.size == blob.size:
            reader = BlockReader(descriptor, blob.size, progress, background)
            for (offset, length), checksum in zip(known.ranges(), known.sums, strict=True):
                if offset < first:
                    continue
                if reader.checksum(offset, length) != checksum:
                    break
                progress.advance(done=length)
                same += length
                if background is not None:
                    background.place = replace(place, offset=same)
    return Compared(blob, same)


def chunks_of_blob(layout: Layout, digest: Digest, progress: FileProgress) -> Iterator[memoryview]:
    """The bytes of a blob from front to back, each chunk valid until the next one. Raises OpenForWriting."""
    with _unwritten(layout, digest) as (descriptor, status):
        reader = FrontToBackReader(descriptor, status.st_size)
        buffer, offset = memoryview(bytearray(min(CHUNK, status.st_size))), 0
        while offset < status.st_size:
            check(progress)
            got = reader.read(buffer[: status.st_size - offset], offset)
            if got == 0:
                return
            offset += got
            yield buffer[:got]
            progress.advance(done=got, verified=got)


@contextlib.contextmanager
def _unwritten(layout: Layout, digest: Digest) -> Iterator[tuple[int, os.stat_result]]:
    """The blob, open for reading, and its state before the first byte is read. Raises OpenForWriting."""
    path = layout.blob(digest)
    descriptor = _open_blob(path, digest)
    try:
        with store_faults("read", path):
            status = os.fstat(descriptor)
            if _is_exposed(status):
                wait_for_tick(status)
                if files.has_writer(descriptor):
                    raise OpenForWriting(
                        f"{path} is open for writing in some program, so its bytes cannot be verified",
                        hint="Find the program that has the file open by another name, and close it.",
                        retryable=True,
                        details={"path": path},
                    )
            yield descriptor, status
    finally:
        os.close(descriptor)


def find_good(
    layout: Layout,
    digest: Digest,
    *,
    size: int | None = None,
    verified: Signature | None = None,
    progress: FileProgress | None = None,
) -> Blob | None:
    """The blob if it is in the store and is good: once its name is synced, there is nothing to add.

    `verified` is the blob's signature at its last good verification. A blob with another signature is hashed first. A
    bad one goes to quarantine and counts as absent, and so does one that a program can write to.
    """
    try:
        blob = stat_blob(layout, digest)
    except Corrupt:
        _set_aside(layout, layout.blob(digest))
        return None
    if blob is None:
        return None
    if size is not None and blob.size != size:
        _set_aside(layout, blob.path, blob.signature)
        return None
    try:
        if verified is not None and verified.is_unchanged(blob.signature) and not _has_writer(blob):
            return blob
        return _prove(layout, digest, progress or FileProgress())
    except OpenForWriting:
        _set_aside(layout, blob.path, blob.signature)
        return None


def require_blob(layout: Layout, digest: Digest) -> Blob:
    """`stat_blob` for a blob that was named a moment ago: NotFound when it is gone again."""
    blob = stat_blob(layout, digest)
    if blob is None:
        raise NotFound(
            f"{layout.blob(digest)} disappeared right after it was named",
            hint="Find the program that removes blobs of this store, then try again.",
            retryable=True,
            details={"path": layout.blob(digest)},
        )
    return blob


def _prove(layout: Layout, digest: Digest, progress: FileProgress) -> Blob | None:
    """Hashes the blob; returns it, durable and read-only, with the signature that was verified.

    A blob whose links alone changed meanwhile is hashed again: other adds and trees link to it, and a program that
    writes by a mapping may leave the times that count as they were.
    """
    for _attempt in range(_LOOKS - 1):
        with contextlib.suppress(_OnlyRelinked):
            return _prove_once(layout, digest, progress)
    return _prove_once(layout, digest, progress)


def _prove_once(layout: Layout, digest: Digest, progress: FileProgress) -> Blob | None:
    try:
        verified = verify_blob(layout, digest, progress)
    except NotFound:
        return None
    if not verified.good:
        _set_aside(layout, verified.blob.path, verified.blob.signature)
        return None
    descriptor = _open_blob(verified.blob.path, digest)
    try:
        with store_faults("make durable", verified.blob.path):
            status = os.fstat(descriptor)
            if (now := Signature.of(status)) != verified.blob.signature:
                relinked = verified.blob.signature.only_links_changed(now)
                raise (_OnlyRelinked if relinked else Corrupt)(
                    f"{verified.blob.path} changed while it was verified",
                    hint="Find the program that writes to blobs of this store, then try again.",
                    retryable=True,
                    details={"path": verified.blob.path},
                )
            if status.st_mode & 0o222:
                # Another tool left it writable. A file of another user stays so: then only the signature
                # shows a change.
                with contextlib.suppress(PermissionError):
                    durable.make_read_only(descriptor)
            durable.sync_file(descriptor)
            return Blob(digest, status.st_size, verified.blob.path, Signature.of(os.fstat(descriptor)))
    finally:
        os.close(descriptor)


def _is_exposed(status: os.stat_result) -> bool:
    """Whether another program can write to the file: by a second name, as its owner, or since it was made writable."""
    return status.st_nlink > 1 or status.st_uid != os.geteuid() or bool(status.st_mode & 0o222)


def _has_writer(blob: Blob) -> bool:
    """Whether a program has a blob open that others have too. Its signature does not show what such a program writes to
    pages that it has written to before."""
    try:
        if not _is_exposed(os.lstat(blob.path)):
            return False
        with files.closing(_open_blob(blob.path, blob.digest)) as descriptor:
            return files.has_writer(descriptor) is True
    except (OSError, NotFound):
        return False  # it is gone, which the caller's next step shows


def wait_for_tick(status: os.stat_result) -> None:
    """Returns when any later change of the file gets a later time than its last one."""
    if not files.has_multigrain_timestamps():
        behind = time.time_ns() - status.st_ctime_ns
        if 0 <= behind < _TICK_NS:
            time.sleep((_TICK_NS - behind) / 1e9)


def _open_blob(path: str, digest: Digest) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"the blob {digest.text} is not in the store", details={"path": path}) from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Corrupt(f"{path} is a symbolic link, so it is not a blob", details={"path": path}) from None
        raise store_fault(error, "open", path) from error


def _set_aside(layout: Layout, path: str, only: Signature | None = None) -> None:
    with store_faults("set aside the bad blob", path), contextlib.suppress(FileNotFoundError):
        quarantine(layout, path, "corrupt-blob", only=only)


def sync_names(layout: Layout, digest: Digest) -> None:
    """Syncs the blob's directory and the two above it, which may be new: 0.03 ms each when clean."""
    directory = os.path.dirname(layout.blob(digest))
    for _level in range(3):
        with outcome_unknown(), store_faults("sync the directory", directory):
            durable.sync_directory(directory)
        directory = os.path.dirname(directory)
