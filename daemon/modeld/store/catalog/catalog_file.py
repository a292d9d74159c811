"""The catalogue's file: opened safely, checked, set aside when damaged; SQLite's errors as wire errors.

All of the catalogue except history can be rebuilt, so a damaged file is moved aside as evidence, neither repaired nor
deleted, and a new one takes its place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
import time
from collections.abc import Callable

from modeld.store.disk import durable
from modeld.store.disk.durable import store_fault
from modelwire.errors import (
    Corrupt,
    Internal,
    Interrupted,
    InUse,
    NoSpace,
    NotFound,
    PermissionDenied,
    WireError,
)

BUSY_SECONDS = 5.0
"""Only a person with a database shell can hold the file: the store lock keeps other daemons out."""

WAL_LIMIT_BYTES = 16 * 1024 * 1024
"""The next checkpoint cuts the log of a huge transaction back to this size."""

COMPANIONS = ("", "-wal", "-shm")

MAGIC = b"SQLite format 3\0"

CONDEMNED = "-condemned"
"""Suffix of a mark beside a file that gave an error in use: the next start makes the full check."""

QUICK_CHECK = "PRAGMA quick_check(1)"
"""27 ms for 100,000 rows of 500 bytes in the page cache, so it runs at every start."""

FULL_CHECK = "PRAGMA integrity_check(1)"

_PIECE = 1024 * 1024

_KEEP_IT = (
    "Check the disk (the kernel's log) and start the daemon again. If the error stays, move the catalogue away: "
    "history and unfinished jobs are lost, models are kept."
)


class Damaged(Exception):
    """The file at the path is not a sound database."""


def open_or_replace(path: str) -> tuple[sqlite3.Connection, str | None]:
    """A checked connection, and where a damaged file was set aside to. Raises a typed error otherwise."""
    try:
        return _open_sound(path), None
    except Damaged:
        aside = _set_aside(path)
        try:
            return _open_checked(path, QUICK_CHECK), aside
        except Damaged as again:
            raise Corrupt(
                f"the catalogue {path} is damaged right after it was made anew: {again}",
                hint="Check the disk: it does not return the bytes that were written.",
            ) from again


def _open_sound(path: str) -> sqlite3.Connection:
    """SQLite reports a page that the disk did not return as damage too, and the next read may return it. So the first
    sign of damage is only a reason to look again: only a file that can be read and fails the full check is damaged."""
    condemned = os.path.lexists(path + CONDEMNED)
    if not condemned:
        with contextlib.suppress(Damaged):
            return _open_checked(path, QUICK_CHECK)
    _read_through(path, may_be_empty=not condemned)
    connection = _open_checked(path, FULL_CHECK)
    with contextlib.suppress(OSError):
        os.unlink(path + CONDEMNED)
    return connection


def _read_through(path: str, *, may_be_empty: bool) -> None:
    """Raises the disk's error when a file of the catalogue cannot be read. What is read stays in the system's cache for
    the check that follows."""
    for suffix in COMPANIONS:
        name = path + suffix
        try:
            if not stat.S_ISREG(os.lstat(name).st_mode):
                continue
            if not (suffix or may_be_empty or os.path.getsize(name)):
                raise Damaged("it is empty, and had content")
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0))
            try:
                while os.read(descriptor, _PIECE):
                    pass
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _translated_os(error, name) from error


def _open_checked(path: str, check: str) -> sqlite3.Connection:
    _make_private(path)
    try:
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise translated(error, path) from error
    try:
        # One process, one connection: the index of the log can live in memory. As a file it would need room at each
        # start, and a daemon must be able to start on a full disk.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchone()
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # macOS: through the drive's cache; nothing elsewhere
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
        (verdict,) = connection.execute(check).fetchone()
    except sqlite3.DatabaseError as error:
        connection.close()
        typed = translated(error, path)
        # The statements are right, so an error in one of them is in the file: a format that SQLite does not know.
        if isinstance(typed, Corrupt) or _primary(error) == sqlite3.SQLITE_ERROR:
            raise Damaged(str(error)) from error
        if isinstance(typed, WireError):
            raise typed from error
        raise Internal(f"the catalogue {path}: {error}", hint=_KEEP_IT) from error
    if verdict != "ok":
        connection.close()
        raise Damaged(verdict)
    return connection


def _make_private(path: str) -> None:
    """The file holds jobs' requests, so only its owner may read it. Its -wal and -shm inherit the mode."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        # A symlink, a directory, a socket: no catalogue.
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO):
            raise Damaged(os.strerror(error.errno)) from error
        raise _translated_os(error, path) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Damaged("not a regular file")
        # Checked before SQLite opens it: SQLite deletes a log beside a file that is not its own.
        if os.pread(descriptor, len(MAGIC), 0) not in (b"", MAGIC):
            raise Damaged("not a database")
    except OSError as error:
        raise _translated_os(error, path) from error
    finally:
        os.close(descriptor)


