"""The one walk over the blob tree: usage, the store's limit and a sweep take what lies there from here.

It goes down by descriptors, so no step below the tree's top leads through a link, also not through one that is put
there meanwhile. It lists one fan-out directory at a time, a 256th of the store, and asks there whether it is wanted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from typing import NamedTuple

from modeld.store.disk.layout import Layout
from modeld.store.observer import Observer, Unwatched, check

_BELOW = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH = _BELOW | getattr(os, "O_PATH", os.O_RDONLY)

_FANOUT = re.compile(r"[0-9a-f]{2}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PARTIAL = re.compile(r"\.partial-([0-9a-f]{64})")


class BlobFile(NamedTuple):
    digest: str
    """In hex, by its name: whether the bytes are what it says is for a verification to find."""
    info: os.stat_result

    @property
    def parts(self) -> tuple[str, ...]:
        """Its path below the root."""
        return "blobs", "sha256", self.digest[:2], self.digest, "data"


class Partial(NamedTuple):
    """The directory of a download that is not complete."""

    parts: tuple[str, ...]
    digest: str | None
    """In hex; None when no source has said what the bytes are to be."""
    info: os.stat_result
    size: int
    """Of all files in it."""
    newest: float
    """When the last of them was written, in seconds since the epoch."""


class Stray(NamedTuple):
    """Nothing that the store makes: it belongs to another program."""

    parts: tuple[str, ...]


class Unusable(NamedTuple):
    """What has the name of a blob or of a directory of them, and cannot be looked at or is something else."""

    parts: tuple[str, ...]
    reason: str


Found = BlobFile | Partial | Stray | Unusable


def walk(layout: Layout, observer: Observer | None = None) -> Iterator[Found]:
    """Blocking. In the order of names; what disappears meanwhile is passed over. `Stopped` when it is not wanted."""
    observer = observer or Unwatched()
    for parts, parent in _entries(layout, ("blobs", "sha256")):
        check(observer)
        if isinstance(parent, Unusable):
            yield parent
        elif not _FANOUT.fullmatch(parts[-1]):
            yield Stray(parts)
        else:
            directory = _open(parent, parts, os.O_RDONLY | _BELOW)
            if isinstance(directory, int):
                try:
                    yield from _in_fanout(directory, parts)
                finally:
                    os.close(directory)
            elif directory is not None:
                yield directory


def keyed_partials(layout: Layout) -> Iterator[Partial | Unusable]:
    """Downloads whose digest no source has said. They lie in a directory of their own."""
    for parts, parent in _entries(layout, (".modeld", "partials")):
        found = parent if isinstance(parent, Unusable) else _partial(parent, parts, None)
        if isinstance(found, (Partial, Unusable)):
            yield found


def _entries(layout: Layout, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int | Unusable]]:
    """What lies in one of the store's own directories, each beside that directory's descriptor. The directory itself
    may be reached by a link, which is the user's choice; nothing below."""
    try:
        directory = os.open("/".join((layout.root, *above)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as fault:
        yield above, _unusable(above, fault)
        return
    try:
        for name in sorted(os.listdir(directory)):
            yield (*above, name), directory
    except OSError as fault:
        yield above, _unusable(above, fault)
    finally:
        os.close(directory)


def _in_fanout(fanout: int, above: tuple[str, ...]) -> Iterator[Found]:
    try:
        names = sorted(os.listdir(fanout))
    except OSError as fault:
        yield _unusable(above, fault)
        return
    for name in names:
        found: Found | None
        if _DIGEST.fullmatch(name) and name.startswith(above[-1]):
            found = _blob(fanout, name, above)
        elif (partial := _PARTIAL.fullmatch(name)) is not None:
            found = _partial(fanout, (*above, name), partial[1])
        else:
            found = Stray((*above, name))
        if found is not None:
            yield found


def _blob(fanout: int, name: str, above: tuple[str, ...]) -> Found | None:
    directory = _open(fanout, (*above, name), _PATH)
    if not isinstance(directory, int):
        return directory
    try:
        info = os.stat("data", dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return Stray((*above, name))
    except OSError as fault:
        return _unusable((*above, name), fault)
    finally:
        os.close(directory)
    if stat.S_ISREG(info.st_mode):
        return BlobFile(name, info)
    return Unusable((*above, name, "data"), "is not a regular file and is left alone")


def _partial(parent: int, parts: tuple[str, ...], digest: str | None) -> Found | None:
    directory = _open(parent, parts, os.O_RDONLY | _BELOW)
    if not isinstance(directory, int):
        return directory
    try:
        info = os.fstat(directory)
        size, newest = 0, info.st_mtime
        for name in os.listdir(directory):
            with contextlib.suppress(FileNotFoundError):
                inside = os.stat(name, dir_fd=directory, follow_symlinks=False)
                size += inside.st_size
                newest = max(newest, inside.st_mtime)
    except OSError as fault:
        return _unusable(parts, fault)
    finally:
        os.close(directory)
    return Partial(parts, digest, info, size, newest)


def _open(parent: int, parts: tuple[str, ...], flags: int) -> int | Stray | Unusable | None:
    """The directory's descriptor; None when it has disappeared."""
    try:
        return os.open(parts[-1], flags, dir_fd=parent)
    except FileNotFoundError:
        return None
    except OSError as fault:
        if fault.errno in (errno.ENOTDIR, errno.ELOOP, errno.EMLINK):
            return Stray(parts)
        return _unusable(parts, fault)


def _unusable(parts: tuple[str, ...], fault: OSError) -> Unusable:
    return Unusable(parts, f"cannot be looked at: {fault.strerror}")
