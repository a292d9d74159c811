"""Opens the file of an add with no more rights than the requesting peer has.

The daemon may read files that its peers may not. A peer that adds a file and then reads it from the store must not read
more than before: so the path is walked with the peer's rights, one descriptor after the other, and the file that was
checked is the file that is read.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Collection

from modeld.platform import files
from modeld.store.disk.durable import source_faults
from modelwire.errors import InvalidRequest, PermissionDenied, Unsupported

MAX_LINKS = 40
"""As many symbolic links as the kernel follows in one path."""

READ, SEARCH = 4, 1
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISCHR, "a character device"),
)


def open_source(path: str) -> int:
    """A descriptor of a regular file, with the daemon's own rights."""
    check_spelling(path)
    with source_faults(path):
        # Checked before the open: opening a device or a pipe has an effect on it.
        check_regular(path, os.stat(path).st_mode)
        descriptor = os.open(path, _OPEN)
        try:
            check_regular(path, os.fstat(descriptor).st_mode)
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor


def open_source_as(path: str, uid: int, gids: Collection[int]) -> int:
    """The same with the rights of a peer: search on every directory, read on the file.

    It checks mode bits and POSIX access lists. Rights that only the kernel knows (a network
    filesystem's own, a security module's) are not checked: there the peer is refused only where the daemon is.
    """
    check_spelling(path)
    if not files.REOPENS:
        raise Unsupported(
            "a file can be added only by the daemon's own user on this platform",
            hint="Copy the file into the store's machine as the daemon's user.",
        )
    with source_faults(path):
        found = walk(path, uid, gids)
        try:
            check_regular(path, os.fstat(found).st_mode)
            check_right(found, path, path, uid, gids, READ)
            # The descriptor is of this very inode; opening it anew gives the right to read.
            return files.reopen(found, _OPEN)
        finally:
            os.close(found)


def walk(path: str, uid: int, gids: Collection[int]) -> int:
    """An O_PATH descriptor of what the path leads to; every step is taken in the directory held open."""
    pending = _components(path)
    here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    walked = "/"
    links = 0
    try:
        while pending:
            part = pending.pop()
            check_right(here, path, walked, uid, gids, SEARCH)
            step = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            try:
                mode = os.fstat(step).st_mode
                if stat.S_ISLNK(mode):
                    links += 1
                    if links > MAX_LINKS:
                        raise InvalidRequest(f"{path} leads through more than {MAX_LINKS} symbolic links")
                    target = os.readlink("", dir_fd=step)
                    pending.extend(_components(target))
                    if target.startswith("/"):
                        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                        os.close(here)
                        here, walked = root, "/"
                    continue
                if pending and not stat.S_ISDIR(mode):
                    raise NotADirectoryError(20, f"{part} is {_kind(mode)}, not a directory")
                here, step = step, here
                walked = os.path.join(walked, part)
            finally:
                os.close(step)
    except BaseException:
        os.close(here)
        raise
    return here


def _components(path: str) -> list[str]:
    """The steps, last one first; a trailing slash asks for a directory, as it does of the kernel."""
    parts = [part for part in path.split("/") if part and part != "."]
    if path.endswith(("/", "/.")):
        parts.append(".")
    return parts[::-1]


def check_right(descriptor: int, path: str, where: str, uid: int, gids: Collection[int], right: int) -> None:
    if allows(descriptor, os.fstat(descriptor), uid, gids, right):
        return
    what = f"search the directory {where}" if right == SEARCH else "read it"
    raise PermissionDenied(
        f"{path} cannot be added: user {uid} may not {what}",
        hint="Ask its owner for the right to read it, or add it as a user with that right.",
        details={"path": path, "uid": uid},
    )


def allows(descriptor: int, status: os.stat_result, uid: int, gids: Collection[int], right: int) -> bool:
    """The kernel's rule: the first class that fits decides, even when a later one would allow."""
    if uid == 0:
        return True
    if status.st_uid == uid:
        return bool(status.st_mode >> 6 & right)
    access_list = _access_list(descriptor)
    if access_list is not None:
        return _list_allows(access_list, status.st_gid, uid, gids, right)
    if status.st_gid in gids:
        return bool(status.st_mode >> 3 & right)
    return bool(status.st_mode & right)


_USER, _GROUP_OWNER, _GROUP, _MASK, _OTHER = 0x02, 0x04, 0x08, 0x10, 0x20
_ENTRY = struct.Struct("<HHI")


def _access_list(descriptor: int) -> list[tuple[int, int, int]] | None:
    """(tag, rights, id) of each entry. With a list, the mode's group bits are only the list's mask."""
    raw = files.access_list(descriptor)
    if raw is None:
        return None
    with contextlib.suppress(struct.error):
        return list(_ENTRY.iter_unpack(raw[4:]))
    return []


def _list_allows(
    entries: list[tuple[int, int, int]], owner_group: int, uid: int, gids: Collection[int], right: int
) -> bool:
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
        raise InvalidRequest(f"{path} is {_kind(mode)}, not a regular file", details={"path": path})


def _kind(mode: int) -> str:
    return next((kind for test, kind in _KINDS if test(mode)), "a special file")
