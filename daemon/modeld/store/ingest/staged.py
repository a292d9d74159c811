"""A file on its way into the store: whole, verified, on the store's filesystem, and without a name that a reader finds.

Every producer yields these and nothing else. The commit gives them their names; until then, whatever happens, `discard`
or the next start takes them away.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

from modeld.store.blobs.blobs import Blob
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.durable import store_faults
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Reservation
from modeld.store.ingest.look import Learned
from modelwire.errors import DigestMismatch, SourceUnavailable


@dataclass(slots=True, kw_only=True, eq=False)
class Staged:
    """`discard` ends it; the commit calls it too."""

    path: str
    digest: Digest
    size: int
    blocks: tuple[int, ...]
    """A checksum of each block, for a later repair."""

    origin: str
    """Where the bytes come from: the path of the source, or of the file at its source."""

    source: Signature
    """Of the file that the bytes were read from, at the moment they were read."""

    reservation: Reservation = field(repr=False)
    synced: bool = True
    """False only within a batch, which syncs all its files before it names the first."""

    learned: Learned | None = None
    """What the bytes say about themselves; None until the batch has looked at them."""

    def check(self) -> None:
        """Before the first file of the batch gets its name. What it raises prevents all the names."""

    def named(self, blob: Blob) -> bool:
        """After the file got its name: whether the blob still is what was hashed."""
        return blob.size == self.size

    def take_back(self) -> None:
        """Removes the staged name and gives back the room. A file that cannot be removed is left to the next start."""
        with contextlib.suppress(OSError):
            durable.remove(self.path)
        self.reservation.release()

    def discard(self) -> None:
        """Takes back all that staging did. A name that the bytes got stays. Idempotent."""
        self.take_back()


@contextlib.contextmanager
def staging_name(layout: Layout, kind: str, reservation: Reservation) -> Iterator[tuple[str, Reservation]]:
    """A new path in the staging directory. When the work within fails, neither a file nor the room is left."""
    path = f"{layout.staging}/{kind}-{os.getpid()}-{secrets.token_hex(8)}.tmp"
    try:
        yield path, reservation
    except BaseException:
        with contextlib.suppress(OSError):
            durable.remove(path)
        reservation.release()
        raise


def seal(layout: Layout, descriptor: int, path: str, *, sync: bool = True) -> None:
    """Read-only, of the right group, on stable storage: what a file must be before it may get a name.

    A failure condemns the file. It is not tried again: the kernel reports a lost page once.
    """
    with store_faults("make durable", path):
        durable.share_with_group_of(layout.blobs_dir, descriptor)
        durable.make_read_only(descriptor)
        if sync:
            durable.sync_file(descriptor)


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
