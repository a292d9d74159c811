"""Opens and removes the sources of an add, with the rights of the requesting user.

A file is opened by the path in the request, and links are followed as the kernel does. Files in an added directory are
opened from that directory's descriptor and never through a link: the listed file is the file that is read.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection
from dataclasses import replace
from typing import Final

from modeld.platform import files
from modeld.store.digest import Signature
from modeld.store.disk.durable import source_faults
from modeld.store.ingest import sources
from modelwire.errors import InvalidRequest, PermissionDenied, WireError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_WRITE: Final = 2


class Reader:
    """The daemon's own rights: for its own user and for root. Its methods block; `where` is for messages only."""

    def __init__(self, uid: int | None = None) -> None:
        self.uid = os.geteuid() if uid is None else uid
        """The user on whose behalf it reads."""

    def open(self, path: str) -> int:
        """A descriptor of a regular file."""
        return sources.open_source(path)

    def open_directory(self, path: str) -> int | None:
        """A descriptor of a directory; None when the path leads to something else."""
        sources.check_spelling(path)
        with source_faults(path):
            if not stat.S_ISDIR(os.stat(path).st_mode):
                return None
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def enter(self, directory: int, name: str, where: str) -> int:
        """A descriptor of a directory in a directory."""
        with source_faults(where):
            return os.open(name, _DIRECTORY, dir_fd=directory)

    def open_in(self, directory: int, name: str, where: str) -> int:
        """A descriptor of a regular file in a directory."""
        with source_faults(where):
            sources.check_regular(where, os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
            descriptor = os.open(name, _FILE, dir_fd=directory)
            try:
                sources.check_regular(where, os.fstat(descriptor).st_mode)
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor

    def check_removable(self, path: str) -> None:
        """PermissionDenied when the name cannot be removed."""
        os.close(self._parent(path))

    def remove(self, path: str, signature: Signature) -> None:
        """Removes the name of a file that is in the store now, unless it names another file by now, or the file was
        written to."""
        parent, name = self._parent(path), os.path.basename(path)
        try:
            with source_faults(path), contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                # The time of its last change differs by our own doing: the file was linked and made read-only.
                if Signature.of(status) == replace(signature, ctime_ns=status.st_ctime_ns):
                    os.unlink(name, dir_fd=parent)
        finally:
            os.close(parent)

    def remove_empty(self, path: str) -> None:
        """Removes a directory if it is empty; otherwise does nothing."""
        with contextlib.suppress(OSError, WireError):
            parent = self._parent(path)
            try:
                os.rmdir(os.path.basename(path), dir_fd=parent)
            finally:
                os.close(parent)

    def _parent(self, path: str) -> int:
        """A descriptor of the directory that the name may be taken from."""
        directory = os.path.dirname(path)
        with source_faults(path):
            if not os.access(directory, os.W_OK | os.X_OK):
                raise _may_not_remove(path, self.uid)
            return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


class PeerReader(Reader):
    """The rights of another user, by the rules of the kernel as far as they are known: see `sources`."""

    def __init__(self, uid: int, gids: Collection[int]) -> None:
        super().__init__(uid)
        self._gids = gids

    def open(self, path: str) -> int:
        return sources.open_source_as(path, self.uid, self._gids)

    def open_directory(self, path: str) -> int | None:
        sources.check_spelling(path)
        with source_faults(path):
            found = sources.walk(path, self.uid, self._gids)
            try:
                if not stat.S_ISDIR(os.fstat(found).st_mode):
                    return None
                self._check_listable(found, path)
                return files.reopen(found, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            finally:
                os.close(found)

    def enter(self, directory: int, name: str, where: str) -> int:
        inner = super().enter(directory, name, where)
        try:
            with source_faults(where):
                self._check_listable(inner, where)
        except BaseException:
            os.close(inner)
            raise
        return inner

    def open_in(self, directory: int, name: str, where: str) -> int:
        with source_faults(where):
            found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                sources.check_regular(where, os.fstat(found).st_mode)
                sources.check_right(found, where, where, self.uid, self._gids, sources.READ)
                return files.reopen(found, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
            finally:
                os.close(found)

    def _parent(self, path: str) -> int:
        with source_faults(path):
            parent = sources.walk(os.path.dirname(path), self.uid, self._gids)
            try:
                directory = os.fstat(parent)
                status = os.stat(os.path.basename(path), dir_fd=parent, follow_symlinks=False)
                sticky = directory.st_mode & stat.S_ISVTX and self.uid not in (0, directory.st_uid, status.st_uid)
                rights = (
                    sources.allows(parent, directory, self.uid, self._gids, right) for right in (_WRITE, sources.SEARCH)
                )
                if sticky or not all(rights):
                    raise _may_not_remove(path, self.uid)
            except BaseException:
                os.close(parent)
                raise
            return parent

    def _check_listable(self, descriptor: int, where: str) -> None:
        for right in (sources.READ, sources.SEARCH):
            sources.check_right(descriptor, where, where, self.uid, self._gids, right)


def refuse_link_as_source(path: str) -> None:
    """Refuses a link: to move it would remove the link and leave the file."""
    with source_faults(path):
        if stat.S_ISLNK(os.lstat(path).st_mode):
            raise InvalidRequest(
                f"{path} is a symbolic link, so it cannot be moved into the store",
                hint="Move the file that it points to, or add it without --move.",
                details={"path": path},
            )


def _may_not_remove(path: str, uid: int) -> PermissionDenied:
    return PermissionDenied(
        f"{path} cannot be moved: user {uid} may not remove it from its directory",
        hint="Ask for the right to write to that directory, or add it without --move.",
        details={"path": path, "uid": uid},
    )
