"""Calls on an open file, whatever its name refers to by now. All raise OSError."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import resource
import signal
import stat
import sys
from contextlib import suppress
from typing import Final

_LIBC = ctypes.CDLL(None, use_errno=True)
_STATFS_BYTES: Final = 256
_PATH_BYTES: Final = 1024
_GONE: Final = " (deleted)"
_FUSE: Final = 0x65735546
_OVERLAY: Final = 0x794C7630


class closing:  # noqa: N801 - as a function: a class costs a third of a generator, several times for each small file
    """Around the use of a descriptor that nothing is written to, so that an error of its close means nothing."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> int:
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            os.close(self._descriptor)


def private_directory(path: str) -> str | None:
    """The nearest directory, from this one up, that its owner alone may enter; None when there is none. One that a
    group may enter passes: the group may have the users that are meant. A path with symbolic links leads through the
    directories of the links and those of the last target. Blocking, and never raises."""
    with suppress(OSError):
        return _private_above(path) or _private_above(os.path.realpath(path))
    return None


def _private_above(path: str) -> str | None:
    while os.stat(path).st_mode & (stat.S_IXOTH | stat.S_IXGRP):
        above = os.path.dirname(path)
        if above == path:
            return None
        path = above
    return path


def is_readable(descriptor: int) -> bool:
    """Whether the file is open to be read: not for writing alone, and not only to be named (O_PATH)."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    return flags & os.O_ACCMODE != os.O_WRONLY and not flags & getattr(os, "O_PATH", 0)


def served_by_program(descriptor: int) -> bool:
    """Whether a program of some user may answer for the bytes of the file (FUSE), and so may never answer. The question
    itself may wait for that program.

    Users can put an overlay over such a filesystem, in mounts of their own: one of the machine's own is in this
    process's mounts.
    """
    if sys.platform != "linux":
        return False
    found = ctypes.create_string_buffer(_STATFS_BYTES)
    if _LIBC.fstatfs(descriptor, found) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    kind = ctypes.c_ulong.from_buffer(found).value & 0xFFFFFFFF  # the first word, negative for some
    return kind == _FUSE or (kind == _OVERLAY and not _is_mounted_here(os.fstat(descriptor).st_dev))


def _is_mounted_here(device: int) -> bool:
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        return any(line.split(maxsplit=3)[2] == wanted for line in mounts)


def mounts_below(directory: str) -> list[str]:
    """The directories below this one, which has no link in its path, where something is mounted; none are known on
    systems without a table of mounts."""
    top = os.fsencode(directory.rstrip("/")) + b"/"
    with suppress(FileNotFoundError), open("/proc/self/mountinfo", "rb") as mounts:
        points = (re.sub(rb"\\([0-7]{3})", _unescaped, line.split(maxsplit=5)[4]) for line in mounts)
        return [os.fsdecode(point) for point in points if point.startswith(top)]
    return []


def _unescaped(octal: re.Match[bytes]) -> bytes:
    return bytes([int(octal[1], 8)])


def allow_as_many_as_possible() -> None:
    """Raises the number of files that this process may have open to the most that it is allowed. Best effort: systems
    set the first number low for programs that use select, which this one does not."""
    with suppress(OSError, ValueError):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def path_of(descriptor: int, path: str) -> str:
    """The path of the open file, without symbolic links. `path` is the path that it was opened by, for systems that do
    not keep it; there a link that was exchanged since then leads elsewhere."""
    if sys.platform == "darwin":
        return os.fsdecode(fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(_PATH_BYTES)).rstrip(b"\0"))
    with suppress(OSError):
        found = os.readlink(f"/proc/self/fd/{descriptor}")
        # The kernel says so of a name that is gone; a file may also be called so.
        return found.removesuffix(_GONE) if found.endswith(_GONE) and not os.path.lexists(found) else found
    return os.path.realpath(path)


def link_open_file(descriptor: int, path: str, name: str) -> None:
    """Gives the open file a second name. `path` is the path that it was opened by, for systems without /proc.

    Without both directory descriptors the call refuses /proc as another filesystem.
    """
    if sys.platform != "linux":
        os.link(path, name)
        return
    with closing(os.open(os.path.dirname(name), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as directory:
        os.link(
            f"/proc/self/fd/{descriptor}",
            os.path.basename(name),
            src_dir_fd=directory,
            dst_dir_fd=directory,
            follow_symlinks=True,
        )


def has_writer(descriptor: int) -> bool | None:
    """Whether any program has this file open, or mapped, for writing; None where the system does not report it: on
    other systems, and for the files of other users."""
    leased = lease(descriptor)
    if leased:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return None if leased is None else not leased


def lease(descriptor: int) -> bool | None:
    """Has the kernel report who opens the file for writing, until the descriptor is closed. False when some program has
    it open so already, None as of `has_writer`. Such a program waits meanwhile: hold it for milliseconds only."""
    if sys.platform != "linux":
        return None
    try:
        # A program that opens the file during the lease must not make the kernel end this process by SIGIO.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return False if error.errno == errno.EAGAIN else None
    return True


def is_open_elsewhere(path: str) -> bool | None:
    """Whether any program has the file open or mapped, in whatever way; None as of `has_writer`. One that opens it at
    this moment waits."""
    if sys.platform != "linux":
        return None
    with closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)) as descriptor:
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as error:
            return True if error.errno == errno.EAGAIN else None
        return False  # the close ends the lease


def lease_holds(descriptor: int) -> bool:
    """Whether no program has tried to open the file for writing since `lease` returned True."""
    return fcntl.fcntl(descriptor, fcntl.F_GETLEASE) == fcntl.F_RDLCK


def has_multigrain_timestamps() -> bool:
    """Whether a change after a stat always gets later timestamps than the stat returned: since Linux 6.13."""
    if sys.platform != "linux":
        return False
    version = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return version is not None and (int(version[1]), int(version[2])) >= (6, 13)
