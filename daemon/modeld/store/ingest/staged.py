"""A staged file: complete, verified, on the store's filesystem, and without a name that a reader finds.

Every producer yields staged files and nothing else. The commit gives them their names; until then `discard` or the next
start of the daemon removes them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from modeld.inspect.inspection import Inspection
from modeld.platform import files
from modeld.progress import FileProgress
from modeld.store.blobs.blobs import Blob
from modeld.store.blobs.hashing import hash_file
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.durable import store_faults
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Reservation
from modelwire.errors import Corrupt, DigestMismatch, SourceUnavailable


@dataclass(slots=True, kw_only=True, eq=False)
class Staged:
    """The commit calls `discard`; so must a producer whose file is not committed."""

    path: str
    digest: Digest
    size: int
    blocks: tuple[int, ...]
    """A checksum of each block, for a later repair."""

    origin: str
    """The path of a local source, or of the file in its repository."""

    source: Signature
    """Of the file that the bytes were read from, as they were read."""

    reservation: Reservation = field(repr=False)
    synced: bool = True
    """False only within a batch, which syncs all its files before it names the first."""

    sealed: Signature | None = None
    """Of the staged file itself, as `seal` returned it; None when it is another name of the source."""

    inspection: Inspection | None = None
    """Set by the batch."""

    def check(self) -> None:
        """Called before the first file of the batch gets its name. An error prevents all the names: a file that another
        program has changed, or can change by another name, is not what was hashed."""
        if self.sealed is None:
            return
        with store_faults("look at", self.path):
            status = os.lstat(self.path)
            if Signature.of(status) == self.sealed and status.st_nlink == 1:
                return
            # Some network filesystems settle the times of a file late: the bytes decide.
            same = stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and self._hash_again().matches(self.digest)
        if not same:
            raise Corrupt(
                f"{self.path} was changed by another program after it was hashed; nothing was published",
                hint="Find the program that writes to the private part of the store, then try again.",
                retryable=True,
                details={"path": self.path},
            )

    def _hash_again(self) -> Digest:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with files.closing(os.open(self.path, flags)) as descriptor:
            return hash_file(descriptor, os.fstat(descriptor).st_size, FileProgress())[0]

    def named(self, blob: Blob) -> bool:
        """Called after the file got its name: whether the blob still has the bytes that were hashed."""
        return blob.size == self.size and (self.sealed is None or self.sealed.only_links_changed(blob.signature))

    def as_blob(self) -> Blob | None:
        """The blob, when this very file is the blob already, by another name. Then it is discarded."""
        return None

    def discard(self) -> None:
        """Undoes all that staging did. A name that the blob got stays. Idempotent. The next start removes a staged file
        that cannot be removed now."""
        with contextlib.suppress(OSError):
            durable.remove(self.path)
        self.reservation.release()


@contextlib.contextmanager
def staging_name(layout: Layout, kind: str, reservation: Reservation) -> Iterator[str]:
    """A new path in the staging directory. When the body fails, the file is removed and the space released."""
    path = f"{layout.staging}/{kind}-{os.getpid()}-{secrets.token_hex(8)}.tmp"
    try:
        yield path
    except BaseException:
        with contextlib.suppress(OSError):
            durable.remove(path)
        reservation.release()
        raise


def seal(layout: Layout, descriptor: int, path: str, *, sync: bool = True) -> Signature:
    """Makes a file read-only, of the right group, and durable, as it must be before it gets a name. Returns the
    signature that it must have until then.

    A failure condemns the file. It is not tried again: the kernel reports a lost page once.
    """
    with store_faults("make durable", path):
        durable.share_with_group_of(layout.blobs_dir, descriptor)
        durable.make_read_only(descriptor)
        if sync:
            durable.sync_file(descriptor)
        return Signature.of(os.fstat(descriptor))


def digest_mismatch(path: str, expected: Digest, actual: Digest, hint: str, **details: str | None) -> DigestMismatch:
    return DigestMismatch(
        f"{path} has the digest {actual.text}, {expected.text} was expected; nothing was added",
        hint=hint,
        details={"path": path, "expected_sha256": expected.hex, "actual_sha256": actual.hex, **details},
    )


def changed(path: str, what: str | None = None, *, doing: str = "added") -> SourceUnavailable:
    return SourceUnavailable(
        f"{path} changed while it was being {doing}{'' if what is None else f': {what}'}; nothing was added",
        hint="Add it again when no other program is writing to it.",
        details={"path": path},
    )
