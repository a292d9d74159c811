"""Opens and removes the files of an add.

The daemon may read files that its peers may not, and a peer that adds a file can then read it from the store. So it
opens paths for its own user and for root alone; other users hand over what they have opened themselves. Files in an
added directory are opened from that directory's descriptor and never through a link.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from modeld.access.handed import HandedFiles
from modeld.platform import files
from modeld.store.digest import Signature
from modeld.store.disk.durable import source_faults
from modelwire.errors import InvalidRequest, PermissionDenied, WireError

_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISCHR, "a character device"),
)


class Reader:
    """Opens paths with the daemon's own rights: for its own user and for root. Its methods block.

    With `directory`, an open directory, a path is that of an entry in it, which is opened by its name there.
    """

    def __init__(self, uid: int | None = None) -> None:
        self.uid = os.geteuid() if uid is None else uid
        """The user on whose behalf it reads."""

    def open(self, path: str, directory: int | None = None) -> int:
        """A descriptor of a regular file."""
        check_spelling(path)
        name, no_link = (path, 0) if directory is None else (os.path.basename(path), os.O_NOFOLLOW)
        with source_faults(path):
            # Checked before the open: opening a device or a pipe has an effect on it.
            check_regular(path, os.stat(name, dir_fd=directory, follow_symlinks=not no_link).st_mode)
            descriptor = os.open(name, _FILE | no_link, dir_fd=directory)
            try:
                check_regular(path, os.fstat(descriptor).st_mode)
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor

    def open_directory(self, path: str) -> int | None:
        """A descriptor of a directory; None when the path leads to something else."""
        check_spelling(path)
        with source_faults(path):
            return os.open(path, _DIRECTORY) if stat.S_ISDIR(os.stat(path).st_mode) else None

    def enter(self, path: str, directory: int) -> int:
        """A descriptor of a directory in a directory."""
        with source_faults(path):
            return os.open(os.path.basename(path), _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)

    def has_writer(self, descriptor: int) -> bool | None:
        """As `files.has_writer`, of a descriptor that this reader has opened."""
        return files.has_writer(descriptor)

    def check_removable(self, path: str) -> None:
        """Raises when the name cannot be removed, or is a link: then the file would stay."""
        with source_faults(path):
            if stat.S_ISLNK(os.lstat(path).st_mode):
                raise InvalidRequest(
                    f"{path} is a symbolic link, so it cannot be moved into the store",
                    hint="Move the file that it points to, or add it without --move.",
                    details={"path": path},
                )
        with self._parent(path):
            pass  # it has looked at the rights

    def remove(self, path: str, signature: Signature) -> None:
        """Removes the name of a file that is in the store now, unless it names another file by now, the file was
        written to, or a program can write to it."""
        name = os.path.basename(path)
        with self._parent(path) as parent, contextlib.suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            # The store has linked the file and made it read-only.
            if signature.only_links_changed(Signature.of(status)) and not _has_writer(name, parent):
                os.unlink(name, dir_fd=parent)

    def remove_empty(self, path: str) -> None:
        """Removes a directory if it is empty; otherwise does nothing."""
        with contextlib.suppress(OSError, WireError), self._parent(path) as parent:
            os.rmdir(os.path.basename(path), dir_fd=parent)

    @contextlib.contextmanager
    def _parent(self, path: str) -> Iterator[int]:
        """A descriptor of the directory that the name may be taken from."""
        directory = os.path.dirname(path)
        with source_faults(path):
            if not os.access(directory, os.W_OK | os.X_OK):
                raise _may_not_remove(path, self.uid)
            with files.closing(os.open(directory, _DIRECTORY)) as parent:
                yield parent


class HandedReader(Reader):
    """Another user's files, or those of other mounts: open already, by their paths below `root`.

    Only reads at an offset. What else a process may set on an open file (its position, its flags, a lease and the
    signal that reports it) it shares with the client that has opened it, who could use that against the daemon.
    """

    def __init__(self, root: str, handed: HandedFiles) -> None:
        super().__init__(handed.uid)
        self.handed = handed
        self.root = root

    def where(self, name: str) -> str:
        """The path of a file that was handed over, for messages and events."""
        return f"{self.root}/{name}"

    def open(self, path: str, directory: int | None = None) -> int:  # noqa: ARG002 - it opens no path
        with source_faults(path):
            descriptor = self.handed.open(path.removeprefix(f"{self.root}/"))
            try:
                check_handed(path, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor

    def has_writer(self, descriptor: int) -> bool | None:  # noqa: ARG002 - it asks nothing of it
        """Not known. Who takes a lease to find out becomes the target of a signal that the client can choose."""
        return None


def check_handed(path: str, descriptor: int) -> None:
    """Refuses what was not opened to be read, and what is no regular file."""
    with source_faults(path):
        check_regular(path, os.fstat(descriptor).st_mode)
        if not files.is_readable(descriptor):
            raise InvalidRequest(
                f"{path} was handed over by a descriptor that cannot be read",
                hint="Open the file for reading.",
                details={"path": path},
            )


def check_answers(path: str, descriptor: int) -> None:
    """As `check_handed`, for another user's file, and refuses one that a program of that user serves: a thread would
    wait for ever for a program that never answers. Waits for such a program itself."""
    with source_faults(path):
        served = files.served_by_program(descriptor)
    if served:
        raise InvalidRequest(
            f"{path} lies on a filesystem that a program serves (FUSE), and cannot be read for another user",
            hint="Copy it to a disk of this machine first.",
            details={"path": path},
        )
    check_handed(path, descriptor)


def _has_writer(name: str, parent: int) -> bool | None:
    with files.closing(os.open(name, _FILE | os.O_NOFOLLOW, dir_fd=parent)) as descriptor:
        return files.has_writer(descriptor)


def check_spelling(path: str) -> None:
    if "\0" in path:
        raise InvalidRequest(f"the path {path[:200]!r} contains a NUL character")
    if not path.startswith("/"):
        raise InvalidRequest(
            f"the path {path[:200]!r} is not absolute",
            hint="The daemon does not know the working directory of its clients: send the absolute path.",
        )


def check_regular(path: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise InvalidRequest(f"{path} is {kind_of(mode)}, not a regular file", details={"path": path})


def kind_of(mode: int) -> str:
    return next((kind for test, kind in _KINDS if test(mode)), "a special file")


def _may_not_remove(path: str, uid: int) -> PermissionDenied:
    return PermissionDenied(
        f"{path} cannot be moved: user {uid} may not remove it from its directory",
        hint="Ask for the right to write to that directory, or add it without --move.",
        details={"path": path, "uid": uid},
    )
