"""Files that become blobs without being copied: `--move` and `--link`.

Both make a second name for the file in the staging directory, on the same filesystem, and hash it there. The source
keeps its name until the model is published: no failure and no crash can lose it. A move removes that name as the last
step; a link leaves it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from typing import Literal

from modeld.platform import files
from modeld.progress import FileProgress
from modeld.store.blobs.blobs import Blob, require_blob, wait_for_tick
from modeld.store.blobs.block_checksums import BlockSummer
from modeld.store.blobs.hashing import hash_file
from modeld.store.blobs.linked import Linked
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.durable import source_faults, store_faults
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Space
from modeld.store.ingest.copying import Source
from modeld.store.ingest.staged import Staged, changed, digest_mismatch, staging_name
from modelwire.errors import PermissionDenied, Unsupported, WireError

How = Literal["copy", "move", "link"]

_NO_LINKS = (errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)


@dataclass(slots=True, kw_only=True, eq=False)
class Adopted(Staged):
    """A staged file that is the source itself. `source` is its signature once it is read-only."""

    layout: Layout
    linked: Linked
    how: How
    before: os.stat_result
    """Of the source as it was."""

    leased: int | None = None
    """A descriptor by which the kernel reports who opens the file for writing, from `check` on."""

    def check(self) -> None:
        """Raises when the file has changed: until its old name is removed, a program can write to it by that name."""
        with store_faults("look at", self.path):
            if self.how == "link":
                self._lease()
            now = Signature.of(os.lstat(self.path))
        if now != self.source:
            # Two files of a model may be one with two names: then each adoption changes the other's links.
            if self.how == "move" or not self.source.only_links_changed(now):
                raise changed(self.origin)
            self._prove_again(now)
        if self.how == "link" and not os.path.lexists(self.layout.blob(self.digest)):
            # Before the blob gets its name: else, after a crash, the store would not know that the file is shared.
            self.linked.good(self.digest, self.source, self.origin)

    def named(self, blob: Blob) -> bool:
        """The new name has changed the signature's ctime. If anything else has changed since the file was hashed, the
        old signature stays recorded, and the model is suspect from the start."""
        if not self.source.only_links_changed(blob.signature) or self._end_lease():
            return False
        if blob.digest in self.linked:
            self.linked.good(blob.digest, blob.signature, self.origin)
        return True

    def as_blob(self) -> Blob | None:
        """Marks the blob as linked. Its signature is taken when the staged name is removed."""
        try:
            if not self._is_blob():
                return None
        except OSError:
            return None
        self.check()
        Staged.discard(self)
        blob = require_blob(self.layout, self.digest)
        if not self.source.only_links_changed(blob.signature) or self._end_lease():
            raise changed(self.origin)
        self.linked.good(self.digest, blob.signature, self.origin)
        return blob

    def discard(self) -> None:
        """Gives a source that did not become a blob its mode and owner back."""
        Staged.discard(self)
        self._end_lease()
        try:
            if self._is_blob():
                return
        except (FileNotFoundError, NotADirectoryError):
            self.linked.forget(self.digest)
        except OSError:
            return  # it may be the blob
        with contextlib.suppress(OSError):
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
            with files.closing(os.open(self.origin, flags)) as descriptor:
                if os.path.samestat(os.fstat(descriptor), self.before):
                    _restore(descriptor, self.before)

    def _lease(self) -> None:
        """The owner of a linked file may write to it and set its mtime back: what is left is a ctime, which new links
        change too. So nobody may open the file for writing while it gets its name."""
        if self.leased is None:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            leased = files.lease(descriptor)
            if leased:
                self.leased = descriptor
                return
            os.close(descriptor)
            if leased is False:
                raise changed(self.origin)

    def _end_lease(self) -> bool:
        """Whether some program has tried to open the file for writing since `check`."""
        descriptor, self.leased = self.leased, None
        if descriptor is None:
            return False
        with files.closing(descriptor):
            return not files.lease_holds(descriptor)

    def _prove_again(self, now: Signature) -> None:
        """Hashes a file whose links have changed, or so it seems."""
        with source_faults(self.origin):
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            with files.closing(os.open(self.path, flags)) as descriptor:
                actual, _ = hash_file(descriptor, self.size, FileProgress())
                if not self.digest.matches(actual) or Signature.of(os.fstat(descriptor)) != now:
                    raise changed(self.origin)
        self.source = now

    def _is_blob(self) -> bool:
        return os.lstat(self.layout.blob(self.digest)).st_ino == self.source.inode


def stage_adopted(
    layout: Layout,
    source: Source,
    *,
    how: How,
    requester_uid: int,
    expected: Digest | None,
    space: Space,
    progress: FileProgress,
    linked: Linked,
) -> Adopted | None:
    """Links the open file into the staging directory, hashes it, makes it read-only and durable. Blocks; for a byte
    thread.

    Returns None when a move has to copy: on another filesystem, or when another user could still write to the bytes by
    another name or as their owner. For a link that is not possible it raises an error with the reason. Whatever it
    raises, the source is as it was.
    """
    with source_faults(source.path):
        before = os.fstat(source.descriptor)
    if how == "move" and (before.st_nlink != 1 or os.geteuid() not in (0, before.st_uid)):
        return None
    if how == "link" and requester_uid not in (0, before.st_uid):
        why = f"it belongs to user {before.st_uid}, and user {requester_uid} may not make it read-only"
        raise _not_linked(PermissionDenied, source.path, why, owner=before.st_uid, uid=requester_uid)
    progress.phase("reserving")
    progress.phase("link")
    progress.total(before.st_size)
    reservation = space.adopt(before.st_size)
    with staging_name(layout, "adopted", reservation) as path:
        if not _link(layout, source, path, how):
            reservation.release()
            return None
        try:
            source = _close_to_writers(layout, source, how, before.st_uid)
            progress.phase("verify")
            summer = BlockSummer()
            with source_faults(source.path):
                digest, size = hash_file(
                    source.descriptor, source.signature.size, progress, summer=summer, as_done=True
                )
            source.check_unchanged(size)
            if expected is not None and not expected.matches(digest):
                hint = "Check where the file and the digest come from; the file is as it was."
                raise digest_mismatch(source.path, expected, digest, hint)
            with store_faults("make durable", path):
                durable.sync_file(source.descriptor)
        except BaseException:
            _restore(source.descriptor, before)
            raise
    return Adopted(
        path=path,
        digest=digest,
        size=size,
        blocks=summer.finish(),
        origin=source.path,
        source=source.signature,
        reservation=reservation,
        layout=layout,
        linked=linked,
        how=how,
        before=before,
    )


def _link(layout: Layout, source: Source, path: str, how: How) -> bool:
    """False when a move cannot have a second name and has to copy."""
    try:
        durable.make_directories(layout.staging, below=layout.root)
        files.link_open_file(source.descriptor, source.path, path)
    except OSError as error:
        if error.errno == errno.ENOENT and not os.fstat(source.descriptor).st_nlink:
            raise changed(source.path) from error  # its last name is gone since it was opened
        denied = error.errno in (errno.EPERM, errno.EACCES)
        if not denied and error.errno not in _NO_LINKS:
            raise durable.store_fault(error, "link to", source.path) from error
        if how == "move":
            return False
        why = str(error.strerror)
        if denied:
            why = "the system does not let the daemon link to a file of another user"
        elif error.errno == errno.EXDEV:
            why = f"it is on another filesystem than the store {layout.root}"
        raise _not_linked(PermissionDenied if denied else Unsupported, source.path, why) from error
    return True


def _close_to_writers(layout: Layout, source: Source, how: How, owner: int) -> Source:
    """Makes the file read-only and checks that no program has it open for writing. Returns it with the signature that
    any later write changes."""
    try:
        if how == "move":
            if owner != os.geteuid():
                os.fchown(source.descriptor, os.geteuid(), -1)
            durable.share_with_group_of(layout.blobs_dir, source.descriptor)
        durable.make_read_only(source.descriptor)
    except OSError as error:
        why = f"the daemon may not make it read-only ({error.strerror})"
        raise _not_linked(PermissionDenied, source.path, why) from error
    closed = Source.of(source.descriptor, source.path)
    closed.refuse_writer()
    if closed.has_writer is None and how == "link" and owner != os.geteuid():
        why = "the system does not report whether its owner can still write to it"
        raise _not_linked(PermissionDenied, source.path, why, owner=owner)
    with source_faults(source.path):
        wait_for_tick(os.fstat(source.descriptor))
    return Source.of(source.descriptor, source.path)


def _restore(descriptor: int, before: os.stat_result) -> None:
    with contextlib.suppress(OSError):
        if os.fstat(descriptor).st_uid != before.st_uid:
            os.fchown(descriptor, before.st_uid, -1)
        os.fchmod(descriptor, before.st_mode & 0o7777)


def _not_linked(kind: type[WireError], path: str, why: str, **details: object) -> WireError:
    hint = "Run `modelctl add` without --link: then it is copied."
    return kind(f"{path} cannot be linked: {why}", hint=hint, details={"path": path, **details})
