"""From "I want the daemon" to a connected socket, whether one runs or is to be started. Both clients use it.

A daemon is started only when nobody can be there: the endpoint does not exist, or refuses. Any other fault is told.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from modelclient.dialing import dial, find, nothing_to_cancel
from modelclient.locate import Endpoint
from modelwire.errors import NoDaemon

START_SECONDS = 10.0
"""From no daemon to a ready one takes a third of a second; recovery of a large store after a crash, a few."""

GREETINGS = 3
"""How often a daemon is looked for that goes away before it has said hello. One that ends just now does that to whoever
came a moment too late: nothing was asked of it, so the next look finds its successor, or that there is none."""


def absent(endpoint: Endpoint) -> NoDaemon:
    if endpoint.system:
        return NoDaemon(
            f"the system service does not answer at {endpoint.path}", hint="start it: systemctl start modeld"
        )
    return NoDaemon(f"no daemon runs at {endpoint.path}", hint="start one: modelctl start")


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
