"""A lock on a file, held until it is released or the process ends. The file describes the holder.

flock, because the kernel releases it when the process ends, however it ends; a lock of fcntl is also lost when any
other descriptor of the file is closed. The file is never deleted: that would let two processes hold "the" lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from typing import Final, NamedTuple

# O_NONBLOCK: opening a FIFO in the lock's place does not wait, and its type is refused.
_OPEN: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

# ELOOP (EMLINK on BSD) is for a symbolic link, EISDIR for a directory, ENXIO for a socket and a FIFO without a reader.
_NO_FILE: Final = frozenset({errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO})


class NotAFile(Exception):
    """The lock's path is not a regular file."""


class Held(Exception):
    """Another process has the lock. `content` is that of the lock file, written by this holder or an earlier one."""

    def __init__(self, content: bytes, status: os.stat_result) -> None:
        super().__init__()
        self.content = content
        self.status = status
        """Of the lock file, for `owner`."""


class Owner(NamedTuple):
    """The holder of a lock according to the kernel's own table."""

    pid: int
    program: str


def take(path: str, *, mode: int, max_content: int, directory: int | None = None) -> int:
    """A descriptor that holds the lock. Raises `Held`, `NotAFile` or OSError, and never waits.

    Creates the file when it is missing, in `directory` if that is given, and never follows a link. Whoever can open the
    file, for reading too, can hold the lock: it gets `mode`, whatever it had.
    """
    try:
        descriptor = os.open(path, _OPEN, mode, dir_fd=directory)
    except OSError as fault:
        if fault.errno in _NO_FILE:
            raise NotAFile from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotAFile
        close_to_others(descriptor, mode)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Held(read(descriptor, max_content), os.fstat(descriptor)) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def close_to_others(descriptor: int, mode: int) -> None:
    """Gives a lock file its mode. Best effort: only its owner can."""
    with contextlib.suppress(OSError):
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
            os.fchmod(descriptor, mode)


def share(descriptor: int) -> None:
    """Takes a shared lock on an open file or directory. Best effort; never waits."""
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def write(descriptor: int, content: bytes) -> None:
    """Replaces the content of the lock file. Best effort: on a full disk the file stays empty, and the lock holds."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content, 0)


def read(descriptor: int, max_content: int) -> bytes:
    """The content of the lock file; empty when it cannot be read."""
    with contextlib.suppress(OSError):
        return os.pread(descriptor, max_content, 0)
    return b""


def clear(descriptor: int) -> None:
    """Empties the lock file: while the lock is free, the file names no holder and takes no block of the disk."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)


def release(descriptor: int) -> None:
    """Releases the lock. The file stays, and is empty."""
    clear(descriptor)
    os.close(descriptor)


def owner(status: os.stat_result) -> Owner | None:
    """The holder of the lock, where the kernel reports it. The file may name another: an earlier holder's content stays
    in it when the present one writes none."""
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with contextlib.suppress(OSError, ValueError), open("/proc/locks", encoding="ascii") as table:
        for line in table:
            fields = line.split()
            if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == wanted and fields[4].isdigit():
                pid = int(fields[4])
                return Owner(pid, _program(pid)) if pid else None
    return None


def _program(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        return file.read(64).strip() or "a program"
    return "a program"
