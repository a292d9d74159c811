"""Opens and removes the files of an add, with no more rights than the requesting user has.

The daemon may read files that its peers may not, and a peer that adds a file can then read it from the store. So for a
peer each path is walked with the peer's rights, one descriptor after the other, and the file that was checked is the
file that is read. Files in an added directory are opened from that directory's descriptor and never through a link.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Collection, Iterator
from typing import Final

from modeld.platform import files
from modeld.store.digest import Signature
from modeld.store.disk.durable import source_faults
from modelwire.errors import InvalidRequest, PermissionDenied, Unsupported, WireError

MAX_LINKS: Final = 40
"""As many symbolic links as the kernel follows in one path."""

_READ, _WRITE, _SEARCH = 4, 2, 1
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
    """The daemon's own rights: for its own user and for root. Its methods block.

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


def _has_writer(name: str, parent: int) -> bool | None:
    with files.closing(os.open(name, _FILE | os.O_NOFOLLOW, dir_fd=parent)) as descriptor:
        return files.has_writer(descriptor)


class PeerReader(Reader):
    """The rights of another user.

    It checks mode bits and POSIX access lists. Rights that only the kernel knows (a network filesystem's own, a
    security module's) are not checked: there the peer is refused only where the daemon is.
    """

    def __init__(self, uid: int, gids: Collection[int]) -> None:
        super().__init__(uid)
        self._gids = gids

    def open(self, path: str, directory: int | None = None) -> int:
        with self._found(path, directory) as found:
            check_regular(path, os.fstat(found).st_mode)
            self._check_right(found, path, _READ)
            return files.reopen(found, _FILE)

    def open_directory(self, path: str) -> int | None:
        with self._found(path) as found:
            if not stat.S_ISDIR(os.fstat(found).st_mode):
                return None
            self._check_right(found, path, _READ, _SEARCH)
            return files.reopen(found, _DIRECTORY)

    def enter(self, path: str, directory: int) -> int:
        with self._found(path, directory) as found:
            self._check_right(found, path, _READ, _SEARCH)
            return files.reopen(found, _DIRECTORY)

    @contextlib.contextmanager
    def _found(self, path: str, directory: int | None = None) -> Iterator[int]:
        """An O_PATH descriptor. What is checked on it is what `reopen` opens: it is of that very inode."""
        with source_faults(path):
            if directory is None:
                found = self._walk(path)
            else:
                found = os.open(os.path.basename(path), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            with files.closing(found):
                yield found

    @contextlib.contextmanager
    def _parent(self, path: str) -> Iterator[int]:
        with source_faults(path), files.closing(self._walk(os.path.dirname(path))) as parent:
            directory = os.fstat(parent)
            status = os.stat(os.path.basename(path), dir_fd=parent, follow_symlinks=False)
            sticky = directory.st_mode & stat.S_ISVTX and self.uid not in (directory.st_uid, status.st_uid)
            if sticky or not all(self._may(parent, right) for right in (_WRITE, _SEARCH)):
                raise _may_not_remove(path, self.uid)
            yield parent

    def _walk(self, path: str) -> int:
        """An O_PATH descriptor of what the path leads to; every step is taken in the directory held open."""
        check_spelling(path)
        if not files.REOPENS:
            raise Unsupported(
                "a file can be added only by the daemon's own user on this platform",
                hint="Copy the file into the store's machine as the daemon's user.",
            )
        pending = _components(path)
        here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        walked = "/"
        links = 0
        try:
            while pending:
                part = pending.pop()
                self._check_right(here, path, _SEARCH, where=walked)
                step = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
                try:
                    mode = os.fstat(step).st_mode
                    if stat.S_ISLNK(mode):
                        links += 1
                        if links > MAX_LINKS:
                            raise InvalidRequest(f"{path} leads through more than {MAX_LINKS} symbolic links")
                        pending.extend(_components(os.readlink("", dir_fd=step)))
                        continue
                    if pending and not stat.S_ISDIR(mode):
                        raise NotADirectoryError(20, f"{part} is {kind_of(mode)}, not a directory")
                    here, step = step, here
                    walked = os.path.join(walked, part)
                finally:
                    os.close(step)
        except BaseException:
            os.close(here)
            raise
        return here

    def _check_right(self, descriptor: int, path: str, *rights: int, where: str = "") -> None:
        for right in rights:
            if not self._may(descriptor, right):
                what = f"search the directory {where or path}" if right == _SEARCH else "read it"
                raise PermissionDenied(
                    f"{path} cannot be added: user {self.uid} may not {what}",
                    hint="Ask its owner for the right to read it, or add it as a user with that right.",
                    details={"path": path, "uid": self.uid},
                )

    def _may(self, descriptor: int, right: int) -> bool:
        """The kernel's rule: the first class that fits decides, even when a later one would allow."""
        status = os.fstat(descriptor)
        if status.st_uid == self.uid:
            return bool(status.st_mode >> 6 & right)
        access_list = files.access_list(descriptor)
        if access_list is not None:
            return list_allows(access_list, status.st_gid, self.uid, self._gids, right)
        return bool(status.st_mode >> (3 if status.st_gid in self._gids else 0) & right)


_USER, _GROUP_OWNER, _GROUP, _MASK, _OTHER = 0x02, 0x04, 0x08, 0x10, 0x20
_ENTRY = struct.Struct("<HHI")


def list_allows(access_list: bytes, owner_group: int, uid: int, gids: Collection[int], right: int) -> bool:
    """The rule of an access list, for a user who is not the owner. With a list, the mode's group bits are only its
    mask. A list that cannot be read allows nothing."""
    entries: list[tuple[int, int, int]] = []
    with contextlib.suppress(struct.error):
        entries += _ENTRY.iter_unpack(access_list[4:])
    mask = next((rights for tag, rights, _id in entries if tag == _MASK), 7)
    for tag, rights, identity in entries:
        if tag == _USER and identity == uid:
            return bool(rights & mask & right)
    groups = [
        rights
        for tag, rights, identity in entries
        if (tag == _GROUP_OWNER and owner_group in gids) or (tag == _GROUP and identity in gids)
    ]
    if groups:
        return any(rights & mask & right for rights in groups)
    return any(rights & right for tag, rights, _id in entries if tag == _OTHER)


def _components(path: str) -> list[str]:
    """The steps, last one first. An absolute path begins with a step to "/", wherever the walk is by then; a trailing
    slash asks for a directory, as it does of the kernel."""
    parts = ["/"] if path.startswith("/") else []
    parts += (part for part in path.split("/") if part and part != ".")
    if path.endswith(("/", "/.")):
        parts.append(".")
    return parts[::-1]


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
