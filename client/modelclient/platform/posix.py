"""Linux and macOS: the endpoint is a Unix socket in a directory whose owner and mode are checked.

The fast path of the command goes through here. The C half of `socket` is enough, and takes a fifth of the time.
"""

from __future__ import annotations

import os
import stat
import sys

from modelwire import endpoint as wire

TYPE_CHECKING = False  # typing's own takes longer to import than all of this module
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Sequence

    from modelclient.platform.interface import Channel

_UCRED_BYTES = 12
_LOCAL_PEERCRED, _XUCRED_BYTES = 1, 76

CONNECT_SECONDS = 10
"""A daemon that is alive accepts within milliseconds; this only bounds the wait behind a full backlog."""


class Stranger(ConnectionError):
    """Another user's program answers at an endpoint that this user did not name."""


def connect(path: str, *, wait: bool = True, named: bool = True, system: bool = False) -> socket:
    from _socket import AF_UNIX, SOCK_STREAM, socket

    made = socket(AF_UNIX, SOCK_STREAM)
    try:
        if wait:
            # Not settimeout: a non-blocking connect to a Unix socket with a full backlog fails instead of waiting.
            _bound_sending(made, CONNECT_SECONDS)
            made.connect(path)
            _bound_sending(made, 0)
        else:
            made.setblocking(False)
            made.connect(path)
            made.setblocking(True)
        if not named:
            _check_peer(made, path, system=system)
    except BaseException:  # Ctrl-C too must not leak the socket
        made.close()
        raise
    return made


def _check_peer(made: socket, path: str, *, system: bool) -> None:
    """The directory of the endpoint was looked at before, and may be another one by now; who listens the kernel knows.
    Behind the service manager's socket that is the service manager."""
    import _socket

    if sys.platform == "darwin":
        answer = made.getsockopt(0, _LOCAL_PEERCRED, _XUCRED_BYTES)
    else:
        answer = made.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED_BYTES)
    uid = int.from_bytes(answer[4:8], sys.byteorder)  # of both structures the second number
    trusted = {0, os.getuid()}
    if system:
        trusted.add(os.lstat(os.path.dirname(path)).st_uid)  # root put it there: see `_unsafe`
    if uid not in trusted:
        raise Stranger(f"the program that listens at {path} runs as uid {uid}, which is neither yours nor a service's")


def _bound_sending(made: socket, seconds: int) -> None:
    from _socket import SO_SNDTIMEO, SOL_SOCKET
    from struct import pack

    made.setsockopt(SOL_SOCKET, SO_SNDTIMEO, pack("@ll", seconds, 0))


def send_files(channel: Channel, data: bytes, descriptors: Sequence[int]) -> bytes:
    import _socket
    from array import array

    assert isinstance(channel, _socket.socket)
    return data[channel.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array("i", descriptors))]) :]


def endpoint_fault(path: str, *, named: bool, system: bool) -> str | None:
    if len(os.fsencode(path)) > wire.PATH_LIMIT:
        return f"the endpoint {path} is longer than the {wire.PATH_LIMIT} bytes that a socket may have"
    directory = os.path.dirname(path)
    if not named and (unsafe := _unsafe(directory, system=system)):
        return f"the endpoint's directory {directory} must not be used: {unsafe}"
    try:
        info = os.stat(path)
    except OSError:
        return None  # connecting reports it better
    return None if stat.S_ISSOCK(info.st_mode) else f"the endpoint {path} is not a socket"


def _unsafe(directory: str, *, system: bool) -> str | None:
    try:
        info = os.lstat(directory)
        if system:
            # The service manager may give the directory to the service's own user. Only root can put a directory into
            # one of root's, so then the parent is what must be root's.
            parent = wire.unsafe_directory(os.lstat(os.path.dirname(directory)), 0)
            return wire.unsafe_directory(info, 0, trusted_uids=() if parent else (info.st_uid,))
    except FileNotFoundError:
        return None
    except OSError as error:
        return str(error)
    return wire.unsafe_directory(info, os.getuid())


def squatted(path: str) -> bool:
    try:
        return os.lstat(os.path.dirname(path)).st_uid != os.getuid()
    except OSError:
        return False


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"Z"  # ended, and its parent has not asked yet
    except (OSError, IndexError):
        return False
