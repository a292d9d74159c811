"""Calls on an open file, whatever its name refers to by now. All raise OSError."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import sys
from contextlib import suppress
from typing import Final

REOPENS: Final = sys.platform == "linux"
"""Whether `reopen` works: without it, no file can be opened with the rights of another user and then be read."""


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


def reopen(descriptor: int, flags: int) -> int:
    """A second descriptor of the same file, also when the first is an O_PATH descriptor."""
    return os.open(f"/proc/self/fd/{descriptor}", flags)


def access_list(descriptor: int) -> bytes | None:
    """The POSIX access list as the kernel stores it; None when the file has none, or the system has no such lists.

    A descriptor opened with O_PATH has no attributes of its own; its name under /proc has.
    """
    if sys.platform != "linux":
        return None
    try:
        return os.getxattr(f"/proc/self/fd/{descriptor}", "system.posix_acl_access")
    except OSError:
        return None


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


def lease_holds(descriptor: int) -> bool:
    """Whether no program has tried to open the file for writing since `lease` returned True."""
    return fcntl.fcntl(descriptor, fcntl.F_GETLEASE) == fcntl.F_RDLCK


def has_multigrain_timestamps() -> bool:
    """Whether a change after a stat always gets later timestamps than the stat returned: since Linux 6.13."""
    if sys.platform != "linux":
        return False
    version = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return version is not None and (int(version[1]), int(version[2])) >= (6, 13)
