"""Which endpoint a client uses, and whether its place can be trusted. No connection is made here.

An endpoint that was named (argument, `MODELD_SOCKET`, configuration file) is taken as it is. A default one is used only
when its directory belongs to this user; when it does not exist and the system service does, the service is used.

Nothing heavy is imported: the command's fast path goes through here. So faults are sentences, not exceptions.
"""

from __future__ import annotations

import os

from modelclient.platform import system
from modelwire import endpoint as wire


class Endpoint:
    """`named`: the user chose this path. `system`: it is the machine's service, which no client starts."""

    __slots__ = ("named", "path", "system")

    def __init__(self, path: str, *, named: bool = False, system: bool = False) -> None:
        self.path = path
        self.named = named
        self.system = system


def find(argument: str | None = None, *, system_socket: str = wire.SYSTEM_SOCKET) -> Endpoint:
    if argument:
        return Endpoint(os.path.abspath(os.path.expanduser(argument)), named=True)
    if os.environ.get("MODELD_SOCKET", "").strip():
        return Endpoint(wire.here(), named=True)
    configured = configured_socket()
    own = wire.here(configured)
    if not configured and not os.path.lexists(own) and os.path.lexists(system_socket):
        return Endpoint(system_socket, system=True)
    return Endpoint(own, named=bool(configured))


def configured_socket() -> str | None:
    """`socket` of the first configuration file that exists. Raises OSError or ValueError when it cannot be read."""
    for path in wire.config_paths(os.environ):
        try:
            with open(path, "rb") as file:
                text = file.read()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:
            if path == wire.SYSTEM_CONFIG:
                continue  # an operator may keep it to the service: it is then not meant for clients
            raise
        if b"socket" not in text and b"\\" not in text:
            return None  # reading TOML costs more than everything else on the fast path
        return _socket_of(text, path)
    return None


def _socket_of(text: bytes, path: str) -> str | None:
    import tomllib

    try:
        value = tomllib.loads(text.decode()).get("socket")
    except ValueError as error:
        raise ValueError(f"the configuration file {path} is not TOML: {error}") from None
    if value is not None and not isinstance(value, str):
        raise ValueError(f"the configuration file {path}: socket must be a string")
    return value.strip() or None if value else None


def fault(endpoint: Endpoint) -> str | None:
    """Why this endpoint must not be used, or None. An absent one has no fault."""
    return system.endpoint_fault(endpoint.path, named=endpoint.named, system=endpoint.system)
