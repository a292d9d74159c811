"""Watches of files and directories: whether one has changed is known without a look at the disk, which may not answer.

A change is in the queue before the call that makes it returns, and reading the queue touches only memory. So an answer
that was true at a look is true as long as the queue is empty.

A path may lead through symbolic links, and through links in their targets. Each is watched itself, as a directory on
the way is: a path leads to the same file as long as nothing that it leads through is moved, removed or mounted over.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
import sys
import threading
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
_ADD: Final = 0x20000000
"""What was watched of the same file before is watched still: one directory may be watched for two reasons."""

_STEP: Final = _SELF | _ATTRIB | _DO_NOT_FOLLOW
"""A directory or a symbolic link on the way to a directory: that the path leads through it."""
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

_MOST_LINKS: Final = 40
"""The kernel follows no more of them in one path."""

_POLLIN: Final = 0x1
_POLLPRI: Final = 0x2

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_STATFS_BYTES: Final = 256
_LOCAL: Final = frozenset(
    [0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0xCA451A4E, 0x2FC12FC1, 0x3153464A, 0x01021994, 0x858458F6]
)
"""ext4, XFS, btrfs, F2FS, bcachefs, ZFS, JFS, tmpfs, ramfs. On other filesystems another machine, another layer (an
overlay) or a program (FUSE) may change a file without this kernel's knowledge."""


class Change(NamedTuple):
    watch: int
    """-1 for all: some events were lost, or a directory that was reached may be another one now. What is to be watched
    on must be reached and placed again."""
    name: str
    """Of the entry of a watched directory; empty for the watched file or directory itself."""


