"""Whether a path means to this process what it means to the peer of a connection.

A peer in a container or a sandbox has other mounts, or another root: what this process finds at a path may be a file
that the peer does not even see.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from contextlib import ExitStack
from typing import Final

from modeld.platform.posix.files import closing
from modeld.platform.posix.polling import readable

_SO_PEERPIDFD: Final = 77
"""Linux 6.5. A number of a process may be another's by the time it is used; this descriptor stays that of the peer."""

_OUT_OF_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})

_PEER: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid
_STARTED: Final = 19
"""The field of /proc/PID/stat with the time of the start, counted from the one after the name."""


def sees_same_files(connection: socket.socket, accepted: float) -> bool:
    """Whether the process that connected has this process's mounts and root; False when that cannot be found out: it
    has ended, belongs to another pid namespace, or this process may not look at it. OSError when this process has no
    descriptor or memory left to look. Looks at /proc, so it may block.

    `accepted` is when the connection was accepted, on the clock that includes the machine's sleep. On Linux before 6.5
    it proves that the process with the peer's number is the peer: another one would have started later.
    """
    if sys.platform != "linux":
        return True  # no system but Linux gives processes mounts of their own
    try:
        with ExitStack() as held:
            alive: int | None = None
            try:
                alive = held.enter_context(closing(connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)))
            except OSError as error:
                if error.errno != errno.ENOPROTOOPT:
                    raise
                pid = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[0]
            else:
                pid = _pid(alive)
            if pid <= 0:
                return False
            # What is opened below it belongs to the same process, or is not there.
            process = held.enter_context(closing(os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)))
            if readable(alive) if alive is not None else _started(process) > accepted:
                return False
            theirs, ours = os.stat("root", dir_fd=process), os.stat("/")
            same_root = (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)
            return same_root and os.readlink("ns/mnt", dir_fd=process) == os.readlink("/proc/self/ns/mnt")
    except OSError as error:
        if error.errno in _OUT_OF_ROOM:
            raise
        return False
    except (ValueError, LookupError, StopIteration, struct.error):
        return False


def _pid(descriptor: int) -> int:
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:
        return int(next(line for line in file if line.startswith("Pid:")).split()[1])


def _started(process: int) -> float:
    """Seconds after the machine's start, cut to the clock's ticks."""
    with closing(os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)) as descriptor:
        fields = os.read(descriptor, 4096).rpartition(b")")[2].split()
    return int(fields[_STARTED]) / os.sysconf("SC_CLK_TCK")
