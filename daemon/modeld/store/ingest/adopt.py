"""Files that become blobs without being copied: `--move` and `--link`.

Both make a second name for the file in the staging directory, on the same filesystem, and hash it there. The source
keeps its name until the model is published: nothing that fails, and no crash, can lose it. A move takes that name
away as the last step; a link leaves it, for ever.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from modeld.platform import files
from modeld.progress import FileProgress
from modeld.store.blobs.block_checksums import BlockSummer
from modeld.store.blobs.hashing import hash_file
from modeld.store.blobs.staging import Staged, check_unchanged
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.durable import source_faults, store_faults
from modelwire.errors import DigestMismatch, PermissionDenied, SourceUnavailable, Unsupported, WireError

if TYPE_CHECKING:
    from modeld.store.disk.layout import Layout
    from modeld.store.disk.space import Space

How = Literal["copy", "move", "link"]

_TICK_NS: Final = 12_000_000
"""Two changes of a file within one tick of the kernel's timer have the same times: 10 ms at the slowest."""

_NO_LINKS = (errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)


@dataclass(frozen=True, slots=True)
class Adopted:
    """A staged file that is the source itself, and what the source was like before."""

    staged: Staged
    source_path: str
    mode: int
    owner: int

    def give_back(self) -> None:
        """After a failure: the source is as writable as before, and belongs to whom it did."""
        with contextlib.suppress(OSError):
            descriptor = os.open(self.source_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
            try:
                status = os.fstat(descriptor)
                if (status.st_dev, status.st_ino) == (self.staged.source.device, self.staged.source.inode):
                    _restore(descriptor, self.mode, self.owner)
            finally:
                os.close(descriptor)


def stage_adopted(
    layout: Layout,
    source_fd: int,
    source_path: str,
    *,
    how: How,
    asker: int,
    expected: Digest | None,
    space: Space,
    observer: FileProgress,
) -> Adopted | None:
    """The open file, named in the staging directory, hashed, read-only and durable. Blocks; for a byte thread.

    None when a move has to copy: on another filesystem, or when somebody else could still write to the bytes by
    another name or as their owner. A link that is not possible is an error that says why. Whatever it raises, the
    source is as it was.
    """
    with source_faults(source_path):
        status = os.fstat(source_fd)
    if how == "move" and not _ours_alone(status):
        return None
    if how == "link" and asker not in (0, status.st_uid):
        raise _not_the_owner(source_path, status.st_uid, asker)
    observer.phase("link")
    observer.total(status.st_size)
    reservation = space.adopt(status.st_size)
    path = f"{layout.staging}/adopted-{os.getpid()}-{secrets.token_hex(8)}.tmp"
    try:
        if not _link(layout, source_fd, source_path, path, how):
            reservation.release()
            return None
        try:
            source = _close_to_writers(layout, source_fd, source_path, how, status)
            digest, blocks = _hash(source_fd, source_path, source, observer)
            if expected is not None and not expected.matches(digest):
                raise _mismatch(source_path, expected, digest)
            with store_faults("make durable", path):
                durable.sync_file(source_fd)
        except BaseException:
            _restore(source_fd, status.st_mode, status.st_uid)
            raise
    except BaseException:
        with contextlib.suppress(OSError):
            durable.remove(path)
        reservation.release()
        raise
    staged = Staged(path, digest, source.size, blocks, source, reservation)
    return Adopted(staged, source_path, status.st_mode, status.st_uid)


def _ours_alone(status: os.stat_result) -> bool:
    return status.st_nlink == 1 and (status.st_uid == os.geteuid() or os.geteuid() == 0)


def _link(layout: Layout, source_fd: int, source_path: str, path: str, how: How) -> bool:
    """False when a move cannot have a second name and has to copy."""
    try:
        durable.make_directories(layout.staging, below=layout.root)
        files.link_open_file(source_fd, source_path, path)
    except OSError as error:
        refused = error.errno in (errno.EPERM, errno.EACCES)
        if how == "move" and (refused or error.errno in _NO_LINKS):
            return False
        if error.errno == errno.EXDEV:
            raise Unsupported(
                f"{source_path} cannot be linked: it is on another filesystem than the store {layout.root}",
                hint="add it without --link: then it is copied",
                details={"path": source_path, "store": layout.root},
            ) from error
        if refused:
            raise PermissionDenied(
                f"{source_path} cannot be linked: the system does not let the daemon link to a file of another user",
                hint="add it without --link: then it is copied",
                details={"path": source_path},
            ) from error
        if error.errno in _NO_LINKS:
            raise Unsupported(
                f"{source_path} cannot be linked: {error.strerror}",
                hint="add it without --link: then it is copied",
                details={"path": source_path},
            ) from error
        raise durable.store_fault(error, "link to", source_path) from error
    return True


def _close_to_writers(layout: Layout, source_fd: int, source_path: str, how: How, before: os.stat_result) -> Signature:
    """Read-only, with nobody who has it open for writing; the signature that a later write would change."""
    try:
        if how == "move":
            if before.st_uid != os.geteuid():
                os.fchown(source_fd, os.geteuid(), -1)
            durable.share_with_group_of(layout.blobs_dir, source_fd)
        durable.make_read_only(source_fd)
    except OSError as error:
        raise PermissionDenied(
            f"{source_path} cannot become a blob of the store: the daemon may not make it read-only ({error.strerror})",
            hint="add it without --link: then it is copied",
            details={"path": source_path},
        ) from error
    with source_faults(source_path):
        if files.is_open_for_writing(source_fd):
            raise SourceUnavailable(
                f"{source_path} is open for writing in some program; nothing was added",
                hint="Add it again when no program is writing it.",
                details={"path": source_path},
            )
        if not files.has_multigrain_timestamps():
            behind = time.time_ns() - os.fstat(source_fd).st_ctime_ns
            if 0 <= behind < _TICK_NS:
                time.sleep((_TICK_NS - behind) / 1e9)
        return Signature.of(os.fstat(source_fd))


def _hash(
    source_fd: int, source_path: str, source: Signature, observer: FileProgress
) -> tuple[Digest, tuple[int, ...]]:
    observer.phase("verify")
    summer = BlockSummer()
    with source_faults(source_path):
        digest, size = hash_file(source_fd, source.size, observer, summer=summer, as_done=True)
    check_unchanged(source_fd, source_path, source, size)
    return digest, summer.finish()


def _restore(descriptor: int, mode: int, owner: int) -> None:
    with contextlib.suppress(OSError):
        if os.fstat(descriptor).st_uid != owner:
            os.fchown(descriptor, owner, -1)
        os.fchmod(descriptor, mode & 0o7777)


def _not_the_owner(path: str, owner: int, asker: int) -> WireError:
    return PermissionDenied(
        f"{path} cannot be linked: it belongs to user {owner}, and user {asker} may not make it read-only",
        hint="ask its owner to add it, or add it without --link: then it is copied",
        details={"path": path, "owner": owner, "uid": asker},
    )


def _mismatch(path: str, expected: Digest, actual: Digest) -> DigestMismatch:
    return DigestMismatch(
        f"{path} has the digest {actual.text}, {expected.text} was expected; nothing was added",
        hint="Check where the file and the digest come from; the file is as it was.",
        details={"path": path, "expected_sha256": expected.hex, "actual_sha256": actual.hex},
    )