def _set_aside(path: str) -> str:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    target, number = f"{path}.damaged-{stamp}", 1
    while any(os.path.lexists(target + suffix) for suffix in COMPANIONS):
        number += 1
        target = f"{path}.damaged-{stamp}-{number}"
    try:
        # The log first: a database left alone with a foreign log would be "recovered" from it.
        for suffix in reversed(COMPANIONS):
            with contextlib.suppress(FileNotFoundError):
                os.rename(path + suffix, target + suffix)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + CONDEMNED)
    except OSError as error:
        raise _translated_os(error, path) from error
    return target


def condemn(path: str) -> None:
    """Makes the next start set the file aside. Best effort: the disk may be the reason for the damage."""
    with contextlib.suppress(OSError):
        os.close(os.open(path + CONDEMNED, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def file_at(path: str) -> tuple[int, int] | None:
    """The identity of the file at the path: SQLite writes to the file that it has opened, also when that is unnamed."""
    try:
        info = os.lstat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def vanished(path: str) -> WireError:
    directory = os.path.dirname(path)
    try:
        os.lstat(directory)
    except OSError as fault:
        return store_fault(fault, "look at", directory)
    return Internal(
        f"the catalogue {path} was removed or replaced while it was in use: nothing that is written to it would last",
        hint="Restart the daemon: it makes a new one; no model is lost.",
        retryable=True,
        details={"path": path},
    )


def _primary(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def translated(error: sqlite3.Error, path: str) -> WireError | sqlite3.Error:
    """The typed error for a fault of the disk or the file; an error in a statement is returned unchanged."""
    name = getattr(error, "sqlite_errorname", "") or type(error).__name__
    what = f"the catalogue {path}: {error} ({name})"
    match _primary(error):
        case sqlite3.SQLITE_FULL:
            return NoSpace(what, hint="Free some space (remove models, then sweep) and try again.")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return PermissionDenied(what, hint="Make the file and its directory writable for the daemon's user.")
        case sqlite3.SQLITE_CANTOPEN:
            if os.path.isdir(os.path.dirname(path)):
                return PermissionDenied(what, hint="Make the directory writable for the daemon's user.")
            return NotFound(what, hint="The store's root is gone: check that its filesystem is mounted.")
        case sqlite3.SQLITE_IOERR:
            return Internal(what, hint="The disk reported an error: see the kernel's log.")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_FORMAT:
            return Corrupt(what, hint="Restart the daemon: it checks the file, and sets a damaged one aside.")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return InUse(what, hint="Another program holds the file: close that program.")
        case sqlite3.SQLITE_INTERRUPT:
            return Interrupted(what)
        case _:
            return error


def _translated_os(error: OSError, path: str) -> WireError:
    what = f"the catalogue {path}: {error.strerror}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionDenied(what, hint="Make the file and its directory writable for the daemon's user.")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(what, hint="Free some space and try again.")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(what, hint="The store's root is gone: check that its filesystem is mounted.")
    return Internal(what, hint=_KEEP_IT)


def copy_to(source: sqlite3.Connection, path: str, finish: Callable[[sqlite3.Connection], None]) -> None:
    """Makes a sound copy at the path, durable on return, which `finish` completes. An earlier one is replaced."""
    temporary = f"{path}.copied"
    for suffix in COMPANIONS:
        durable.remove(temporary + suffix)
    os.close(durable.create_file(temporary))
    target = sqlite3.connect(temporary, isolation_level=None)
    try:
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE").fetchone()
        target.execute("BEGIN")
        finish(target)
        target.execute("COMMIT")
        (verdict,) = target.execute(QUICK_CHECK).fetchone()
        if verdict != "ok":
            raise Corrupt(f"the copy {temporary} of the catalogue is damaged: {verdict}", hint="Check the disk.")
    finally:
        target.close()
    with durable.store_faults("copy the catalogue to", path):
        descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            durable.sync_file(descriptor)
        finally:
            durable.close(descriptor)
        for suffix in COMPANIONS[1:]:
            durable.remove(path + suffix)
        durable.name_replacing(temporary, path)
        durable.sync_directory(os.path.dirname(path))
