"""A disk of which every write and every flush is written down: a loop device over a file that a process here serves.

The file is the root of a FUSE filesystem, so all that the loop device does to it comes here, one request after the
other. Run as a program, this is that filesystem. Linux, root.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import filecmp
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator

from rigs.block_log import PAGE, BlockLog, LogWriter, Replay
from rigs.filesystems import Filesystem, run
from rigs.real_daemon import TESTS
from rigs.waiting import wait_until

IMAGE_BYTES = 512 << 20
"""The smallest XFS takes 300 MiB. Almost all of it is a hole."""


class RecordedDisk:
    """A filesystem at `directory`: at first that of the recorded disk, then one that a crash has left."""

    def __init__(self, room: str, filesystem: Filesystem) -> None:
        self.filesystem = filesystem
        self.directory = f"{room}/disk"
        self._file, self._image, self._before = (f"{room}/{name}" for name in ("file", "image", "before"))
        self._log = f"{room}/log"
        self.log = BlockLog(self._log)
        os.mkdir(self.directory)
        os.mkdir(self._log)
        open(self._file, "xb").close()
        filesystem.make(self._image, IMAGE_BYTES)
        run("cp", "--sparse=always", self._image, self._before)

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Mounted in here. It can be recorded once."""
        with self.device() as device, self.filesystem.mounted(device, self.directory):
            yield

    @contextlib.contextmanager
    def device(self) -> Iterator[str]:
        """The recorded device itself."""
        with self._served(), contextlib.ExitStack() as stack:
            # Through a cache of the file the device's writes would come late, together, or never.
            device = run("losetup", "--find", "--show", "--direct-io=on", self._file)
            stack.callback(run, "losetup", "--detach", device)
            assert run("losetup", "--noheadings", "--output", "DIO", device) == "1"
            yield device

    @contextlib.contextmanager
    def _served(self) -> Iterator[None]:
        # Only the server keeps the channel: when it dies, the kernel fails what it was asked for.
        with open("/dev/fuse", "r+b", buffering=0) as channel:
            number = channel.fileno()
            options = f"fd={number},rootmode={stat.S_IFREG | 0o600:o},user_id=0,group_id=0"
            mount = ["mount", "-i", "-t", "fuse", "-o", options, "recorded-disk", self._file]
            subprocess.run(mount, check=True, pass_fds=[number])
            server = subprocess.Popen(
                [sys.executable, os.path.abspath(__file__), str(number), self._image, self._log],
                pass_fds=[number],
                env=os.environ | {"PYTHONPATH": TESTS},
            )
        try:
            wait_until(lambda: os.stat(self._file).st_size == IMAGE_BYTES, what="the recorded disk")
            yield
        finally:
            run("umount", self._file)
            assert server.wait(20) == 0

    def replay(self) -> Replay:
        """What the device has recorded; once."""
        return Replay(self.log, self._before, whole=self.filesystem.whole)

    def has_recorded_all(self, replay: Replay) -> bool:
        """Whether the log makes of the first image what the disk has now: the end of a replay."""
        replay.advance(self.log.now())
        return filecmp.cmp(self._before, self._image, shallow=False)

    @contextlib.contextmanager
    def after_crash(self, image: str) -> Iterator[None]:
        """The image, mounted where the recorded disk was. It serves once: a process with mounts of its own that began
        meanwhile keeps the filesystem mounted there, and it writes to the file to the end."""
        try:
            with self.filesystem.mounted(image, self.directory):
                yield
        finally:
            os.unlink(image)


# -- the filesystem, in the words of include/uapi/linux/fuse.h of the kernel

_IN = struct.Struct("<IIQQIIIHH")
_OUT = struct.Struct("<IiQ")
_INIT_IN = struct.Struct("<IIII")
_INIT_OUT = struct.Struct("<IIIIHHIIHHII24x")
_ATTRIBUTES = struct.Struct("<QQQQQQIIIIIIIIII")
_ATTRIBUTES_OUT = struct.Struct("<QII")
_OPEN_OUT = struct.Struct("<QIi")
_MOVED = struct.Struct("<QQIIQII")
"""What READ and WRITE begin with."""
_WRITE_OUT = struct.Struct("<II")
_STATFS_OUT = struct.Struct("<QQQQQIIII24x")

_MAX_WRITE = 1 << 20
_MAX_PAGES = 1 << 22
_DIRECT_IO = 1 << 0
_HOUR = 3600
"""For which the kernel need not ask for the attributes again: they stay as they are."""


class _Operation(enum.IntEnum):
    FORGET = 2
    GETATTR = 3
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    DESTROY = 38


class _Server:
    def __init__(self, image: str, log: LogWriter) -> None:
        self._image = os.open(image, os.O_RDWR)
        self._size = os.fstat(self._image).st_size
        self._log = log

    def serve(self, descriptor: int) -> None:
        """Until the filesystem is unmounted. One request is answered before the next is read."""
        space = memoryview(bytearray(_MAX_WRITE + PAGE))
        while True:
            try:
                length = os.readv(descriptor, [space])
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                if error.errno == errno.ENOENT:  # the request was taken back
                    continue
                raise
            _, operation, unique, *_ = _IN.unpack_from(space)
            if operation == _Operation.FORGET:
                continue
            try:
                code, body = 0, self._answer(operation, space[_IN.size : length])
            except OSError as error:
                code, body = -(error.errno or errno.EIO), b""
            os.writev(descriptor, [_OUT.pack(_OUT.size + len(body), code, unique), body])

    def _answer(self, operation: int, body: memoryview) -> bytes:
        match operation:
            case _Operation.WRITE:
                _, offset, length, *_ = _MOVED.unpack_from(body)
                data = body[_MOVED.size : _MOVED.size + length]
                self._log.write(offset, data)
                return _WRITE_OUT.pack(os.pwrite(self._image, data, offset), 0)
            case _Operation.READ:
                _, offset, length, *_ = _MOVED.unpack_from(body)
                return os.pread(self._image, length, offset)
            case _Operation.FSYNC:
                self._log.flush()
                return b""
            case _Operation.GETATTR:
                blocks, mode = self._size // 512, stat.S_IFREG | 0o600
                attributes = (1, self._size, blocks, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, PAGE, 0)
                return _ATTRIBUTES_OUT.pack(_HOUR, 0, 0) + _ATTRIBUTES.pack(*attributes)
            case _Operation.OPEN:
                return _OPEN_OUT.pack(0, _DIRECT_IO, 0)
            case _Operation.STATFS:
                return _STATFS_OUT.pack(0, 0, 0, 0, 0, PAGE, 255, PAGE, 0)
            case _Operation.INIT:
                major, minor, read_ahead, flags = _INIT_IN.unpack_from(body)
                pages = _MAX_WRITE // PAGE
                return _INIT_OUT.pack(
                    major, min(minor, 31), read_ahead, flags & _MAX_PAGES, 16, 12, _MAX_WRITE, 1, pages, 0, 0, 0
                )
            case _Operation.RELEASE | _Operation.FLUSH | _Operation.DESTROY:
                return b""
        raise OSError(errno.ENOSYS, "of no use to a loop device")


if __name__ == "__main__":
    _Server(sys.argv[2], LogWriter(sys.argv[3])).serve(int(sys.argv[1]))