class _PollDescriptor(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class _Mount(NamedTuple):
    point: str
    line: bytes
    """All that the kernel reports of it."""


class _Ways:
    """What the directories that were reached depend on. A thread that reaches one notes each step before it takes it:
    so no mount on the way is overlooked meanwhile."""

    def __init__(self) -> None:
        self.passed = {"/"}
        """Each directory and each link that a path led through. No such path has a link in it."""
        self.ends: set[str] = set()
        """The directories that were reached: what is watched later may lie anywhere below."""
        self.local: set[str] = set()
        self.numbers: set[int] = set()
        self.reached: dict[tuple[str, int], int] = {}
        """The watches of the directories by their paths, and by what is watched of them: the way need not be taken
        again."""

    def depend_on(self, mount: _Mount) -> bool:
        return mount.point in self.passed or any(mount.point.startswith(f"{end}/") for end in list(self.ends))

    def require_local(self, directory: str) -> None:
        if directory not in self.local:
            require_local(directory)
            self.local.add(directory)


class Watches:
    """`reach` and `place` block like any look at a path; the rest never waits. `changed` and `changes` are for one
    thread, the rest for any."""

    def __init__(self) -> None:
        self._add, self._remove = _LIBC.inotify_add_watch, _LIBC.inotify_rm_watch
        self._queue = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._queue < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        try:
            self._mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            os.close(self._queue)
            raise
        self._mounted = self._read_mounts()
        self._ways = _Ways()
        self._taken = 0
        """Changes that were taken from the queue, each counted before it is looked at."""
        self._lock = threading.Lock()
        self._users = 0
        """Calls that use the descriptors at the moment."""
        self._closed = False
        self._polled = (_PollDescriptor * 2)(
            _PollDescriptor(self._queue, _POLLIN, 0), _PollDescriptor(self._mounts, _POLLPRI, 0)
        )
        # PyDLL keeps the interpreter during the call: taking it back costs milliseconds when another thread computes.
        self._poll = ctypes.PyDLL(None).poll

    def reach(self, path: str, what: int) -> int:
        """Watches the directory that an absolute path leads to, through whichever links, and all that it leads through;
        returns the number of the directory's watch. OSError also when the system does not report each change of that
        directory, or of a link on the way."""
        ways, taken = self._ways, self._taken
        if (known := ways.reached.get((path, what))) is not None:
            return known
        here, ahead, links = "/", path.split("/")[::-1], 0
        while ahead:
            name = ahead.pop()
            if name in ("", "."):
                continue
            if name == "..":
                here = os.path.dirname(here)
                continue
            step = os.path.join(here, name)
            ways.passed.add(step)
            ways.numbers.add(self.place(step, _STEP))
            target = _target(step)  # after it is watched: should another link be there by now, that is a change
            if target is None:
                here = step
                continue
            ways.require_local(here)
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            ahead += target.split("/")[::-1]
            if target.startswith("/"):
                here = "/"
        ways.ends.add(here)
        ways.require_local(here)
        number = self.place(here, what)
        ways.numbers.add(number)
        if self._taken == taken:  # else a step may have changed before its number was noted
            ways.reached[path, what] = number
        return number

    def place(self, path: str, what: int) -> int:
        """Watches what lies at the path; returns the number of the watch. The same file has the same number. A link is
        not followed, unless it is in a directory's path: that directory must have been reached."""
        if not self._begin_use():
            raise OSError(errno.EBADF, "the watches are closed", path)
        try:
            number: int = self._add(self._queue, os.fsencode(path), ctypes.c_uint32(what | _ADD))
            code = ctypes.get_errno()
        finally:
            self._end_use()
        if number < 0:
            raise OSError(code, os.strerror(code), path)
        return number

    def remove(self, number: int) -> None:
        """The removal is a change of that watch too."""
        if self._begin_use():
            try:
                self._remove(self._queue, number)
            finally:
                self._end_use()

    def changed(self) -> bool:
        """Whether `changes` has something to report. Once they are closed, nothing changes."""
        return bool(self._poll(self._polled, 2, 0))

    def changes(self) -> Iterator[Change]:
        """Call it when `changed` returns True."""
        if not self._begin_use():
            return
        try:
            self._taken += 1
            if self._polled[1].revents and self._mounted_on_the_way():
                yield self._start_over()
            while True:
                try:
                    data = os.read(self._queue, _READ_BYTES)
                except BlockingIOError:
                    return
                at = 0
                while at < len(data):
                    self._taken += 1
                    number, _mask, _cookie, length = _EVENT.unpack_from(data, at)
                    at += _EVENT.size
                    name = os.fsdecode(data[at : at + length].rstrip(b"\0"))
                    at += length
                    if number < 0 or (number in self._ways.numbers and not name):
                        yield self._start_over()
                    else:
                        yield Change(number, name)
        finally:
            self._end_use()

    def _start_over(self) -> Change:
        """Forgets what the paths led through, and no longer watches it: they may lead elsewhere now. A thread that is
        on the way meanwhile has missed this change."""
        ways, self._ways = self._ways, _Ways()
        for number in list(ways.numbers):
            self.remove(number)
        return Change(-1, "")

    def _mounted_on_the_way(self) -> bool:
        """Whether the filesystems that the paths lead through are others. On a machine that runs containers others come
        and go all the time."""
        before, self._mounted = self._mounted, self._read_mounts()
        depend_on = self._ways.depend_on
        return list(filter(depend_on, before)) != list(filter(depend_on, self._mounted))

    def _read_mounts(self) -> list[_Mount]:
        """In their order: a later one hides earlier ones. Touches only memory."""
        pieces, at = [], 0
        while piece := os.pread(self._mounts, _READ_BYTES, at):
            pieces.append(piece)
            at += len(piece)
        found = []
        for line in b"".join(pieces).splitlines():
            point = _ESCAPED.sub(lambda code: bytes([int(code[1], 8)]), line.split(b" ", 5)[4])
            found.append(_Mount(os.fsdecode(point), line))
        return found

    # -- the descriptors, which are closed when the last call that uses them returns: a new file may get their numbers

    def _begin_use(self) -> bool:
        with self._lock:
            self._users += not self._closed
            return not self._closed

    def _end_use(self) -> None:
        with self._lock:
            self._users -= 1
            if self._closed and not self._users:
                self._close_descriptors()

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for polled in self._polled:
                polled.fd = -1
            if not self._users:
                self._close_descriptors()

    def _close_descriptors(self) -> None:
        os.close(self._queue)
        os.close(self._mounts)


def watches_for(*directories: str) -> Watches | None:
    """Watches for files below these directories; None where the system cannot promise to report each change. Blocks."""
    if sys.platform != "linux":
        return None
    try:
        made = Watches()
    except OSError:  # the user has too many such queues, or there is no /proc
        return None
    try:
        for directory in directories:
            made.reach(directory, ITSELF)
    except OSError:
        made.close()
        return None
    return made


def require_local(path: str) -> None:
    """OSError when the filesystem of the file or directory is one of which the system does not report each change.
    Blocks."""
    found = ctypes.create_string_buffer(_STATFS_BYTES)
    # The first word is the type; some types are negative numbers of 32 bits.
    if (
        _LIBC.statfs(os.fsencode(path), found) != 0
        or ctypes.c_ulong.from_buffer(found).value & 0xFFFFFFFF not in _LOCAL
    ):
        raise OSError(errno.ENOTSUP, "not all changes are reported", path)


def _target(path: str) -> str | None:
    """What a symbolic link contains; None for what is no link."""
    try:
        return os.readlink(path)
    except OSError as fault:
        if fault.errno != errno.EINVAL:
            raise
        return None
