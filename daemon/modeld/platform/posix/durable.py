"""The calls that make bytes and names durable. All raise OSError."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import re
import sys
from typing import Final

RWF_DONTCACHE: Final = 0x80
"""Linux 6.14: the pages that this call brings into the cache leave it again; pages already there stay."""

_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1
_RENAME_EXCHANGE: Final = 2
_RENAME_EXCL, _RENAME_SWAP = 4, 2  # of macOS
_FICLONE: Final = 0x40049409
_LIBC = ctypes.CDLL(None, use_errno=True)


def write_at(descriptor: int, data: memoryview, offset: int, flags: int = 0) -> None:
    """Writes all of `data`, in as many calls as that takes."""
    written = os.pwritev(descriptor, [data], offset, flags)
    while written < len(data):
        written += os.pwritev(descriptor, [data[written:]], offset + written, flags)


def read_at(descriptor: int, into: memoryview, offset: int, flags: int = 0) -> int:
    """Fills `into` up to the end of the file, and returns the number of bytes."""
    filled = os.preadv(descriptor, [into], offset, flags)
    while 0 < filled < len(into):
        more = os.preadv(descriptor, [into[filled:]], offset + filled, flags)
        if more == 0:
            break
        filled += more
    return filled


def read_once(descriptor: int, into: memoryview, offset: int) -> int:
    """One call, which may return fewer bytes than there are."""
    return os.preadv(descriptor, [into], offset)


def set_direct(descriptor: int, on: bool) -> bool:
    """Lets reads pass the page cache by, or no longer; whether they do so now. Such reads fail with EINVAL when memory
    or place is not aligned."""
    if sys.platform != "linux":
        return False
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT)
    except OSError:  # the filesystem cannot
        return False
    return on


def forget_pages(descriptor: int, offset: int, length: int) -> None:
    """Starts to write dirty pages out and drops the clean ones. Advice to the kernel: a refusal changes nothing."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)


def preallocate(descriptor: int, size: int) -> bool:
    """Allocates `size` bytes for this file; False where the filesystem cannot.

    Not os.posix_fallocate: where the filesystem cannot allocate, glibc writes a byte into every block.
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
    """Shares the source's extents with the target; False where the filesystem cannot (btrfs, XFS and bcachefs can)."""
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            raise
        return False
    return True


_NO_COPY: Final = (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM)
_PIECE: Final = 1024 * 1024


def copy_range(source: int, target: int, offset: int, length: int) -> None:
    """Copies these bytes to the same place of the target, sharing their extents where the filesystem can. A source that
    ends before they do leaves the rest as it was."""
    end = offset + length
    try:
        while hasattr(os, "copy_file_range") and offset < end:
            copied = os.copy_file_range(source, target, end - offset, offset, offset)
            if copied == 0:
                return
            offset += copied
    except OSError as error:
        if error.errno not in _NO_COPY:
            raise
    piece = memoryview(bytearray(min(_PIECE, end - offset)))
    while offset < end and (got := read_at(source, piece[: end - offset], offset)):
        write_at(target, piece[:got], offset)
        offset += got


def sync_file(descriptor: int) -> None:
    """Everything written so far is on stable storage. A failure condemns the file: never call it twice."""
    if sys.platform == "darwin":
        # fsync of macOS stops at the drive's cache. Only a filesystem that lacks the stronger call gets the weaker
        # one: any other failure is one of the sync itself.
        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENOTTY, errno.EINVAL):
                raise
    os.fsync(descriptor)


def sync_filesystem(descriptor: int) -> bool:
    """Everything on the filesystem of this file is on stable storage, and no page was lost since the file was opened.

    False where the system has no such call, or one that does not report lost pages: Linux does since 5.8.
    """
    if not _syncs_report_errors():
        return False
    if _LIBC.syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return True


@functools.cache
def _syncs_report_errors() -> bool:
    if sys.platform != "linux" or not hasattr(_LIBC, "syncfs"):
        return False
    version = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return version is not None and (int(version[1]), int(version[2])) >= (5, 8)


def dirty_bytes() -> int:
    """The bytes that the whole machine has not written out yet; sys.maxsize where the system does not report them."""
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as file:
        found = re.search(r"^Dirty: +(\d+) kB$", file.read(), re.MULTILINE)
        if found is not None:
            return int(found[1]) * 1024
    return sys.maxsize


def name_without_replacing(temporary: str, name: str) -> bool:
    """Renames the file in one step; False, with nothing changed, when the name is taken."""
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
    code = _rename(source, target, _RENAME_NOREPLACE, _RENAME_EXCL)
    if code == errno.EEXIST:
        return False
    return True if code == 0 else None


def exchange(first: str, second: str) -> bool:
    """Gives each of two entries the other's name, in one step; False, with nothing changed, where the system or the
    filesystem cannot."""
    return _rename(first, second, _RENAME_EXCHANGE, _RENAME_SWAP) == 0


def _rename(source: str, target: str, flag: int, flag_of_macos: int) -> int | None:
    """0, or EEXIST; None where there is no such rename."""
    before, after = os.fsencode(source), os.fsencode(target)
    if sys.platform == "darwin":
        failed = _LIBC.renamex_np(before, after, flag_of_macos)
    elif hasattr(_LIBC, "renameat2"):
        failed = _LIBC.renameat2(_AT_FDCWD, before, _AT_FDCWD, after, flag)
    else:
        return None
    code = ctypes.get_errno() if failed else 0
    if code in (0, errno.EEXIST):
        return code
    if code in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP):
        return None
    raise OSError(code, os.strerror(code), source, None, target)
