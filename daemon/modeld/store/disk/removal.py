"""Removal of files by descriptors: no step follows a link, whichever program made it and when."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Identity:
    """A file and its last change: only the file that was examined is removed."""

    device: int
    inode: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, info: os.stat_result) -> Identity:
        return cls(info.st_dev, info.st_ino, info.st_mtime_ns, info.st_ctime_ns)


@contextlib.contextmanager
def directory_below(root: str, parts: Sequence[str]) -> Iterator[int]:
    """A descriptor of `root/parts…`. The root may be reached by a link, which is the user's choice; nothing below."""
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            below = os.open(part, _DIRECTORY, dir_fd=here)
            here, above = below, here
            _close(above)
        yield here
    finally:
        _close(here)


def remove_file(root: str, parts: Sequence[str], expected: Identity) -> bool:
    """Removes the regular file `root/parts…` and its directory if that is empty then; False when it is another one
    now, or has changed."""
    with directory_below(root, parts[:-2]) as parent:
        try:
            directory = os.open(parts[-2], _DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            return False
        try:
            info = os.stat(parts[-1], dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISREG(info.st_mode) or Identity.of(info) != expected:
                return False
            os.unlink(parts[-1], dir_fd=directory)
        except FileNotFoundError:
            return False
        finally:
            _close(directory)
        with contextlib.suppress(OSError):  # other tools may keep something beside it
            os.rmdir(parts[-2], dir_fd=parent)
    return True


def remove_entry(root: str, parts: Sequence[str], expected: Identity) -> bool:
    """Removes the file, link or whole directory `root/parts…`; False when it is another one now, or has changed."""
    with directory_below(root, parts[:-1]) as parent:
        try:
            info = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if Identity.of(info) != expected:
            return False
        if stat.S_ISDIR(info.st_mode):
            _remove_tree(parent, parts[-1])
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(parts[-1], dir_fd=parent)
    return True


def _remove_tree(parent: int, name: str) -> None:
    """What disappears meanwhile was removed by another: a download that ends removes its own files."""
    with contextlib.suppress(FileNotFoundError):
        directory = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            for entry in os.listdir(directory):
                with contextlib.suppress(FileNotFoundError):
                    if stat.S_ISDIR(os.stat(entry, dir_fd=directory, follow_symlinks=False).st_mode):
                        _remove_tree(directory, entry)
                    else:
                        os.unlink(entry, dir_fd=directory)
        finally:
            _close(directory)
        os.rmdir(name, dir_fd=parent)


def _close(directory: int) -> None:
    """Ignores the error: the descriptor was only read."""
    with contextlib.suppress(OSError):
        os.close(directory)
