"""A channel to the daemon, whether one runs or has to be started first. Both clients use it.

A daemon is started only when none can be there: the endpoint does not exist, or refuses. Any other fault is reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from modelclient.dialing import dial, find, nothing_to_cancel
from modelclient.locate import Endpoint
from modelclient.platform.interface import Channel
from modelwire.errors import NoDaemon

START_SECONDS = 10.0
"""From no daemon to a ready one takes a third of a second; recovery of a large store after a crash, a few."""

GREETINGS = 3
"""How often a client connects to a daemon that goes away before its hello. A daemon that ends just now does that to a
client that comes a moment too late: it has asked for nothing, so the next try finds the successor, or that there is
none."""


def absent(endpoint: Endpoint) -> NoDaemon:
    if endpoint.system:
        return NoDaemon(
            f"the system service does not answer at {endpoint.path}", hint="Start it with `systemctl start modeld`."
        )
    return NoDaemon(f"no daemon runs at {endpoint.path}", hint="Start one with `modelctl start`.")


def connect_or_start(
    argument: str | None = None,
    *,
    start: bool = True,
    start_seconds: float = START_SECONDS,
    check_cancelled: Callable[[], None] = nothing_to_cancel,
) -> tuple[Endpoint, Channel]:
    """Connects, and starts a daemon first when there is none and `start` allows it. `check_cancelled` may raise."""
    endpoint = find(argument)
    made = dial(endpoint)
    if made is None:
        if not start or endpoint.system:
            raise absent(endpoint)
        from modelclient import autostart  # a client that finds a daemon does not pay for this

        made = autostart.start(endpoint, time.monotonic() + start_seconds, check_cancelled=check_cancelled)
    return endpoint, made
