"""The directory of the endpoint: opened once, and checked and used through that descriptor."""

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
    """Sets the process's umask for a moment. All threads share it, so call this before they start."""
    previous = os.umask(mask)
    try:
        yield
    finally:
        os.umask(previous)


def open_directory(path: str, endpoint: str, *, shared: bool) -> int:
    """A descriptor of the directory, created when it is missing (not its parents), and checked to be safe.

    Its parents are not checked: a user who can replace the directory from there can only put one of their own in its
    place, and clients refuse a directory that is neither theirs nor root's.
    """
    with explained(endpoint), contextlib.suppress(FileExistsError), umask(0o022 if shared else 0o077):
        os.mkdir(path, 0o755 if shared else 0o700)
    with explained(endpoint):
        try:
            fd = os.open(path, _FLAGS)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                reason = unsafe_directory(os.lstat(path), os.geteuid()) or "it was replaced while the daemon opened it"
                raise _unsafe(path, reason) from None
            raise
    info = os.fstat(fd)
    # Root's directories are as safe as our own: the system refuses root nothing anyway.
    reason_against = unsafe_directory(info, os.geteuid(), trusted_uids=(0,))
    if reason_against:
        os.close(fd)
        raise _unsafe(path, reason_against)
    if info.st_uid == os.geteuid() and not info.st_mode & stat.S_ISVTX:
        # systemd-tmpfiles skips a locked directory; otherwise its clean-up of /tmp would delete the lock file.
        locks.share(fd)
    return fd


def _unsafe(path: str, reason: str) -> PermissionDenied:
    return PermissionDenied(
        f"{path} cannot hold the endpoint: {reason}",
        hint="Use a directory of the daemon's own user that no other user can write to (chmod 0700).",
    )
