"""The system calls that make bytes and names last, and what their failures mean to a client.

Everything in the store that changes the disk goes through here. So the order of writing, syncing and
naming can be read in one place, and a test can fail the n-th call of any path without hooks in it.

The functions raise OSError; `store_faults` and `source_faults` turn that into errors of the wire.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from types import TracebackType

from modeld.platform import durable as calls
from modelwire.errors import (
    Internal,
    InvalidRequest,
    NoSpace,
    PermissionDenied,
    QuotaExceeded,
    SourceNotFound,
    SourceUnavailable,
    Unsupported,
    WireError,
)

PUBLISHED_MODE = 0o444
"""Neither a reader nor the owner of a descriptor can write to a blob."""

MAX_FOREIGN_DIRTY = 256 * 1024 * 1024
"""A tenth of a second of a slow disk: above it, files are synced one by one, without the bytes of other programs."""

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW

RWF_DONTCACHE = calls.RWF_DONTCACHE
write_at = calls.write_at
read_at = calls.read_at
read_once = calls.read_once
set_direct = calls.set_direct
forget_pages = calls.forget_pages
preallocate = calls.preallocate
clone = calls.clone
copy_range = calls.copy_range
sync_file = calls.sync_file
name_without_replacing = calls.name_without_replacing
exchange = calls.exchange


def create_file(path: str) -> int:
    """Creates a file that only this process knows. Fails when the path exists, also as a link."""
    return os.open(path, _CREATE, 0o600)


def stage_file(path: str, *, below: str) -> int:
    """As `create_file`, in the staging directory, which is made again when another program has removed it."""
    try:
        return create_file(path)
    except FileNotFoundError:
        make_directories(os.path.dirname(path), below=below)
        return create_file(path)


def make_read_only(descriptor: int) -> None:
    os.fchmod(descriptor, PUBLISHED_MODE)


def share_with_group_of(directory: str, descriptor: int) -> None:
    """In a store that a group shares (set-group-ID directories), gives the file to that group.

    Staged files are created in a private directory and do not inherit the group. A daemon outside the group cannot
    change the file's group: then the file stays readable by everyone, as any blob is.
    """
    parent = os.stat(directory)
    if parent.st_mode & stat.S_ISGID and os.fstat(descriptor).st_gid != parent.st_gid:
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, -1, parent.st_gid)


def sync_path(path: str) -> None:
    """As `sync_file`, by the name of a file that is closed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        sync_file(descriptor)
    finally:
        close(descriptor)


def write_file(temporary: str, name: str, data: bytes, *, mode: int = 0o600) -> None:
    """Writes a small file whole, syncs it, and gives it its name, replacing another. The caller syncs the directory."""
    descriptor = create_file(temporary)
    try:
        try:
            write_at(descriptor, memoryview(data), 0)
            os.fchmod(descriptor, mode)
            sync_file(descriptor)
        finally:
            close(descriptor)
        name_replacing(temporary, name)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(temporary)
        raise


def sync_directory(path: str) -> None:
    """On return the names in this directory are on stable storage."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_file(descriptor)
    finally:
        os.close(descriptor)


class FilesystemSync:
    """One sync for many small files: a sync of each costs more than all other work on them.

    Open it before the first of the files is written: from then on the kernel reports every lost page of the filesystem
    to it.
    """

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def sync(self) -> bool:
        """Returns False where the kernel gives no proof, or would write out many bytes of other programs."""
        return calls.dirty_bytes() <= MAX_FOREIGN_DIRTY and calls.sync_filesystem(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def close(descriptor: int) -> None:
    """Raises the error of close: a network filesystem may report there that bytes were lost."""
    os.close(descriptor)


def make_directory(path: str) -> None:
    """Makes a directory with the rights of its parent, whatever the umask: neither is it hidden from those who may read
    its parent, nor may everybody write to it."""
    wanted = os.stat(os.path.dirname(path)).st_mode & 0o2775 | 0o700
    os.mkdir(path, wanted)
    if stat.S_IMODE(os.lstat(path).st_mode) != wanted:
        os.chmod(path, wanted)


def lock_mode(directory: str) -> int:
    """That of a lock file there, which everybody who can read it can hold: for the owner, or for the group that shares
    the store."""
    return 0o660 if os.stat(directory).st_mode & stat.S_ISGID else 0o600


def make_directories(path: str, *, below: str) -> None:
    """Makes `path` and its missing parents, as far up as `below`."""
    try:
        make_directory(path)
    except FileExistsError:
        return
    except FileNotFoundError:
        parent = os.path.dirname(path)
        if len(parent) < len(below):
            raise
        make_directories(parent, below=below)
        with contextlib.suppress(FileExistsError):
            make_directory(path)


def name_replacing(temporary: str, name: str) -> None:
    """For manifests and the catalogue's own file: readers always see the old file or the new one."""
    os.replace(temporary, name)


