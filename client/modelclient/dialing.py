"""Where the daemon is, and a connected socket when somebody is there. Blocking and bounded."""

from __future__ import annotations

import errno
import socket
import struct

from modelclient import locate
from modelclient.locate import Endpoint
from modelwire.errors import NoDaemon

CONNECT_SECONDS = 10
"""A daemon that is alive accepts within milliseconds; this only bounds the wait behind a full backlog."""

_NOBODY = (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR)


class Barred(NoDaemon):
    """Somebody may be there, but this user is not let in. `exit_code` is that of a refused permission."""

    exit_code = 13


def find(argument: str | None) -> Endpoint:
    """The endpoint to use, its place checked."""
    try:
        endpoint = locate.find(argument)
    except (OSError, ValueError) as error:
        raise NoDaemon(f"the configuration cannot be read: {error}", hint="mend the file, or give --socket") from None
    check(endpoint)
    return endpoint


def check(endpoint: Endpoint) -> None:
    if fault := locate.fault(endpoint):
        raise NoDaemon(
            fault, hint="name another endpoint with MODELD_SOCKET or --socket, or set owner and mode of that path right"
        )


def dial(endpoint: Endpoint, *, wait: bool = True) -> socket.socket | None:
    """A connected socket, or None when nobody can be there; without `wait`, also when there is a queue at the door."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Not settimeout: a non-blocking connect to a Unix socket with a full backlog fails instead of waiting.
        made.setblocking(wait)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", CONNECT_SECONDS, 0))
        made.connect(endpoint.path)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 0, 0))
    except OSError as error:
        made.close()
        if error.errno in _NOBODY or (error.errno == errno.EAGAIN and not wait):
            return None
        what = f"the endpoint {endpoint.path} does not answer: {error.strerror or error}"
        if error.errno in (errno.EACCES, errno.EPERM):
            hint = "ask its operator for access, or use a daemon of your own with --socket"
            raise Barred(what, hint=hint) from None
        hint = "look at the daemon's log; another endpoint can be chosen with --socket or MODELD_SOCKET"
        raise NoDaemon(what, hint=hint) from None
    except BaseException:  # Ctrl-C too must not leak the socket
        made.close()
        raise
    return made


def nothing_to_cancel() -> None:
    """A caller that cannot be cancelled while it waits."""
