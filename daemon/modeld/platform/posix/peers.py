"""Who is at the other end of a connection.

Identity comes from the kernel at connect (SO_PEERCRED, LOCAL_PEERCRED), never from what a peer says and never by its
pid: a pid can be another process by the time one looks.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Final, NamedTuple, TypeAlias

UserId: TypeAlias = int
"""What this system knows a user by. Others than POSIX have something else: the text of a SID on Windows."""

GroupId: TypeAlias = int

_UCRED: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid
_XUCRED: Final = struct.Struct("IIh2x16I")  # struct xucred: version, uid, number of groups, padding, groups
_XUCRED_VERSION: Final = 0
_LOCAL_PEERCRED: Final = 1
_LOCAL_PEERPID: Final = 2
_NOBODY_ID: Final = 0xFFFFFFFF
"""(uid_t) -1, which the kernel reports for a socket that has no peer."""


class Peer(NamedTuple):
    """One peer as the kernel knows it. `gid` is the group that it runs as; `pid` is for the log only, 0 where the
    kernel does not report it."""

    uid: UserId
    gid: GroupId
    pid: int


def identify(connection: socket.socket) -> Peer:
    """The peer at the time of connect; asks the kernel and nobody else. OSError when the kernel cannot tell."""
    try:
        if sys.platform == "darwin":
            uid, gid = _parse_xucred(connection.getsockopt(0, _LOCAL_PEERCRED, _XUCRED.size))
            return Peer(uid, gid, _peer_pid(connection))
        if not hasattr(socket, "SO_PEERCRED"):
            raise OSError("this system has no SO_PEERCRED")
        pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    except (struct.error, ValueError) as error:
        raise OSError(f"the system's answer makes no sense: {error}") from error
    if uid == _NOBODY_ID or gid == _NOBODY_ID:
        raise OSError("the socket has no peer")
    return Peer(uid, gid, pid)


def _peer_pid(connection: socket.socket) -> int:
    try:
        return connection.getsockopt(0, _LOCAL_PEERPID)
    except OSError:
        return 0  # only the log would have shown it


def _parse_xucred(raw: bytes) -> tuple[UserId, GroupId]:
    """uid and effective gid out of macOS' `struct xucred`."""
    version, uid, count, *groups = _XUCRED.unpack(raw)
    if version != _XUCRED_VERSION:
        raise ValueError(f"xucred has version {version}, expected {_XUCRED_VERSION}")
    if not 1 <= count <= len(groups):
        raise ValueError(f"xucred has {count} groups, expected 1 to {len(groups)}")
    return uid, groups[0]
