"""One try to connect: the endpoint to use, and a channel to the daemon when one listens there. Blocking and bounded."""

from __future__ import annotations

from modelclient import locate
from modelclient.locate import Endpoint
from modelclient.platform import system
from modelclient.platform.interface import Channel
from modelwire import exits
from modelwire.client import ClientConnection
from modelwire.endpoint import SYSTEM_SOCKET
from modelwire.errors import NoDaemon, RemoteError
from modelwire.store_root import NoRoot

READ_BYTES = 256 * 1024
"""Taken from the socket at once: a long list in few steps, small against a program's memory."""

PROBE_SECONDS = 5.0
"""A daemon says its hello within milliseconds; one that is stuck is not the one to lead a client to."""


class Barred(NoDaemon):
    """A daemon may listen, but this user may not connect to it."""

    exit_code = exits.PERMISSION


class WrongStore(NoDaemon):
    """The daemon at the endpoint serves another store than the one that MODELS_HOME names."""

    exit_code = exits.USAGE
    code = "wrong_store"


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
        return system.connect(endpoint.path, wait=wait, named=endpoint.named, system=endpoint.system)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return None
    except system.Stranger as error:
        raise NoDaemon(
            str(error),
            hint="Find out who runs it. To use it all the same, name the endpoint with --socket or MODELD_SOCKET.",
        ) from None
    except OSError as error:
        if isinstance(error, BlockingIOError) and not wait:
            return None
        what = f"the endpoint {endpoint.path} does not answer: {error.strerror or error}"
        if isinstance(error, PermissionError):
            hint = "Ask its operator for access, or use a daemon of your own with --socket."
            raise Barred(what, hint=hint) from None
        hint = "Look at the daemon's log, or choose another endpoint with --socket or MODELD_SOCKET."
        raise NoDaemon(what, hint=hint) from None


def wrong_store(endpoint: str, store: str, root: str) -> WrongStore:
    """The error for a client that means `root`, not the store of the daemon at this endpoint."""
    right = dial_by_store(root)
    if right is not None:
        right[1].close()
        hint = f"Reach the daemon of {root} with `--socket {right[0].path}`, or unset MODELS_HOME to use {store}."
    elif endpoint == SYSTEM_SOCKET:
        hint = (
            f"Start a daemon for {root} with `modelctl start --socket PATH` and set MODELD_SOCKET to that path,"
            f" or unset MODELS_HOME to use {store}."
        )
    else:
        hint = (
            f"Stop that daemon with `modelctl stop` and start one for {root} with `modelctl start`,"
            f" or unset MODELS_HOME to use {store}."
        )
    return WrongStore(f"the daemon at {endpoint} serves the store {store}, but MODELS_HOME names {root}", hint=hint)


def dial_by_store(root: str | None = None) -> tuple[Endpoint, Channel] | None:
    """The daemon of a store (by default of the one that this user means), found by the store's lock.

    A daemon that was started with another runtime or temporary directory listens where this client would not look.
    """
    try:
        root = root or locate.root()
    except (OSError, ValueError, NoRoot):
        return None
    endpoint = locate.of_store(root)
    if endpoint is None or locate.fault(endpoint):
        return None
    try:
        probe = dial(endpoint)
        if probe is None or not _serves(probe, root):
            return None
        made = dial(endpoint)
    except NoDaemon:
        return None
    return None if made is None else (endpoint, made)


def _serves(probe: Channel, root: str) -> bool:
    """Whether the hello names this store: the lock may be a left-over, and another daemon may listen there by now."""
    wire = ClientConnection()
    try:
        probe.settimeout(PROBE_SECONDS)
        while wire.hello is None:
            data = probe.recv(READ_BYTES)
            wire.feed(data)
            if wire.next_reply() is None and not data:
                return False
        return locate.same_directory(wire.hello.store, root)
    except (OSError, RemoteError):
        return False
    finally:
        probe.close()


def nothing_to_cancel() -> None:
    """A caller that cannot be cancelled while it waits."""
