"""Watches of files and directories: whether one has changed is known without a look at the disk, which may not answer.

A change is in the queue before the call that makes it returns, and reading the queue touches only memory. So an answer
that was true at a look is true as long as the queue is empty.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

_MODIFY: Final = 0x2
_ATTRIB: Final = 0x4
_CLOSE_WRITE: Final = 0x8
_MOVED: Final = 0x40 | 0x80
_CREATE: Final = 0x100
_DELETE: Final = 0x200
_SELF: Final = 0x400 | 0x800  # it is deleted or moved itself
_ONLY_DIRECTORY: Final = 0x1000000
_DO_NOT_FOLLOW: Final = 0x2000000

ITSELF: Final = _SELF | _ATTRIB | _ONLY_DIRECTORY | _DO_NOT_FOLLOW
"""A directory: that the path leads to it, and who may enter it."""
ENTRIES: Final = ITSELF | _MODIFY | _MOVED | _CREATE | _DELETE
"""A directory, and all that is in it."""
CONTENT: Final = _SELF | _ATTRIB | _MODIFY | _CLOSE_WRITE | _DO_NOT_FOLLOW
"""A file: its bytes and its names, whichever name they are changed by. A write through a mapping is reported when the
file is closed, unless the program has closed it before."""

_EVENT: Final = struct.Struct("iIII")
_READ_BYTES: Final = 64 * 1024
_ESCAPED: Final = re.compile(rb"\\([0-7]{3})")
"""How the kernel writes spaces and the like in a path."""

_POLLIN: Final = 0x1
_POLLPRI: Final = 0x2

_STATFS_BYTES: Final = 256
_LOCAL: Final = frozenset(
    [0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0xCA451A4E, 0x2FC12FC1, 0x3153464A, 0x01021994, 0x858458F6]
)
"""ext4, XFS, btrfs, F2FS, bcachefs, ZFS, JFS, tmpfs, ramfs. On other filesystems another machine, another layer (an
overlay) or a program (FUSE) may change a file without this kernel's knowledge."""


class Change(NamedTuple):
    watch: int
    """-1 for all: some events were lost, or the filesystems that the paths lead through are others."""
    name: str
    """Of the entry of a watched directory; empty for the watched file or directory itself."""


class _PollDescriptor(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class Watches:
    """`place` blocks like any look at a path, and may be called from any thread; the rest never waits."""

    def __init__(self, *directories: str) -> None:
        """All files that are watched lie below one of these directories."""
        libc = ctypes.CDLL(None, use_errno=True)
        self._add, self._remove = libc.inotify_add_watch, libc.inotify_rm_watch
        self._queue = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._queue < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        try:
            self._mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            os.close(self._queue)
            raise
        self._directories = tuple(os.fsencode(directory) for directory in directories)
        self._mounted_on_the_way = self._read_mounts()
        self._polled = (_PollDescriptor * 2)(
            _PollDescriptor(self._queue, _POLLIN, 0), _PollDescriptor(self._mounts, _POLLPRI, 0)
        )
        # PyDLL keeps the interpreter during the call: taking it back costs milliseconds when another thread computes.
        self._poll = ctypes.PyDLL(None).poll

    def place(self, path: str, what: int) -> int:
        """Watches what lies at the path; returns the number of the watch. The same file has the same number."""
        number: int = self._add(self._queue, os.fsencode(path), ctypes.c_uint32(what))
        if number < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
        return number

    def remove(self, number: int) -> None:
        """The removal is a change of that watch too."""
        self._remove(self._queue, number)

    def changed(self) -> bool:
        """Whether `changes` has something to report."""
        return bool(self._poll(self._polled, 2, 0))

    def changes(self) -> Iterator[Change]:
        """Call it when `changed` returns True."""
        if self._polled[1].revents and (mounted := self._read_mounts()) != self._mounted_on_the_way:
            self._mounted_on_the_way = mounted
            yield Change(-1, "")
        while True:
            try:
                data = os.read(self._queue, _READ_BYTES)
            except BlockingIOError:
                return
            at = 0
            while at < len(data):
                number, _mask, _cookie, length = _EVENT.unpack_from(data, at)
                at += _EVENT.size
                yield Change(number, os.fsdecode(data[at : at + length].rstrip(b"\0")))
                at += length

    def _read_mounts(self) -> list[bytes]:
        """The filesystems that a path to a watched file leads through, in their order: a later one hides earlier ones.
        On a machine that runs containers others come and go all the time. Touches only memory."""
        pieces, at = [], 0
        while piece := os.pread(self._mounts, _READ_BYTES, at):
            pieces.append(piece)
            at += len(piece)
        found = []
        for line in b"".join(pieces).splitlines():
            point = _ESCAPED.sub(lambda code: bytes([int(code[1], 8)]), line.split(b" ", 5)[4])
            if any(_lies_below(path, point) or _lies_below(point, path) for path in self._directories):
                found.append(line)
        return found

    def close(self) -> None:
        """Idempotent."""
        for descriptor in (self._queue, self._mounts):
            if descriptor >= 0:
                os.close(descriptor)
        self._queue = self._mounts = -1


def watches_for(*directories: str) -> Watches | None:
    """Watches for files below these directories; None where the system cannot promise to report each change. Blocks."""
    if sys.platform != "linux":
        return None
    try:
        return Watches(*directories) if all(_is_local(directory) for directory in directories) else None
    except OSError:  # the user has too many such queues, or there is no /proc
        return None


def _lies_below(path: bytes, directory: bytes) -> bool:
    return path == directory or path.startswith(directory.rstrip(b"/") + b"/")


def _is_local(directory: str) -> bool:
    found = ctypes.create_string_buffer(_STATFS_BYTES)
    if ctypes.CDLL(None).statfs(os.fsencode(directory), found) != 0:
        return False
    # The first word is the type; some types are negative numbers of 32 bits.
    return ctypes.c_ulong.from_buffer(found).value & 0xFFFFFFFF in _LOCAL