def remove(path: str) -> None:
    """Removes the file; a missing file is no error."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def store_fault(error: OSError, doing: str, path: str) -> WireError:
    """The wire error for a failed system call on the store."""
    why = error.strerror or str(error)
    message = f"cannot {doing} {path}: {why}"
    details = {"path": path, "errno": errno.errorcode.get(error.errno or 0, str(error.errno))}
    if error.errno == errno.ENOSPC:
        return NoSpace(message, hint="Free space on the store's filesystem, or sweep the store.", details=details)
    if error.errno == errno.EDQUOT:
        return QuotaExceeded(
            message, hint="The filesystem's quota for the daemon's user is used up: raise it or sweep.", details=details
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        hint = (
            "The filesystem is mounted read-only; the kernel does that after errors of the disk."
            if error.errno == errno.EROFS
            else "Run as the daemon's user, or change the mode of the store."
        )
        return PermissionDenied(message, hint=hint, details=details)
    if error.errno == errno.EIO:
        return Internal(
            f"{message}: the disk under the store reported an error, so these bytes cannot be trusted",
            hint="Look at the kernel's log and the health of the disk.",
            details=details,
        )
    if error.errno == errno.EFBIG:
        return Unsupported(
            message, hint="The filesystem or the file size limit allows no file so big.", details=details
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENODEV):
        return Internal(
            message,
            hint="Check that the store's filesystem is mounted. Nothing is deleted while it is not.",
            retryable=True,
            details=details,
        )
    return Internal(message, details=details)


def source_fault(error: OSError, path: str) -> WireError:
    """The wire error for a failed system call on a source."""
    why = error.strerror or str(error)
    details = {"path": path, "errno": errno.errorcode.get(error.errno or 0, str(error.errno))}
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return SourceNotFound(f"{path} is not there: {why}", hint="Check the path.", details=details)
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionDenied(
            f"{path} cannot be read: {why}",
            hint="Make the file readable, and its directories searchable, for the daemon's user.",
            details=details,
        )
    if error.errno in (errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.EINVAL):
        return InvalidRequest(f"{path} cannot be opened as a file: {why}", details=details)
    return SourceUnavailable(f"{path} cannot be read: {why}", details=details)


class store_faults:  # noqa: N801 - as a function: a class costs a third of a generator, twelve times for each small file
    """Raises what a failed system call on the store means."""

    __slots__ = ("_doing", "_path")

    def __init__(self, doing: str, path: str) -> None:
        self._doing = doing
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if isinstance(error, OSError):
            raise store_fault(error, self._doing, self._path) from error


class source_faults:  # noqa: N801
    """Raises what a failed system call on a source means."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if isinstance(error, OSError):
            raise source_fault(error, self._path) from error


@contextlib.contextmanager
def outcome_unknown() -> Iterator[None]:
    """Around work after a rename or a removal: when it fails, the change may not last until the same request
    succeeds."""
    try:
        yield
    except WireError as error:
        error.details["outcome"] = "unknown"
        error.retryable = True
        error.hint = f"{error.hint or ''} The change may not last: send the same request again.".strip()
        raise
