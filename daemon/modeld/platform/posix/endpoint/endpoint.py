"""Acquires, inherits, watches and releases the endpoint. The package's docstring says how and why."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import zlib
from collections.abc import Mapping
from typing import Final

from modeld.platform.posix import locks
from modeld.platform.posix.endpoint.directory import open_directory, umask
from modeld.platform.posix.endpoint.faults import (
    CHOOSE_ANOTHER,
    OTHER_PATH,
    AlreadyServing,
    UnusableEndpoint,
    explained,
    kind_of,
)
from modeld.platform.posix.endpoint.lock import take_lock
from modeld.platform.posix.files import private_directory
from modelwire.endpoint import PATH_LIMIT

BACKLOG: Final = 128
"""Connections that may wait to be accepted; further ones wait in `connect`. The kernel keeps their order, and whoever
connects and leaves without end fills this queue: with 1,024 everybody else waited 35 ms and more, with 128 a third."""

PRIVATE: Final = 0o600
SHARED: Final = 0o666
"""Connecting needs write permission on the socket. Once [access] names other users, every user can connect; at accept
the daemon identifies the user by the kernel's report, and refuses those without a role with a proper error."""

_Inode = tuple[int, int]


class Endpoint:
    """The listening socket and the ownership of its path. `socket` is non-blocking and listens already."""

    def __init__(
        self, path: str, listening: socket.socket, inode: _Inode | None, held: tuple[int, int] | None = None
    ) -> None:
        self.path = path
        self.socket = listening
        self.warnings: tuple[str, ...] = ()
        """Faults that do not keep the endpoint from working, for the operator."""
        self._inode = inode
        self._held = held  # the descriptors of directory and lock

    @classmethod
    def acquire(cls, path: str, *, shared: bool = False, holder: Mapping[str, str] | None = None) -> Endpoint:
        """Takes `path` and listens on it. Raises AlreadyServing, PermissionDenied or UnusableEndpoint, and never waits.

        `shared` lets other users connect. `holder` (instance, store, …) is written into the lock file, for the error
        of a daemon that finds it locked. The umask of the process changes during bind: call this before threads start.
        """
        path = os.path.abspath(path)
        parent, name = os.path.split(path)
        temporary = _temporary_name(name)
        _check_path(path, os.path.join(parent, temporary))
        with contextlib.ExitStack() as undo:
            directory = open_directory(parent, path, shared=shared)
            undo.callback(os.close, directory)
            lock = take_lock(directory, path, holder or {})
            undo.callback(locks.release, lock)
            _check_occupant(directory, path)
            _sweep_temporaries(directory, name)
            listening = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            undo.callback(_unlink_quietly, temporary, directory)
            with explained(path):
                inode = _listen(listening, directory, os.path.join(parent, temporary), SHARED if shared else PRIVATE)
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            undo.pop_all()
        endpoint = cls(path, listening, inode, (directory, lock))
        if shared and not os.fstat(directory).st_mode & stat.S_IXOTH:
            endpoint.warnings = (f"other users cannot enter {parent} (chmod 0755), although [access] names some",)
        elif shared and (private := private_directory(parent)) is not None:
            endpoint.warnings = (
                f"other users cannot reach {path}, although [access] names some: they cannot enter {private}"
                " (chmod 0711, or put the endpoint elsewhere with `socket`)",
            )
        return endpoint

    @classmethod
    def inherited(cls, fd: int) -> Endpoint:
        """Takes over a socket that the service manager listens on. Its path is never unlinked and not locked here: the
        service manager owns that path, and the store has a lock of its own."""
        try:
            listening = socket.socket(fileno=fd)
        except OSError as error:
            raise _not_inheritable(fd, error.strerror or str(error)) from error
        try:
            if listening.family != socket.AF_UNIX or listening.type != socket.SOCK_STREAM:
                raise _not_inheritable(fd, "it is not a Unix stream socket")
            if not listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise _not_inheritable(fd, "it does not listen")
            listening.setblocking(False)
            listening.set_inheritable(False)
            address = listening.getsockname()
        except BaseException:  # also on cancellation, the socket must not leak
            listening.close()
            raise
        path = address if isinstance(address, str) else ""  # bytes: an abstract address
        return cls(path, listening, _inode_at(path) if path else None)

    def still_ours(self) -> bool:
        """Whether the path still refers to this socket. If not, another program removed or replaced it, and no client
        can reach this daemon. The kernel gives the inode to no other file while the socket is open."""
        return self._inode is None or _inode_at(self.path) == self._inode

    def close(self) -> None:
        """Stops listening, and removes the path if it is still ours. May be called twice.

        The lock is released last, so that its next holder finds the path free. The lock file stays.
        """
        held, self._held = self._held, None
        if held is not None:
            directory, lock = held
            if self.still_ours():
                _unlink_quietly(os.path.basename(self.path), directory)
            self.socket.close()
            locks.release(lock)
            os.close(directory)
        self.socket.close()


