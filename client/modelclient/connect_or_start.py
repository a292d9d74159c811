"""A channel to the daemon, whether one runs or has to be started first. Both clients use it.

A daemon is started only when none can be there: the endpoint does not exist, or refuses, and so does the one that the
store's lock names. Any other fault is reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from modelclient import platform
from modelclient.dialing import dial, dial_by_store, find, nothing_to_cancel
from modelclient.locate import Endpoint
from modelclient.platform.interface import Channel
from modelwire.errors import NoDaemon

START_SECONDS = 10.0
"""From no daemon to a ready one takes a third of a second; recovery of a large store after a crash, a few."""

GREETINGS = 3
"""How often a client connects to a daemon that goes away before its hello. A daemon that ends just now does that to a
client that comes a moment too late: it has asked for nothing, so the next try finds the successor, or that there is
none."""


class Absent(NoDaemon):
    """No daemon runs at an endpoint at which this user can start one."""


def absent(endpoint: Endpoint) -> NoDaemon:
    if endpoint.system:
        return NoDaemon(
            f"the system service does not answer at {endpoint.path}", hint="Start it with `systemctl start modeld`."
        )
    if (keeper := platform.starting().keeper(endpoint.path)) is not None:
        return NoDaemon(
            f"no daemon runs at {endpoint.path}, whose directory belongs to {keeper}",
            hint=f"Ask {keeper} to start it, or use a daemon of your own with another --socket or MODELD_SOCKET.",
        )
    return Absent(f"no daemon runs at {endpoint.path}", hint="Start one with `modelctl start`.")


def connect_or_start(
    argument: str | None = None,
    *,
    start: bool = True,
    start_seconds: float = START_SECONDS,
    check_cancelled: Callable[[], None] = nothing_to_cancel,
) -> tuple[Endpoint, Channel]:
    """Connects, and starts a daemon first when there is none and `start` allows it. `check_cancelled` may raise."""
    endpoint, made = connect(argument)
    if made is not None:
        return endpoint, made
    if not start or endpoint.system or platform.starting().keeper(endpoint.path) is not None:
        raise absent(endpoint)
    from modelclient import autostart  # a client that finds a daemon does not pay for this

    try:
        made = autostart.start(endpoint, time.monotonic() + start_seconds, check_cancelled=check_cancelled)
    except autostart.StartFailed as fault:
        # A daemon of this store was started meanwhile, and listens elsewhere.
        if fault.code != "in_use" or (found := dial_by_store()) is None:
            raise
        if endpoint.named:
            found[1].close()
            raise _served_elsewhere(endpoint, fault, found[0]) from None
        return found
    return endpoint, made


def _served_elsewhere(endpoint: Endpoint, fault: NoDaemon, other: Endpoint) -> NoDaemon:
    return NoDaemon(
        f"no daemon runs at {endpoint.path}, and none can be started there: {fault.message}",
        hint=f"Use the daemon of that store with `--socket {other.path}`, or name another store with MODELS_HOME.",
    )


def connect(argument: str | None = None) -> tuple[Endpoint, Channel | None]:
    """The endpoint to use, and a channel when a daemon listens there; or the daemon that the store's lock names."""
    endpoint = find(argument)
    made = dial(endpoint)
    if made is None and not endpoint.named and (found := dial_by_store()) is not None:
        return found
    return endpoint, made
