"""What a store has beside its blobs: manifests, registrations, trees, unfinished downloads, bytes in quarantine. They
follow it to its new directory, at a moment when nobody in this daemon changes them.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from typing import Final

from modeld.platform import files
from modeld.progress import Stopped
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.durable import FilesystemSync, store_faults
from modeld.store.disk.layout import Layout
from modeld.store.disk.links import link_or_symlink
from modeld.store.maintain.walk import BlobFile, Partial, keyed_partials, walk
from modeld.store.manifests.manifests import MAX_MANIFEST
from modeld.store.moving.blob_copies import BlobCopies

_PIECE: Final = 64 * 1024 * 1024
"""Between two looks whether to stop."""

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_AT_REST_SECONDS: Final = 2.0
"""Without a change, after which the times of a file show the next one: on some filesystems they are that coarse."""


_Times = tuple[int, int, int, int]


class Changed(Exception):
    """Another program has changed a manifest since it was copied."""


class OtherFiles:
    """Blocks; for one thread at a time."""

    def __init__(self, old: Layout, new: Layout, copies: BlobCopies, stopped: Callable[[], bool]) -> None:
        self._old, self._new = old, new
        self._copies = copies
        self._stopped = stopped
        self._manifests: dict[str, _Times] = {}
        """That were copied, as they were before."""

    def copy_ahead(self) -> None:
        """What may be much, while others still work: `copy` skips what is the same by then."""
        at_rest_since = time.time() - _AT_REST_SECONDS
        self._copy_downloads(at_rest_since)
        self._copy_all(self._old.quarantine_dir, self._new.quarantine_dir, at_rest_since)

    def copy(self) -> None:
        """Durable on return. What an earlier call has copied is compared; what is gone since goes. Raises Stopped."""
        with store_faults("make", self._new.linked):
            # A copy shares its bytes with no other file: the directory of marks is there, and empty.
            durable.make_directories(self._new.linked, below=self._new.root)
        self._copy_downloads()
        self._copy_all(self._old.quarantine_dir, self._new.quarantine_dir)
        self._copy_all(self._old.registered, self._new.registered)
        self._copy_trees()
        self.copy_manifests()
        for directory in (self._new.private, self._new.locks_dir, self._new.root):
            with store_faults("sync", directory):
                durable.sync_directory(directory)
        with store_faults("sync the filesystem of", self._new.root):
            # The trees too, which a resolve makes anew: but a path into one may be in use.
            sync = FilesystemSync(self._new.root)
            try:
                sync.sync()
            finally:
                sync.close()

    # -- manifests

    def copy_manifests(self) -> None:
        """The models of the new directory are those of the old one, byte for byte."""
        old, new = self._old.manifests_dir, self._new.manifests_dir
        with store_faults("copy the manifests to", new):
            self._manifests = _manifests(self._old)
            staged, sync = list[tuple[str, str]](), FilesystemSync(self._new.root)
            try:
                for name in self._manifests:
                    self._look_whether_to_stop()
                    if (temporary := self._staged_unless_same(f"{old}/{name}", f"{new}/{name}")) is not None:
                        staged.append((temporary, f"{new}/{name}"))
                if not sync.sync():
                    for temporary, _ in staged:
                        durable.sync_path(temporary)
                for temporary, name in staged:
                    durable.name_replacing(temporary, name)
            finally:
                sync.close()
                for temporary, _ in staged:
                    durable.remove(temporary)
            for name in set(os.listdir(new)).difference(self._manifests):
                durable.remove(f"{new}/{name}")
            durable.sync_directory(new)

    def check_unchanged(self) -> None:
        """Raises Changed when a manifest is not the one that was copied, or is one more or less."""
        with store_faults("read", self._old.manifests_dir):
            if _manifests(self._old) != self._manifests:
                raise Changed

    def _staged_unless_same(self, source: str, target: str) -> str | None:
        """A copy without a name; None when there is nothing to copy."""
        with contextlib.suppress(FileNotFoundError), _opened(source) as (descriptor, info):
            if stat.S_ISREG(info.st_mode) and not (info.st_size <= MAX_MANIFEST and _same(descriptor, target)):
                return self._staged(descriptor, info)
        return None

    # -- whole files

    def _copy_downloads(self, at_rest_since: float = math.inf) -> None:
        """Those of other tools in the blob tree too."""
        partials = [found for found in walk(self._old, self._stopped) if isinstance(found, Partial)]
        for found in [*partials, *(each for each in keyed_partials(self._old) if isinstance(each, Partial))]:
            below = "/".join(found.parts)
            self._copy_all(f"{self._old.root}/{below}", f"{self._new.root}/{below}", at_rest_since)

    def _copy_all(self, old: str, new: str, at_rest_since: float = math.inf) -> None:
        """The regular files of a directory that have not changed since then. A file of the same size and times is the
        same."""
        with store_faults("copy files to", new):
            durable.make_directories(new, below=self._new.root)
            wanted = set()
            for name in os.listdir(old) if os.path.isdir(old) else ():
                self._look_whether_to_stop()
                with contextlib.suppress(FileNotFoundError), _opened(f"{old}/{name}") as (descriptor, info):
                    if not stat.S_ISREG(info.st_mode):
                        continue
                    wanted.add(name)
                    if info.st_mtime < at_rest_since and not _same_times(info, f"{new}/{name}"):
                        temporary = self._staged(descriptor, info)
                        durable.sync_path(temporary)
                        durable.name_replacing(temporary, f"{new}/{name}")
            for name in set(os.listdir(new)) - wanted:
                if stat.S_ISREG(os.lstat(f"{new}/{name}").st_mode):
                    durable.remove(f"{new}/{name}")
            durable.sync_directory(new)
            durable.sync_directory(os.path.dirname(new))

    def _staged(self, source: int, info: os.stat_result) -> str:
        temporary = f"{self._new.staging}/move-{secrets.token_hex(8)}"
        descriptor = durable.stage_file(temporary, below=self._new.root)
        try:
            for offset, length in _extents(source, info.st_size):
                for at in range(offset, offset + length, _PIECE):
                    self._look_whether_to_stop()
                    durable.copy_range(source, descriptor, at, min(_PIECE, offset + length - at))
            os.ftruncate(descriptor, info.st_size)
            durable.share_with_group_of(self._new.blobs_dir, descriptor)
            os.fchmod(descriptor, stat.S_IMODE(info.st_mode))
            os.utime(descriptor, ns=(info.st_atime_ns, info.st_mtime_ns))
        except BaseException:
            with contextlib.suppress(OSError):
                durable.remove(temporary)
            raise
        finally:
            os.close(descriptor)
        return temporary

    # -- trees

    def _copy_trees(self) -> None:
        """A path into a tree that was given out leads to the same bytes afterwards."""
        blobs = {
            (found.info.st_dev, found.info.st_ino): Digest(found.digest)
            for found in walk(self._old, self._stopped)
            if isinstance(found, BlobFile)
        }
        for old, new in ((self._old.trees, self._new.trees), (self._old.site_trees, self._new.site_trees)):
            for directory, _, names in os.walk(old):
                there = new + directory[len(old) :]
                with store_faults("make the tree", there):
                    durable.make_directories(there, below=self._new.root)
                    for name in names:
                        self._look_whether_to_stop()
                        self._link(f"{directory}/{name}", f"{there}/{name}", blobs)

    def _link(self, old: str, new: str, blobs: dict[tuple[int, int], Digest]) -> None:
        with contextlib.suppress(FileNotFoundError):
            info = os.lstat(old)
            if stat.S_ISLNK(info.st_mode):
                durable.remove(new)
                os.symlink(os.readlink(old), new)
                return
            digest = blobs.get((info.st_dev, info.st_ino))
            if digest is None or digest not in self._copies.good:
                return  # nothing of the store: a resolve makes the tree anew
            copy = self._new.blob(digest)
            before = os.lstat(copy)
            if os.path.lexists(new):
                if os.path.samestat(os.lstat(new), before):
                    return
                durable.remove(new)
            if link_or_symlink(copy, new, hard=True, final=new):
                self._copies.relinked(digest, Signature.of(before))

    def _look_whether_to_stop(self) -> None:
        if self._stopped():
            raise Stopped


def _manifests(layout: Layout) -> dict[str, _Times]:
    """The files of all models, by their names."""
    found: dict[str, _Times] = {}
    with os.scandir(layout.manifests_dir) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                info = os.lstat(entry.path)
                if stat.S_ISREG(info.st_mode) and entry.name.endswith(".json") and entry.name[0] != ".":
                    found[entry.name] = (info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
    return found


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[int, os.stat_result]]:
    """What is no file of bytes is opened too. A link counts as missing."""
    try:
        descriptor = os.open(path, _READ)
    except OSError as fault:
        if fault.errno in (errno.ELOOP, errno.ENXIO):
            raise FileNotFoundError(errno.ENOENT, "not a file", path) from None
        raise
    with files.closing(descriptor):
        yield descriptor, os.fstat(descriptor)


def _same(source: int, target: str) -> bool:
    try:
        with open(target, "rb") as there, open(source, "rb", closefd=False) as here:
            return here.read() == there.read(MAX_MANIFEST + 1)
    except FileNotFoundError:
        return False


def _same_times(info: os.stat_result, target: str) -> bool:
    try:
        there = os.lstat(target)
    except FileNotFoundError:
        return False
    return (info.st_size, info.st_mtime_ns) == (there.st_size, there.st_mtime_ns)


def _extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Where the file has bytes: a download has holes where it has not got yet."""
    if not hasattr(os, "SEEK_DATA"):
        yield 0, size
        return
    at = 0
    while at < size:
        try:
            first = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as fault:
            if fault.errno == errno.ENXIO:
                return
            raise
        at = os.lseek(descriptor, first, os.SEEK_HOLE)
        yield first, at - first