def _inode_at(path: str) -> _Inode | None:
    try:
        info = os.lstat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _not_inheritable(fd: int, reason: str) -> UnusableEndpoint:
    return UnusableEndpoint(
        f"cannot listen on descriptor {fd} of the service manager: {reason}",
        hint="Give the socket unit ListenStream= with an absolute path, and Accept=no.",
    )


def _temporary_tag(name: str) -> str:
    """Temporary names of one endpoint share a tag, by which the holder of its lock recognises those left over.
    Four hex digits: each character is one less for the directory, and a collision only makes a start fail once."""
    return f".modeld-{zlib.crc32(os.fsencode(name)) & 0xFFFF:04x}"


def _temporary_name(name: str) -> str:
    return f"{_temporary_tag(name)}{os.urandom(2).hex()}"


def _check_path(path: str, temporary: str) -> None:
    if "\0" in path or not os.path.basename(path):
        raise UnusableEndpoint(f"{path!r} cannot be the path of a socket", hint=CHOOSE_ANOTHER)
    for each, what in ((path, "the endpoint"), (temporary, "the temporary name beside it")):
        size = len(os.fsencode(each))
        if size > PATH_LIMIT:
            raise UnusableEndpoint(
                f"{path}: {what} takes {size} bytes, and a socket's path has room for {PATH_LIMIT}",
                hint=CHOOSE_ANOTHER,
            )


def _check_occupant(directory: int, path: str) -> None:
    """Refuses to replace what is not ours. Called with the lock held, so no other modeld can be about to bind there."""
    try:
        info = os.stat(os.path.basename(path), dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(info.st_mode):
        raise UnusableEndpoint(f"{path} is {kind_of(info)}, not a socket", hint=f"Move it away, or {OTHER_PATH}.")
    if info.st_uid != os.geteuid():
        raise UnusableEndpoint(
            f"{path} is a socket of uid {info.st_uid}, not of this daemon's uid {os.geteuid()}",
            hint=f"Stop the program that listens there and remove the socket, or {OTHER_PATH}.",
        )
    if _is_live(path):
        raise AlreadyServing(
            f"{path} is already served by a process that does not hold its lock",
            hint=f"If it is a socket unit of the service manager, use or stop that unit; otherwise, {OTHER_PATH}.",
        )


def _is_live(path: str) -> bool:
    """Whether a program without our lock listens. The answer may be out of date at once, which is safe because it can
    only lead to a refusal; anything but a clear no counts as yes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


def _sweep_temporaries(directory: int, name: str) -> None:
    """Removes the sockets of daemons that were killed between bind and rename. Only the lock's holder creates these."""
    tag = _temporary_tag(name)
    for entry in os.listdir(directory):
        if entry.startswith(tag):
            with contextlib.suppress(OSError):
                info = os.stat(entry, dir_fd=directory, follow_symlinks=False)
                if stat.S_ISSOCK(info.st_mode) and info.st_uid == os.geteuid():
                    os.unlink(entry, dir_fd=directory)


def _listen(listening: socket.socket, directory: int, temporary: str, mode: int) -> _Inode:
    """Binds and listens at `temporary`, in the checked directory. The rename keeps the inode."""
    listening.setblocking(False)
    with umask(0o777 & ~mode):  # not chmod: between bind and chmod every user could connect
        listening.bind(temporary)
    # bind takes a path: if the directory was replaced since it was checked, the name is not in it.
    info = os.stat(os.path.basename(temporary), dir_fd=directory, follow_symlinks=False)
    listening.listen(BACKLOG)
    return info.st_dev, info.st_ino


def _unlink_quietly(name: str, directory: int) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=directory)
