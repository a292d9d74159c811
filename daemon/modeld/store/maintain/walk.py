"""The walk over the blob tree, for usage, the store's limit and the sweep.

It goes down by descriptors and enters no link below the tree's top. It lists one fan-out directory at a time, a 256th
of the store, and checks there whether it is cancelled. A blob costs one stat: the listing reports whether its directory
is one. A program that puts a link there in between could as well put any file there, and a sweep opens what it removes
again, step by step.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from modeld.platform import files
from modeld.progress import Stopped
from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.disk.removal import directory_below

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_FANOUT = re.compile(r"[0-9a-f]{2}")
DIGEST = re.compile(r"[0-9a-f]{64}")
_SHARED_PARTIAL = re.compile(r"\.partial-([0-9a-f]{64})")
_OWN_PARTIAL = re.compile(r"sha256-([0-9a-f]{64})")


class BlobFile(NamedTuple):
    digest: str
    """In hex, from its name; only a verification checks the bytes."""
    info: os.stat_result

    @property
    def parts(self) -> tuple[str, ...]:
        """Its path below the root."""
        return "blobs", "sha256", self.digest[:2], self.digest, "data"


class Partial(NamedTuple):
    """The directory of a download that is not complete."""

    parts: tuple[str, ...]
    digest: str | None
    """In hex; None when the digest is not known."""
    info: os.stat_result
    size: int
    """Of all files in it."""
    newest: float
    """When the last of them was written, in seconds since the epoch."""


class Stray(NamedTuple):
    """An entry that the store did not make."""

    parts: tuple[str, ...]
    gone: bool = False
    """It has disappeared since it was listed, or is a directory that waits for its blob."""


class Unusable(NamedTuple):
    """An entry with the name of a blob or of its directory that cannot be read or has another type."""

    parts: tuple[str, ...]
    reason: str


Found = BlobFile | Partial | Stray | Unusable


def walk(layout: Layout, stopped: Callable[[], bool] = lambda: False) -> Iterator[Found]:
    """Blocking. In the order of names; raises `Stopped` once `stopped` is true."""
    for parts, parent in _entries(layout, ("blobs", "sha256")):
        if stopped():
            raise Stopped
        if isinstance(parent, Unusable):
            yield parent
        elif not _FANOUT.fullmatch(parts[-1]):
            yield Stray(parts)
        else:
            yield from _in_fanout(parent, parts)


def blob_file(layout: Layout, digest: Digest) -> BlobFile | None:
    """Blocking: one blob without a walk; None when there is none."""
    try:
        info = os.lstat(layout.blob(digest))
    except OSError:
        return None
    return BlobFile(digest.hex, info) if stat.S_ISREG(info.st_mode) else None


def partial_at(layout: Layout, parts: tuple[str, ...]) -> Partial | None:
    """Blocking: the partial download in that directory below the root; None when there is none."""
    try:
        with directory_below(layout.root, parts[:-1]) as parent:
            found = _partial(parent, parts, None)
    except OSError:
        return None
    return found if isinstance(found, Partial) else None


def keyed_partials(layout: Layout) -> Iterator[Found]:
    """The downloads of modeld, by their digests or by keys of their sources. Those in the blob tree are of other tools,
    or of an early modeld."""
    for parts, parent in _entries(layout, (".modeld", "partials")):
        digest = _OWN_PARTIAL.fullmatch(parts[-1])
        yield parent if isinstance(parent, Unusable) else _partial(parent, parts, digest and digest[1])


def _entries(layout: Layout, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int | Unusable]]:
    """The entries of one of the store's own directories, each with that directory's descriptor. The directory itself
    may be reached by a link, which is the user's choice; nothing below."""
    try:
        own = "/".join((layout.root, *above))
        with files.closing(os.open(own, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as directory:
            for name in sorted(os.listdir(directory)):
                yield (*above, name), directory
    except FileNotFoundError:
        return
    except OSError as fault:
        yield above, Unusable(above, f"cannot be looked at: {fault.strerror}")


def _in_fanout(parent: int, parts: tuple[str, ...]) -> Iterator[Found]:
    try:
        with files.closing(os.open(parts[-1], _DIRECTORY, dir_fd=parent)) as fanout:
            with os.scandir(fanout) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
            for entry in listed:
                name = entry.name
                if DIGEST.fullmatch(name) and name.startswith(parts[-1]) and entry.is_dir(follow_symlinks=False):
                    yield _blob(fanout, parts, name)
                elif (partial := _SHARED_PARTIAL.fullmatch(name)) is not None:
                    yield _partial(fanout, (*parts, name), partial[1])
                else:
                    yield Stray((*parts, name))
    except OSError as fault:
        yield _instead(parts, fault)


def _blob(fanout: int, above: tuple[str, ...], name: str) -> Found:
    try:
        info = os.stat(f"{name}/data", dir_fd=fanout, follow_symlinks=False)
    except OSError as fault:
        return _instead((*above, name), fault)
    if stat.S_ISREG(info.st_mode):
        return BlobFile(name, info)
    return Unusable((*above, name, "data"), "is not a regular file and is left alone")


def _partial(parent: int, parts: tuple[str, ...], digest: str | None) -> Found:
    try:
        with files.closing(os.open(parts[-1], _DIRECTORY, dir_fd=parent)) as directory:
            info = os.fstat(directory)
            size, newest = 0, info.st_mtime
            for name in os.listdir(directory):
                with contextlib.suppress(FileNotFoundError):
                    inside = os.stat(name, dir_fd=directory, follow_symlinks=False)
                    size += inside.st_size
                    newest = max(newest, inside.st_mtime)
    except OSError as fault:
        return _instead(parts, fault)
    return Partial(parts, digest, info, size, newest)


def _instead(parts: tuple[str, ...], fault: OSError) -> Stray | Unusable:
    if fault.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EMLINK):
        return Stray(parts, fault.errno == errno.ENOENT)
    return Unusable(parts, f"cannot be looked at: {fault.strerror}")
