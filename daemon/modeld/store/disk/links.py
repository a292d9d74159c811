"""The system calls for second names of files: hard links, symbolic ones, and who has a file open.

They raise OSError, as those of `durable` do.
"""

from __future__ import annotations

import errno
import os
import signal
import sys


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


def link_or_symlink(target: str, name: str, *, hard: bool, final: str) -> bool:
    """A name in a tree for a blob; True when it is a hard link. A symbolic one is relative, because stores may move:
    to where the name will be in the end."""
    if hard:
        try:
            os.link(target, name, follow_symlinks=False)
            return True
        except OSError as error:
            # No links on this filesystem, no more links for this file, or a file of somebody else.
            if error.errno not in (
                errno.EPERM,
                errno.EMLINK,
                errno.EOPNOTSUPP,
                errno.ENOTSUP,
                errno.ENOSYS,
                errno.EXDEV,
            ):
                raise
    os.symlink(os.path.relpath(target, os.path.dirname(final)), name)
    return False


def is_open_for_writing(descriptor: int) -> bool:
    """Whether any program has this file open for writing; False also where the system does not tell."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        # Whoever opens the file in the moment of the lease must not make the kernel end this process by SIGIO.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
