"""The directory of the endpoint: opened once, checked on the descriptor, and used through it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from modeld.platform.posix import locks
from modeld.platform.posix.endpoint.faults import explained
from modelwire.endpoint import unsafe_directory
from modelwire.errors import PermissionDenied

_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    """The process's umask for a moment. It is shared by all threads, so this belongs before they start."""
    previous = os.umask(mask)
    try:
        yield
    finally:
        os.umask(previous)


def open_directory(path: str, endpoint: str, *, shared: bool) -> int:
    """A descriptor of the directory, made when it is missing (not its parents), and proven safe.

    What lies above it is not checked: whoever could exchange the directory from there would put one of their own in
    its place, and clients refuse a directory that is neither theirs nor root's.
    """
    with explained(endpoint), contextlib.suppress(FileExistsError), umask(0o022 if shared else 0o077):
        os.mkdir(path, 0o755 if shared else 0o700)
    with explained(endpoint):
        try:
            fd = os.open(path, _FLAGS)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                reason = unsafe_directory(os.lstat(path), os.geteuid()) or "it was exchanged while it was opened"
                raise _unsafe(path, reason) from None
            raise
    info = os.fstat(fd)
    # Root's directories are as safe as our own: whoever is root can do as it likes anyway.
    reason_against = unsafe_directory(info, os.geteuid(), trusted_uids=(0,))
    if reason_against:
        os.close(fd)
        raise _unsafe(path, reason_against)
    if info.st_uid == os.geteuid() and not info.st_mode & stat.S_ISVTX:
        # systemd-tmpfiles passes over a locked directory; its clean-up of /tmp would take the lock file otherwise.
        locks.share(fd)
    return fd


def _unsafe(path: str, reason: str) -> PermissionDenied:
    return PermissionDenied(
        f"{path} cannot hold the endpoint: {reason}",
        hint="use a directory of the daemon's own user that only it can write to (chmod 0700)",
    )
