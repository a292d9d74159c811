"""A download on the disk: its bytes, and beside them the journal from which a later run resumes.

They lie in the private part of the store, by the digest, or by a key of the address when only a validator is known;
without either in the staging directory, and then nothing outlives this run. Other tools write their download of a
digest to a place in the blob tree that is the same for all of them, under the lock of a name: there another name's
producer would write over these bytes. The writer holds a lock on the journal. The download of another run is left
alone, and this one goes to the staging directory: two writers in one file would spoil what each of them has hashed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import MappingProxyType
from typing import Final

from modeld.download.partials import journal
from modeld.download.partials.journal import Connections, Header, Identity, Piece
from modeld.download.partials.stages import Event, Stage, after
from modeld.platform import files, locks
from modeld.store.digest import Digest
from modeld.store.disk import durable
from modeld.store.disk.durable import store_faults
from modeld.store.disk.layout import Layout
from modeld.store.publish.holds import Holds

NONE_FOUND: Final[Mapping[str, int]] = MappingProxyType({})

_JOURNAL: Final = "journal"
_DATA: Final = "data.tmp"
_OPEN: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

_LATE_SECONDS: Final = 60.0
"""An early modeld wrote its journal within seconds of the bytes: another tool has written bytes that are much newer."""


class _NotOurs(Exception):
    """The place is in use by another run, or what lies there is no regular file."""


def partial_dir(layout: Layout, digest: Digest | None, key: str | None) -> str | None:
    """The directory of a download that can be resumed, None for another. `key` is for an address with a validator."""
    if digest is not None:
        return layout.partial_dir(digest)
    if key is not None:
        return f"{layout.keyed_partials}/{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"
    return None


def kept_bytes(layout: Layout, digest: Digest | None, key: str | None) -> int:
    """What earlier runs have left of it on the disk."""
    directory = partial_dir(layout, digest, key)
    if directory is None:
        return 0
    with contextlib.suppress(OSError):
        return os.stat(f"{directory}/{_DATA}").st_blocks * 512
    if digest is None:
        return 0
    with contextlib.suppress(OSError):
        shared = layout.shared_partial_dir(digest)
        os.stat(f"{shared}/{_JOURNAL}")
        return os.stat(f"{shared}/{_DATA}").st_blocks * 512
    return 0


class Partial:
    """`pieces` and `identities` are those of an earlier run; empty after `begin`. `identity`, `record` and `move` may
    be called from several threads. See `stages` for what may be called when."""

    def __init__(self, directory: str | None, path: str, descriptor: int, journal_descriptor: int | None) -> None:
        self.path = path
        self.descriptor = descriptor
        self.pieces: tuple[Piece, ...] = ()
        self.identities: list[Identity] = []
        self.connections: dict[str, int] = {}
        """By the name of a source: how many were worth it, in this run or an earlier one."""

        self.held = ExitStack()
        self._directory = directory
        self._journal = journal_descriptor
        self._length = 0
        self._lines = threading.Lock()
        self._stage: Stage = "opened"
        self._moving = threading.Lock()

    @property
    def stage(self) -> Stage:
        return self._stage

    def move(self, event: Event) -> bool:
        """The only place where the stage changes; False when the event is ignored. From any thread."""
        with self._moving:
            following = after(self._stage, event)
            self._stage = following or self._stage
            return following is not None

    @property
    def resumable(self) -> bool:
        return self._journal is not None

    @property
    def allocated(self) -> int:
        return os.fstat(self.descriptor).st_blocks * 512

    @classmethod
    def open(
        cls, layout: Layout, header: Header, digest: Digest | None, key: str | None, holds: Holds | None = None
    ) -> Partial:
        """Blocks. The bytes of an earlier run are kept only when they are of the very same file. `holds` protects the
        files from before they exist until they are closed."""
        holds = holds or Holds()
        directory = partial_dir(layout, digest, key)
        place = digest or directory or layout.staging
        with ExitStack() as held:
            held.enter_context(holds.relying_on(place, layout.staging))
            holds.until_settled(place)
            partial = cls._open(layout, header, digest, directory)
            partial.held = held.pop_all()
        return partial

    @classmethod
    def _open(cls, layout: Layout, header: Header, digest: Digest | None, directory: str | None) -> Partial:
        with store_faults("open the download", directory or layout.staging):
            if directory is not None:
                durable.make_directories(directory, below=layout.root)
                with contextlib.suppress(_NotOurs):
                    if digest is not None:
                        _take_over(layout.shared_partial_dir(digest), directory)
                    return cls._open_in(directory, header)
            path = f"{layout.staging}/fetch-{os.getpid()}-{secrets.token_hex(8)}.tmp"
            durable.make_directories(layout.staging, below=layout.root)
            partial = cls(None, path, durable.create_file(path), None)
            partial.move("begin")
            return partial

    @classmethod
    def _open_in(cls, directory: str, header: Header) -> Partial:
        lock = _lock(f"{directory}/{_JOURNAL}")
        try:
            found = journal.read(lock)
            path = f"{directory}/{_DATA}"
            descriptor = _open_data(path)
        except BaseException:
            os.close(lock)
            raise
        partial = cls(directory, path, descriptor, lock)
        try:
            if found is None or not _same_file(found.header, header):
                partial.begin(header)
            else:
                size = os.fstat(descriptor).st_size
                partial.identities = list(found.identities)
                partial.connections = dict(found.connections)
                partial.pieces = tuple(piece for piece in found.pieces if piece.end <= size)
                partial._length = found.length
                os.ftruncate(lock, found.length)
                partial.move("resume")
        except BaseException:
            partial.close()
            raise
        return partial

    def begin(self, header: Header) -> None:
        """Starts the file from its first byte."""
        self.move("begin")
        self.pieces, self.identities = (), []
        with store_faults("begin the download", self.path):
            os.ftruncate(self.descriptor, 0)
            if self._journal is not None and self._directory is not None:
                os.ftruncate(self._journal, 0)
                self._length = journal.append(self._journal, [header], 0)
                durable.sync_directory(self._directory)

    def identity(self, name: str, validator: str | None) -> int:
        """The number under which pieces of this version at this source are recorded."""
        identity = Identity(name, validator)
        with self._lines:
            if identity in self.identities:
                return self.identities.index(identity)
            if self._journal is not None:
                with store_faults("write the journal of", self.path):
                    self._length = journal.append(self._journal, [identity], self._length)
            self.identities.append(identity)
            return len(self.identities) - 1

    def record(self, pieces: Sequence[Piece], connections: Mapping[str, int] = NONE_FOUND) -> None:
        """Syncs the bytes, then writes the lines that vouch for them, and what has changed of `connections`."""
        if self._journal is None:
            return
        found = [Connections(name, count) for name, count in connections.items() - self.connections.items()]
        self.connections.update(connections)
        with store_faults("make durable", self.path):
            durable.sync_file(self.descriptor)
            with self._lines:
                self._length = journal.append(self._journal, [*pieces, *found], self._length)

    def give_back(self, end: int) -> None:
        """Frees what is allocated behind the last byte: a later run may never come. Blocks. Raises OSError."""
        os.ftruncate(self.descriptor, end)

    def close(self) -> None:
        """Keeps the files for a later run; without a journal, removes them. Idempotent, also after `remove`."""
        if self.move("keep" if self.resumable else "remove"):
            self._close_files()

    def remove(self) -> None:
        """Deletes the files; a store that has named the bytes keeps them under that name. Idempotent."""
        if self.move("remove"):
            if self._directory is not None:
                _remove(self._directory)
            self._close_files()

    def _close_files(self) -> None:
        with self.held:
            with contextlib.suppress(OSError):
                durable.close(self.descriptor)
            if self._journal is None:
                with contextlib.suppress(OSError):
                    durable.remove(self.path)
            else:
                os.close(self._journal)


def _same_file(found: Header, wanted: Header) -> bool:
    if found.digest != wanted.digest:
        return False
    if found.size is not None and wanted.size is not None and found.size != wanted.size:
        return False
    return wanted.digest is not None or (found.validator is not None and found.validator == wanted.validator)


def _lock(path: str) -> int:
    """The journal, open and locked. Its last holder may have removed the file while this run waited for the lock."""
    for _attempt in range(3):
        try:
            descriptor = locks.take(path, mode=0o600, max_content=0)
        except (locks.Held, locks.NotAFile):
            raise _NotOurs from None
        except OSError as fault:
            if fault.errno == errno.EACCES:
                raise _NotOurs from None
            raise
        try:
            with contextlib.suppress(FileNotFoundError):
                if os.lstat(path).st_ino == os.fstat(descriptor).st_ino:
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise _NotOurs


def _take_over(shared: str, directory: str) -> None:
    """Moves the download that an early modeld has left in the place of all tools. The bytes of another tool stay there:
    those without a journal, those that are newer than it, and those that a program has open for writing."""
    old, new = f"{shared}/{_JOURNAL}", f"{directory}/{_JOURNAL}"
    if os.path.lexists(new) or not os.path.lexists(old):
        return
    try:
        lock = _lock(old)
    except (_NotOurs, FileNotFoundError):
        return
    try:
        if journal.read(lock) is None:
            return
        # The journal goes last: after a crash in between it is still there, and the rest is done by the next run.
        _take_over_data(f"{shared}/{_DATA}", f"{directory}/{_DATA}", os.fstat(lock).st_mtime)
        durable.name_without_replacing(old, new)
        with contextlib.suppress(OSError):
            os.rmdir(shared)
    finally:
        os.close(lock)


def _take_over_data(old: str, new: str, journal_written: float) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not _is_ours(old, journal_written) or not durable.name_without_replacing(old, new):
            return
        # From here on no program can open it by the name that all know; one may have done so a moment ago.
        if not _is_ours(new, journal_written):
            try:
                durable.name_without_replacing(new, old)
            finally:
                durable.remove(new)


def _is_ours(path: str, journal_written: float) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            return False
        return status.st_mtime <= journal_written + _LATE_SECONDS and not files.has_writer(descriptor)
    finally:
        os.close(descriptor)


def _open_data(path: str) -> int:
    try:
        descriptor = os.open(path, _OPEN | os.O_CREAT, 0o600)
    except PermissionError:
        # A run that died between sealing and naming has made it read-only.
        sealed = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            os.fchmod(sealed, 0o600)
        finally:
            os.close(sealed)
        descriptor = os.open(path, _OPEN)
    except OSError as fault:
        if fault.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _NotOurs from None
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        # The second name may be that of a blob: a write would change the blob.
        os.close(descriptor)
        raise _NotOurs
    return descriptor


def _remove(directory: str) -> None:
    with contextlib.suppress(OSError):
        durable.remove(f"{directory}/{_DATA}")
    with contextlib.suppress(OSError):
        durable.remove(f"{directory}/{_JOURNAL}")
    with contextlib.suppress(OSError):
        os.rmdir(directory)
