"""A lock on a file, held for as long as the process lives, or until it is given back.

flock, because it falls with its process, however that ends, and not, as a lock of fcntl does, when any other descriptor
of the file is closed. The file is never deleted: a deleted lock file lets two processes hold "the" lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from typing import Final, NamedTuple

# O_NONBLOCK: a FIFO in the lock's place is refused by its type instead of being waited for.
_OPEN: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

# A symbolic link answers ELOOP (EMLINK on BSD), a directory EISDIR, a socket and a FIFO without a reader ENXIO.
_NO_FILE: Final = frozenset({errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO})


class NotAFile(Exception):
    """Something else than a regular file is in the lock's place."""


class Held(Exception):
    """Another process has the lock. `words` is what its file says, written by this holder or an earlier one."""

    def __init__(self, words: bytes, status: os.stat_result) -> None:
        super().__init__()
        self.words = words
        self.status = status
        """Of the lock's file, for `owner`."""


class Owner(NamedTuple):
    """Who has a lock by the kernel's own table."""

    pid: int
    program: str


def take(path: str, *, mode: int, longest_words: int, directory: int | None = None) -> int:
    """A descriptor that holds the lock; `Held`, `NotAFile` or OSError at once when it cannot be had.

    The file is made when it is missing, in `directory` if that is given, and never opened through a link.
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
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Held(read(descriptor, longest_words), os.fstat(descriptor)) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def share(descriptor: int) -> None:
    """Locks an open file or directory together with others who share it; best effort, never waits."""
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def write(descriptor: int, words: bytes) -> None:
    """Replaces what the file says. Best effort: on a full disk the lock holds all the same, only without words."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, words, 0)


def read(descriptor: int, longest: int) -> bytes:
    """What the file says; empty when it cannot be read."""
    with contextlib.suppress(OSError):
        return os.pread(descriptor, longest, 0)
    return b""


def clear(descriptor: int) -> None:
    """Takes the words away: a lock that nobody holds names nobody, and takes no block of the disk."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)


def release(descriptor: int) -> None:
    """Gives the lock back. The file stays, without words."""
    clear(descriptor)
    os.close(descriptor)


def owner(status: os.stat_result) -> Owner | None:
    """Who has the lock of the file, where the kernel reports it. What the file says may disagree: an earlier holder's
    words stay in it when the present one writes none."""
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
