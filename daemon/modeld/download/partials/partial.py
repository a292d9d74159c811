"""A download on the disk: its bytes, and beside them the journal from which a later run resumes.

With a digest they lie where every tool looks for a download of it; with only a validator, under a key of the address in
the private part of the store; without either, in the staging directory, and then nothing outlives this run. The writer
holds a lock on the journal. The download of another run or tool is left alone, and this one goes to the staging
directory: two writers in one file would spoil what each of them has hashed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from modeld.download.partials import journal
from modeld.download.partials.journal import Header, Identity, Piece
from modeld.download.partials.stages import Event, Stage, after
from modeld.platform import locks
from modeld.store.digest import Digest
from modeld.store.disk import durable
from modeld.store.disk.durable import store_faults
from modeld.store.disk.layout import Layout
from modeld.store.publish.holds import Holds

_JOURNAL: Final = "journal"
_DATA: Final = "data.tmp"
_OPEN: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class _NotOurs(Exception):
    """The place is in use by another run or another tool, or what lies there is no regular file."""


def partial_dir(layout: Layout, digest: Digest | None, key: str | None) -> str | None:
    """The directory of a download that can be resumed, None for another. `key` is for an address with a validator."""
    if digest is not None:
        return layout.partial_dir(digest)
    if key is not None:
        return f"{layout.private}/partials/{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"
    return None


class Partial:
    """`pieces` and `identities` are those of an earlier run; empty after `begin`. `identity`, `record` and `move` may
    be called from several threads. See `stages` for what may be called when."""

    def __init__(self, directory: str | None, path: str, descriptor: int, journal_descriptor: int | None) -> None:
        self.path = path
        self.descriptor = descriptor
        self.pieces: tuple[Piece, ...] = ()
        self.identities: list[Identity] = []
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
            partial = cls._open(layout, header, directory)
            partial.held = held.pop_all()
        return partial

    @classmethod
    def _open(cls, layout: Layout, header: Header, directory: str | None) -> Partial:
        with store_faults("open the download", directory or layout.staging):
            if directory is not None:
                durable.make_directories(directory, below=layout.root)
                with contextlib.suppress(_NotOurs):
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
            empty = os.fstat(lock).st_size == 0
            found = journal.read(lock)
            path = f"{directory}/{_DATA}"
            if empty and os.path.lexists(path):
                # The journal is always written before the bytes, so these are another tool's.
                durable.remove(f"{directory}/{_JOURNAL}")
                raise _NotOurs
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

    def record(self, pieces: Sequence[Piece]) -> None:
        """Syncs the bytes, then writes the lines that vouch for them."""
        if self._journal is None:
            return
        with store_faults("make durable", self.path):
            durable.sync_file(self.descriptor)
            with self._lines:
                self._length = journal.append(self._journal, pieces, self._length)

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
