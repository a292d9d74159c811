"""From "I want the daemon" to a connected socket. Blocking and bounded; both clients use it.

A daemon is started only when nobody can be there: the endpoint does not exist, or refuses. Any other fault is told.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Callable

from modelclient import locate
from modelclient.locate import Endpoint
from modelwire.errors import NoDaemon

CONNECT_SECONDS = 10
"""A daemon that is alive accepts within milliseconds; this only bounds the wait behind a full backlog."""

START_SECONDS = 10.0
"""From no daemon to a ready one takes a third of a second; recovery of a large store after a crash, a few."""

_NOBODY = (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR)


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
        if error.errno in (errno.EACCES, errno.EPERM):
            hint = "ask its operator for access, or use a daemon of your own with --socket"
        else:
            hint = "look at the daemon's log; another endpoint can be chosen with --socket or MODELD_SOCKET"
        raise NoDaemon(f"the endpoint {endpoint.path} does not answer: {error.strerror or error}", hint=hint) from None
    except BaseException:  # Ctrl-C too must not leak the socket
        made.close()
        raise
    return made


def absent(endpoint: Endpoint) -> NoDaemon:
    if endpoint.system:
        return NoDaemon(
            f"the system service does not answer at {endpoint.path}", hint="start it: systemctl start modeld"
        )
    return NoDaemon(f"no daemon runs at {endpoint.path}", hint="start one: modelctl start")


def nothing_to_cancel() -> None:
    """A caller that cannot be cancelled while it waits."""


def connect(
    argument: str | None = None,
    *,
    start: bool = True,
    start_seconds: float = START_SECONDS,
    check_cancelled: Callable[[], None] = nothing_to_cancel,
) -> tuple[Endpoint, socket.socket]:
    """Connects, and starts a daemon first when there is none and that is wanted. `check_cancelled` may raise."""
    endpoint = find(argument)
    made = dial(endpoint)
    if made is None:
        if not start or endpoint.system:
            raise absent(endpoint)
        from modelclient import autostart  # who finds a daemon does not pay for this

        made = autostart.start(endpoint, time.monotonic() + start_seconds, check_cancelled=check_cancelled)
    return endpoint, made
