"""The system calls that make bytes and names last, and what their failures mean to a client.

Everything in the store that changes the disk goes through here. So the order of writing, syncing and
naming can be read in one place, and a test can fail the n-th call of any path without hooks in it.

The functions raise OSError; `store_faults` and `source_faults` turn that into errors of the wire.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import re
import stat
import sys
from collections.abc import Iterator

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
"""Neither a reader nor a descriptor that is handed out can change a blob."""

RWF_DONTCACHE = 0x80
"""Linux 6.14: the pages that this call brings into the cache leave it again; pages already there stay."""

MAX_FOREIGN_DIRTY = 256 * 1024 * 1024
"""A tenth of a second of a slow disk: beyond it, files are synced one by one, and nobody else's bytes."""

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_FICLONE = 0x40049409
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_LIBC = ctypes.CDLL(None, use_errno=True)


def create_file(path: str) -> int:
    """A new file that only this process knows; never one that is there, never through a link."""
    return os.open(path, _CREATE, 0o600)


def write_at(descriptor: int, data: memoryview, offset: int, flags: int = 0) -> None:
    """All of `data`, however many calls that takes."""
    written = os.pwritev(descriptor, [data], offset, flags)
    while written < len(data):
        written += os.pwritev(descriptor, [data[written:]], offset + written, flags)


def read_at(descriptor: int, into: memoryview, offset: int, flags: int = 0) -> int:
    """Fills `into` unless the file ends before; how much there was."""
    filled = os.preadv(descriptor, [into], offset, flags)
    while 0 < filled < len(into):
        more = os.preadv(descriptor, [into[filled:]], offset + filled, flags)
        if more == 0:
            break
        filled += more
    return filled


def forget_pages(descriptor: int, offset: int, length: int) -> None:
    """Starts writing dirty pages out and drops the clean ones. Advice: a refusal changes nothing."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)


def preallocate(descriptor: int, size: int) -> bool:
    """Whether the filesystem now holds `size` bytes for this file.

    Not os.posix_fallocate: where the filesystem cannot do it, glibc writes a byte into every block.
    """
    call = getattr(_LIBC, "fallocate64", None) or getattr(_LIBC, "fallocate", None)
    if call is None or size == 0:
        return False
    while call(descriptor, 0, ctypes.c_longlong(0), ctypes.c_longlong(size)) != 0:
        code = ctypes.get_errno()
        if code in (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV, errno.EINVAL):
            return False
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
    return True


def clone(source: int, target: int) -> bool:
    """Shares the source's extents with the target where the filesystem can (btrfs, XFS, bcachefs)."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            raise
        return False
    return True


def make_read_only(descriptor: int) -> None:
    os.fchmod(descriptor, PUBLISHED_MODE)


def share_with_group_of(directory: str, descriptor: int) -> None:
    """In a store that a group shares (set-group-ID directories) the file belongs to that group.

    Staged files are born in a private directory and so would miss it. A daemon outside the group cannot
    give the file away: then it stays readable by everyone, as any blob is.
    """
    parent = os.stat(directory)
    if parent.st_mode & stat.S_ISGID and os.fstat(descriptor).st_gid != parent.st_gid:
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, -1, parent.st_gid)


def sync_file(descriptor: int) -> None:
    """Everything written so far is on stable storage. A failure condemns the file: never call it twice."""
    if sys.platform == "darwin":
        import fcntl

        # fsync of macOS stops at the drive's cache. Only a filesystem that does not know the stronger call
        # gets the weaker one: any other failure is one of the sync itself.
        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENOTTY, errno.EINVAL):
                raise
    os.fsync(descriptor)


