"""What can be asked of a file that is open, whatever its name leads to by now. All raise OSError."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import sys
from typing import Final

REOPENS: Final = sys.platform == "linux"
"""Whether `reopen` works: without it, no file can be looked at with the rights of another user and then read."""


def reopen(descriptor: int, flags: int) -> int:
    """Another descriptor of the very file, also of one that is open only for looking at it (O_PATH)."""
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
    """A second name for the very file that is open; `path` is how it was opened, for systems without /proc.

    Both directory descriptors are given because the call refuses /proc as another filesystem without them.
    """
    if sys.platform != "linux":
        os.link(path, name)
        return
    directory = os.open(os.path.dirname(name), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(
            f"/proc/self/fd/{descriptor}",
            os.path.basename(name),
            src_dir_fd=directory,
            dst_dir_fd=directory,
            follow_symlinks=True,
        )
    finally:
        os.close(directory)


def is_open_for_writing(descriptor: int) -> bool:
    """Whether any program has this file open for writing; False also where the system does not tell."""
    if sys.platform != "linux":
        return False
    try:
        # Whoever opens the file in the moment of the lease must not make the kernel end this process by SIGIO.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def times_tell_every_change() -> bool:
    """Since Linux 6.13 a change after a look at the times always has later times."""
    if sys.platform != "linux":
        return False
    version = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return version is not None and (int(version[1]), int(version[2])) >= (6, 13)
