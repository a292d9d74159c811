"""Which endpoint a client talks to, and whether its place can be trusted. No connection is made here.

An endpoint that was named (argument, `MODELD_SOCKET`, configuration file) is taken as it is. A default one is used only
when its directory is ours; when it does not exist and the system service does, the system service is meant.

Nothing heavy is imported: the command's first door goes through here. So faults are sentences, not exceptions.
"""

from __future__ import annotations

import os
import stat

from modelwire import endpoint as wire


class Endpoint:
    """`named`: somebody chose this path. `system`: it is the machine's service, which no client starts."""

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
                continue  # an operator may keep it to the service: it then says nothing to us
            raise
        if b"socket" not in text and b"\\" not in text:
            return None  # reading TOML costs more than everything else the first door does
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
    if len(os.fsencode(endpoint.path)) > wire.PATH_LIMIT:
        return f"the endpoint {endpoint.path} is longer than the {wire.PATH_LIMIT} bytes that a socket may have"
    directory = os.path.dirname(endpoint.path)
    if not endpoint.named:
        unsafe = _unsafe(directory, system=endpoint.system)
        if unsafe:
            return f"the endpoint's directory {directory} must not be used: {unsafe}"
    try:
        info = os.stat(endpoint.path)
    except OSError:
        return None  # connecting says it better
    if not stat.S_ISSOCK(info.st_mode):
        return f"the endpoint {endpoint.path} is not a socket"
    return None


def _unsafe(directory: str, *, system: bool) -> str | None:
    try:
        info = os.lstat(directory)
        if system:
            # The service manager may give the directory to the service's own user. Nobody but root can put a
            # directory into root's, so then the parent is what must be root's.
            parent = wire.unsafe_directory(os.lstat(os.path.dirname(directory)), 0)
            return wire.unsafe_directory(info, 0, trusted_uids=() if parent else (info.st_uid,))
    except FileNotFoundError:
        return None
    except OSError as error:
        return str(error)
    return wire.unsafe_directory(info, os.getuid())
