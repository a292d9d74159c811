"""Small files that last, on Linux and macOS."""

from __future__ import annotations

import errno
import fcntl
import os
import sys

_NO_SUCH_SYNC = (errno.EINVAL, errno.ENOTSUP)
"""Some network and FUSE filesystems answer so when a directory is synced. They cannot do more."""


def sync_file(descriptor: int) -> None:
    if sys.platform == "darwin":
        # fsync of macOS stops at the drive's cache. Only a filesystem that lacks the stronger call gets the weaker one.
        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENOTTY, errno.EINVAL):
                raise
    os.fsync(descriptor)


def sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_file(descriptor)
    except OSError as error:
        if error.errno not in _NO_SUCH_SYNC:
            raise
    finally:
        os.close(descriptor)


def is_trusted(status: os.stat_result) -> bool:
    return status.st_uid in (0, os.geteuid())
