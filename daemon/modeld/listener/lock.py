"""The lock of an endpoint: a file beside it, held for life, never deleted, with its holder's name inside."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Mapping
from typing import Any, Final

from modeld.listener.directory import umask
from modeld.listener.faults import OTHER_PATH, AlreadyServing, UnusableEndpoint, explained, kind_of

HOLDER_BYTES: Final = 8192
"""One line of a pid, an instance and two paths of at most 4096 bytes, of which one fits a socket address."""

# O_NONBLOCK: a FIFO in the lock's place is refused by its type instead of being waited for.
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def take_lock(directory: int, path: str, holder: Mapping[str, str]) -> int:
    """A descriptor that holds the lock of the endpoint `path`, or AlreadyServing with what its holder wrote."""
    name = f"{os.path.basename(path)}.lock"
    fd = _open(directory, path, name)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _already_serving(path, read_holder(fd)) from None
        _check(path, fd, os.stat(name, dir_fd=directory, follow_symlinks=False))
        os.ftruncate(fd, 0)
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same, only without a name
            os.pwrite(fd, json.dumps({**holder, "pid": os.getpid(), "endpoint": path}).encode() + b"\n", 0)
    except FileNotFoundError:
        os.close(fd)
        raise UnusableEndpoint(f"{path}.lock vanished while it was taken", hint="start again") from None
    except BaseException:  # whatever stops it, a lock that nobody knows of is not kept
        os.close(fd)
        raise
    return fd


def release_lock(fd: int) -> None:
    """Give the lock back. The file stays, without a name: a deleted lock file lets two processes hold "the" lock."""
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
    os.close(fd)


def read_holder(fd: int) -> dict[str, Any]:
    """What the holder wrote; empty while it is only about to, when what stands there is from a dead one."""
    try:
        holder = json.loads(os.pread(fd, HOLDER_BYTES, 0))
        if not isinstance(holder["pid"], int) or holder["pid"] <= 0:
            return {}
        with contextlib.suppress(PermissionError):  # it lives, under another user
            os.kill(holder["pid"], 0)
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return {}
    return dict(holder)


def _open(directory: int, path: str, name: str) -> int:
    with explained(path):
        try:
            with umask(0o077):
                return os.open(name, _FLAGS, 0o600, dir_fd=directory)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise _no_lock_file(path, os.stat(name, dir_fd=directory, follow_symlinks=False)) from None
            raise


def _check(path: str, fd: int, named: os.stat_result) -> None:
    """Whether what was opened and locked is a file of ours, and still the one that the name leads to."""
    info = os.fstat(fd)
    # A second link would have us overwrite another file of ours under the name of a lock.
    if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid() or info.st_nlink > 1:
        raise _no_lock_file(path, info)
    if (info.st_dev, info.st_ino) != (named.st_dev, named.st_ino):
        raise UnusableEndpoint(f"{path}.lock was exchanged while it was taken", hint="start again")


def _no_lock_file(path: str, info: os.stat_result) -> UnusableEndpoint:
    what = kind_of(info)
    if stat.S_ISREG(info.st_mode):
        what = f"a file of uid {info.st_uid} with {info.st_nlink} link{'s' if info.st_nlink != 1 else ''}"
    return UnusableEndpoint(
        f"{path}.lock is {what}, not a lock file of this daemon's uid {os.geteuid()}",
        hint=f"move it away, or {OTHER_PATH}",
    )


def _already_serving(path: str, holder: Mapping[str, Any]) -> AlreadyServing:
    who = f"pid {holder['pid']}" if holder else "another process"
    store = f" for the store {holder['store']}" if holder.get("store") else ""
    return AlreadyServing(
        f"{path} is already served by {who}{store}",
        hint=f"use that daemon, stop it with `modelctl stop`, or {OTHER_PATH}",
        details=holder,
    )
