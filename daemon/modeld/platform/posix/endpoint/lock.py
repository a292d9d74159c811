"""The lock of an endpoint: a file beside it that describes its holder, locked until the daemon ends, never deleted."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from typing import Any, Final

from modeld.platform.posix import locks
from modeld.platform.posix.endpoint.directory import umask
from modeld.platform.posix.endpoint.faults import OTHER_PATH, AlreadyServing, UnusableEndpoint, explained, kind_of

HOLDER_BYTES: Final = 8192
"""One line of a pid, an instance and two paths of at most 4096 bytes, of which one fits a socket address."""


def take_lock(directory: int, path: str, holder: Mapping[str, str]) -> int:
    """A descriptor that holds the lock of the endpoint `path`. Raises AlreadyServing with what the lock file says."""
    name = f"{os.path.basename(path)}.lock"
    fd = _locked(directory, path, name)
    try:
        _check(path, fd, os.stat(name, dir_fd=directory, follow_symlinks=False))
        locks.write(fd, json.dumps({**holder, "pid": os.getpid(), "endpoint": path}).encode() + b"\n")
    except FileNotFoundError:
        os.close(fd)
        raise UnusableEndpoint(
            f"{path}.lock vanished while the daemon locked it", hint="Start the daemon again."
        ) from None
    except BaseException:  # also an interrupt: the caller gets no descriptor to release
        os.close(fd)
        raise
    return fd


def read_holder(content: bytes) -> dict[str, Any]:
    """What the holder wrote; empty while the file still describes an earlier holder that has ended."""
    try:
        holder = json.loads(content)
        if not isinstance(holder["pid"], int) or holder["pid"] <= 0:
            return {}
        with contextlib.suppress(PermissionError):  # it runs, as another user
            os.kill(holder["pid"], 0)
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return {}
    return dict(holder)


def _locked(directory: int, path: str, name: str) -> int:
    with explained(path), umask(0o077):
        try:
            return locks.take(name, mode=0o600, max_content=HOLDER_BYTES, directory=directory)
        except locks.Held as held:
            raise _already_serving(path, read_holder(held.content)) from None
        except locks.NotAFile:
            raise _no_lock_file(path, os.stat(name, dir_fd=directory, follow_symlinks=False)) from None


def _check(path: str, fd: int, named: os.stat_result) -> None:
    """Refuses a locked file that is not ours, or that the name no longer refers to."""
    info = os.fstat(fd)
    # Through a second link, writing the holder would overwrite another file of ours.
    if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid() or info.st_nlink > 1:
        raise _no_lock_file(path, info)
    if (info.st_dev, info.st_ino) != (named.st_dev, named.st_ino):
        raise UnusableEndpoint(f"{path}.lock was replaced while the daemon locked it", hint="Start the daemon again.")


def _no_lock_file(path: str, info: os.stat_result) -> UnusableEndpoint:
    what = kind_of(info)
    if stat.S_ISREG(info.st_mode):
        what = f"a file of uid {info.st_uid} with {info.st_nlink} link{'s' if info.st_nlink != 1 else ''}"
    return UnusableEndpoint(
        f"{path}.lock is {what}, not a lock file of this daemon's uid {os.geteuid()}",
        hint=f"Move it away, or {OTHER_PATH}.",
    )


def _already_serving(path: str, holder: Mapping[str, Any]) -> AlreadyServing:
    who = f"pid {holder['pid']}" if holder else "another process"
    store = f" for the store {holder['store']}" if holder.get("store") else ""
    return AlreadyServing(
        f"{path} is already served by {who}{store}",
        hint=f"Use that daemon, stop it with `modelctl stop`, or {OTHER_PATH}.",
        details=holder,
    )
