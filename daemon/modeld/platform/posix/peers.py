"""The user at the other end of a connection.

The kernel identifies the peer at connect (SO_PEERCRED, LOCAL_PEERCRED). What a peer sends never counts, nor does its
pid, which another process may have by the time it is looked up.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Final, NamedTuple, TypeAlias

UserId: TypeAlias = int
"""How this system identifies a user. Systems other than POSIX differ: Windows has a SID."""

GroupId: TypeAlias = int

_UCRED: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid
_XUCRED: Final = struct.Struct("IIh2x16I")  # struct xucred: version, uid, number of groups, padding, groups
_XUCRED_VERSION: Final = 0
_LOCAL_PEERCRED: Final = 1
_LOCAL_PEERPID: Final = 2
_NOBODY_ID: Final = 0xFFFFFFFF
"""(uid_t) -1, which the kernel reports for a socket without a peer."""


class Peer(NamedTuple):
    """A peer as the kernel reports it. `gid` is the group that it runs as; `pid` is for the log only, 0 where the
    kernel does not report it."""

    uid: UserId
    gid: GroupId
    pid: int


def identify(connection: socket.socket) -> Peer:
    """The peer at the time of connect, from the kernel alone. Raises OSError when the kernel does not report it."""
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
        return 0  # only the log shows it


def _parse_xucred(raw: bytes) -> tuple[UserId, GroupId]:
    """uid and effective gid from `struct xucred` of macOS."""
    version, uid, count, *groups = _XUCRED.unpack(raw)
    if version != _XUCRED_VERSION:
        raise ValueError(f"xucred has version {version}, expected {_XUCRED_VERSION}")
    if not 1 <= count <= len(groups):
        raise ValueError(f"xucred has {count} groups, expected 1 to {len(groups)}")
    return uid, groups[0]
