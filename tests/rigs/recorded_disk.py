"""A disk of which every write and every flush is written down: a loop device over a file that a process here serves.

The file is the root of a FUSE filesystem, so all that the loop device does to it comes here, one request after the
other. Run as a program, this is that filesystem. Linux, root.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from rigs.block_log import PAGE, BlockLog, LogWriter, Replay
from rigs.real_daemon import TESTS
from rigs.waiting import wait_until

IMAGE_BYTES = 512 << 20
"""The smallest XFS takes 300 MiB. Almost all of it is a hole."""


@dataclass(frozen=True)
class Filesystem:
    name: str
    make: tuple[str, ...]
    options: str
    whole: tuple[range, ...]
    """Superblocks that are written in place and without a journal: no such filesystem survives half of one."""


FILESYSTEMS = {
    "ext4": Filesystem(
        "ext4",
        ("mkfs.ext4", "-q", "-F", "-b", str(PAGE)),
        # Nothing is written out by the filesystem's own kindness: neither on a rename nor every five seconds.
        "noauto_da_alloc,commit=300",
        (range(PAGE),),
    ),
    "xfs": Filesystem("xfs", ("mkfs.xfs", "-q", "-f"), "nodiscard", ()),
    "btrfs": Filesystem(
        "btrfs",
        ("mkfs.btrfs", "-q", "-f", "-K"),
        "commit=300,nodiscard",
        tuple(range(at, at + PAGE) for at in (64 << 10, 64 << 20)),
    ),
}


def missing(filesystem: Filesystem) -> str | None:
    """Why such a disk cannot be recorded here; None when it can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "only root of Linux can mount a filesystem"
    if shutil.which(filesystem.make[0]) is None:
        return f"{filesystem.make[0]} is not installed"
    with open("/proc/filesystems", encoding="ascii") as file:
        known = {line.split()[-1] for line in file}
    absent = {"fuse", filesystem.name} - known
    if absent:
        return f"the kernel has no {' and no '.join(sorted(absent))}"
    devices = ("/dev/fuse", "/dev/loop-control")
    return next((f"there is no {device}" for device in devices if not os.path.exists(device)), None)


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
        for path, size in ((self._file, 0), (self._image, IMAGE_BYTES)):
            with open(path, "wb") as file:
                file.truncate(size)
        _run(*filesystem.make, self._image)
        _run("cp", "--sparse=always", self._image, self._before)

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Mounted in here. It can be recorded once."""
        with self.device() as device, self._mounted(device):
            yield

    @contextlib.contextmanager
    def device(self) -> Iterator[str]:
        """The recorded device itself."""
        with self._served(), contextlib.ExitStack() as stack:
            # Through a cache of the file the device's writes would come late, together, or never.
            device = _run("losetup", "--find", "--show", "--direct-io=on", self._file)
            stack.callback(_run, "losetup", "--detach", device)
            assert _run("losetup", "--noheadings", "--output", "DIO", device) == "1"
            yield device

    @contextlib.contextmanager
    def _served(self) -> Iterator[None]:
        descriptor = os.open("/dev/fuse", os.O_RDWR)
        try:
            options = f"fd={descriptor},rootmode={stat.S_IFREG | 0o600:o},user_id=0,group_id=0"
            mount = ["mount", "-i", "-t", "fuse", "-o", options, "recorded-disk", self._file]
            subprocess.run(mount, check=True, pass_fds=[descriptor])
            server = subprocess.Popen(
                [sys.executable, os.path.abspath(__file__), str(descriptor), self._image, self._log],
                pass_fds=[descriptor],
                env=os.environ | {"PYTHONPATH": TESTS},
            )
        finally:
            os.close(descriptor)
        try:
            wait_until(lambda: os.stat(self._file).st_size == IMAGE_BYTES, what="the recorded disk")
            yield
        finally:
            _run("umount", self._file)
            assert server.wait(20) == 0

    def replay(self) -> Replay:
        """What the device has recorded; once."""
        return Replay(self.log, self._before, whole=self.filesystem.whole)

    def after_crash(self, image: str) -> contextlib.AbstractContextManager[None]:
        """The image, mounted where the recorded disk was."""
        return self._mounted(image, "loop,")

    @contextlib.contextmanager
    def _mounted(self, device: str, options: str = "") -> Iterator[None]:
        options += self.filesystem.options
        _run("mount", "-t", self.filesystem.name, "-o", options, device, self.directory)
        try:
            yield
        finally:
            _run("umount", self.directory)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout.strip()


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