def sync_directory(path: str) -> None:
    """The names in this directory are on stable storage."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_file(descriptor)
    finally:
        os.close(descriptor)


class FilesystemSync:
    """One sync for many small files: a sync of each costs more than all the rest of their way.

    Open it before the first of them is written: from then on the kernel (Linux 5.8) reports every lost
    page of the filesystem to it.
    """

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def sync(self) -> bool:
        """False where this would be no proof, or would wait for much that others have written."""
        if not _syncs_report_errors() or _dirty_bytes() > MAX_FOREIGN_DIRTY:
            return False
        if _LIBC.syncfs(self._descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return True

    def close(self) -> None:
        os.close(self._descriptor)


@functools.cache
def _syncs_report_errors() -> bool:
    if sys.platform != "linux" or not hasattr(_LIBC, "syncfs"):
        return False
    version = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return version is not None and (int(version[1]), int(version[2])) >= (5, 8)


def _dirty_bytes() -> int:
    """What the whole machine has not written out yet; without an answer, too much."""
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as file:
        found = re.search(r"^Dirty: +(\d+) kB$", file.read(), re.MULTILINE)
        if found is not None:
            return int(found[1]) * 1024
    return sys.maxsize


def close(descriptor: int) -> None:
    """Checked: a network filesystem may report here that bytes were lost."""
    os.close(descriptor)


def make_directories(path: str, *, below: str) -> None:
    """`path` and its missing parents, as far up as `below`, with the group rights of the parent."""
    try:
        os.mkdir(path)
    except FileExistsError:
        return
    except FileNotFoundError:
        parent = os.path.dirname(path)
        if len(parent) < len(below):
            raise
        make_directories(parent, below=below)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
    parent_mode = os.stat(os.path.dirname(path)).st_mode
    if parent_mode & stat.S_ISGID:
        # The umask of a service takes the group's write bit, and the next member could not publish here.
        with contextlib.suppress(PermissionError):
            os.chmod(path, stat.S_IMODE(parent_mode))


def name_without_replacing(temporary: str, name: str) -> bool:
    """Gives the file its name in one step; False when the name is taken, and then nothing has changed."""
    renamed = _rename_exclusive(temporary, name)
    if renamed is not None:
        return renamed
    try:
        os.link(temporary, name, follow_symlinks=False)
    except FileExistsError:
        return False
    os.unlink(temporary)
    return True


def _rename_exclusive(source: str, target: str) -> bool | None:
    """None where the system or the filesystem has no rename that refuses to replace."""
    before, after = os.fsencode(source), os.fsencode(target)
    if sys.platform == "darwin":
        failed = _LIBC.renamex_np(before, after, 4)
    elif hasattr(_LIBC, "renameat2"):
        failed = _LIBC.renameat2(_AT_FDCWD, before, _AT_FDCWD, after, _RENAME_NOREPLACE)
    else:
        return None
    if not failed:
        return True
    code = ctypes.get_errno()
    if code == errno.EEXIST:
        return False
    if code in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP):
        return None
    raise OSError(code, os.strerror(code), source, None, target)


def name_replacing(temporary: str, name: str) -> None:
    """For manifests only: readers see the old one or the new one, never neither."""
    os.replace(temporary, name)


def remove(path: str) -> None:
    """Gone afterwards, also when it was gone before."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def store_fault(error: OSError, doing: str, path: str) -> WireError:
    """What a failed system call on the store means to whoever asked for the work."""
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
            hint="Is the store's filesystem still mounted? Nothing is deleted while it is away.",
            retryable=True,
            details=details,
        )
    return Internal(message, details=details)


def source_fault(error: OSError, path: str) -> WireError:
    """What a failed system call on a source means to whoever named it."""
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


@contextlib.contextmanager
def store_faults(doing: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise store_fault(error, doing, path) from error


@contextlib.contextmanager
def outcome_unknown() -> Iterator[None]:
    """For what happens after a naming or a removal: it may last or not, and the same request again settles it."""
    try:
        yield
    except WireError as error:
        error.details["outcome"] = "unknown"
        error.retryable = True
        error.hint = f"{error.hint or ''} What was done may not last: the same request again settles that.".strip()
        raise


@contextlib.contextmanager
def source_faults(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise source_fault(error, path) from error
