"""A download on the disk: its bytes, and beside them the journal by which a later run goes on.

Where the digest is known they lie where every tool looks for a download of it; where only a validator tells versions
apart, under a key of the address in the private part of the store; without either, in the staging directory, and then
nothing outlives this run. Who writes holds a lock on the journal. Somebody else's download is left alone: then this
one goes to the staging directory, because two writers in one file would spoil what each of them has hashed.
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
from typing import TYPE_CHECKING, Final

from modeld.download.partials import journal
from modeld.download.partials.journal import Header, Identity, Piece
from modeld.platform import locks
from modeld.store.disk import durable
from modeld.store.disk.durable import store_faults

if TYPE_CHECKING:
    from modeld.store.digest import Digest
    from modeld.store.disk.layout import Layout

_JOURNAL: Final = "journal"
_DATA: Final = "data.tmp"
_OPEN: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class _Taken(Exception):
    """By another run, another tool, or something that is no file."""


def partial_dir(layout: Layout, digest: Digest | None, key: str | None) -> str | None:
    """Where a download is resumed from. `key` stands for an address that has a validator."""
    if digest is not None:
        return layout.partial_dir(digest)
    if key is not None:
        return f"{layout.private}/partials/{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"
    return None


class Partial:
    """`pieces` and `identities` are what an earlier run left; empty after `begin`. `identity` and `record` may be
    called from several threads."""

    def __init__(self, directory: str | None, path: str, descriptor: int, journal_descriptor: int | None) -> None:
        self.path = path
        self.descriptor = descriptor
        self.pieces: tuple[Piece, ...] = ()
        self.identities: list[Identity] = []
        self._directory = directory
        self._journal = journal_descriptor
        self._length = 0
        self._lines = threading.Lock()
        self._closed = False

    @property
    def resumable(self) -> bool:
        return self._journal is not None

    @property
    def allocated(self) -> int:
        return os.fstat(self.descriptor).st_blocks * 512

    @classmethod
    def open(cls, layout: Layout, header: Header, digest: Digest | None, key: str | None) -> Partial:
        """Blocks. What an earlier run left is kept only when it is a part of the very same file."""
        directory = partial_dir(layout, digest, key)
        with store_faults("open the download", directory or layout.staging):
            if directory is not None:
                durable.make_directories(directory, below=layout.root)
                with contextlib.suppress(_Taken):
                    return cls._open_in(directory, header)
            path = f"{layout.staging}/fetch-{os.getpid()}-{secrets.token_hex(8)}.tmp"
            durable.make_directories(layout.staging, below=layout.root)
            return cls(None, path, durable.create_file(path), None)

    @classmethod
    def _open_in(cls, directory: str, header: Header) -> Partial:
        lock = _lock(f"{directory}/{_JOURNAL}")
        try:
            empty = os.fstat(lock).st_size == 0
            told = journal.read(lock)
            path = f"{directory}/{_DATA}"
            if empty and os.path.lexists(path):
                # The journal comes before the bytes: these are somebody else's.
                durable.remove(f"{directory}/{_JOURNAL}")
                raise _Taken
            descriptor = _open_data(path)
        except BaseException:
            os.close(lock)
            raise
        partial = cls(directory, path, descriptor, lock)
        try:
            if told is None or not _same_file(told.header, header):
                partial.begin(header)
            else:
                size = os.fstat(descriptor).st_size
                partial.identities = list(told.identities)
                partial.pieces = tuple(piece for piece in told.pieces if piece.end <= size)
                partial._length = told.length
                os.ftruncate(lock, told.length)
        except BaseException:
            partial.close()
            raise
        return partial

    def begin(self, header: Header) -> None:
        """From the first byte."""
        self.pieces, self.identities = (), []
        with store_faults("begin the download", self.path):
            os.ftruncate(self.descriptor, 0)
            if self._journal is not None and self._directory is not None:
                os.ftruncate(self._journal, 0)
                self._length = journal.append(self._journal, [header], 0)
                durable.sync_directory(self._directory)

    def identity(self, name: str, validator: str | None) -> int:
        """The number under which pieces of this source are recorded."""
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
        """First the bytes, then the lines that vouch for them."""
        if self._journal is None:
            return
        with store_faults("make durable", self.path):
            durable.sync_file(self.descriptor)
            with self._lines:
                self._length = journal.append(self._journal, pieces, self._length)

    def close(self) -> None:
        """Kept for a later run where that is possible, else removed. Idempotent."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):
            durable.close(self.descriptor)
        if self._journal is None:
            with contextlib.suppress(OSError):
                durable.remove(self.path)
        else:
            os.close(self._journal)

    def remove(self) -> None:
        """The bytes have another name now, or nobody wants them."""
        if self._directory is not None:
            _remove(self._directory)
        self.close()


def _same_file(told: Header, wanted: Header) -> bool:
    if told.digest != wanted.digest:
        return False
    if told.size is not None and wanted.size is not None and told.size != wanted.size:
        return False
    return wanted.digest is not None or (told.validator is not None and told.validator == wanted.validator)


def _lock(path: str) -> int:
    """The journal, open and ours. Whoever had it before may have removed the file that was just opened."""
    for _attempt in range(3):
        try:
            descriptor = locks.take(path, mode=0o600, max_content=0)
        except (locks.Held, locks.NotAFile):
            raise _Taken from None
        except OSError as fault:
            if fault.errno == errno.EACCES:
                raise _Taken from None
            raise
        try:
            with contextlib.suppress(FileNotFoundError):
                if os.lstat(path).st_ino == os.fstat(descriptor).st_ino:
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise _Taken


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
            raise _Taken from None
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        # A second name may be that of a blob: writing here would change it.
        os.close(descriptor)
        raise _Taken
    return descriptor


def _remove(directory: str) -> None:
    with contextlib.suppress(OSError):
        durable.remove(f"{directory}/{_DATA}")
    with contextlib.suppress(OSError):
        durable.remove(f"{directory}/{_JOURNAL}")
    with contextlib.suppress(OSError):
        os.rmdir(directory)
