"""One try to connect: the endpoint to use, and a channel to the daemon when one listens there. Blocking and bounded."""

from __future__ import annotations

from modelclient import locate
from modelclient.locate import Endpoint
from modelclient.platform import system
from modelclient.platform.interface import Channel
from modelwire import exits
from modelwire.errors import NoDaemon


class Barred(NoDaemon):
    """A daemon may listen, but this user may not connect to it."""

    exit_code = exits.PERMISSION


def find(argument: str | None) -> Endpoint:
    """The endpoint to use, its place checked."""
    try:
        endpoint = locate.find(argument)
    except (OSError, ValueError) as error:
        raise NoDaemon(
            f"the configuration cannot be read: {error}", hint="Correct the file, or give --socket."
        ) from None
    check(endpoint)
    return endpoint


def check(endpoint: Endpoint) -> None:
    if fault := locate.fault(endpoint):
        raise NoDaemon(
            fault,
            hint="Name another endpoint with MODELD_SOCKET or --socket, or correct the owner and mode of that path.",
        )


def dial(endpoint: Endpoint, *, wait: bool = True) -> Channel | None:
    """A channel, or None when no daemon listens; without `wait`, also when the daemon is too busy to accept at once."""
    try:
        return system.connect(endpoint.path, wait=wait)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return None
    except OSError as error:
        if isinstance(error, BlockingIOError) and not wait:
            return None
        what = f"the endpoint {endpoint.path} does not answer: {error.strerror or error}"
        if isinstance(error, PermissionError):
            hint = "Ask its operator for access, or use a daemon of your own with --socket."
            raise Barred(what, hint=hint) from None
        hint = "Look at the daemon's log, or choose another endpoint with --socket or MODELD_SOCKET."
        raise NoDaemon(what, hint=hint) from None


def nothing_to_cancel() -> None:
    """A caller that cannot be cancelled while it waits."""
