"""Which endpoint a client uses, whether its place can be trusted, and which store the client means. No connection is
made here.

An endpoint that was named (argument, `MODELD_SOCKET`, configuration file) is taken as it is. A default one is used only
when its directory belongs to this user. When it does not exist, or another user has put a directory in its place, and
the system service exists, the service is used.

Nothing heavy is imported: the command's fast path goes through here. So faults are sentences, not exceptions.
"""

from __future__ import annotations

import os
import sys

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
    configured = _configured("socket")
    own = wire.here(configured)
    if not configured and (not os.path.lexists(own) or system.squatted(own)) and os.path.lexists(system_socket):
        return Endpoint(system_socket, system=True)
    return Endpoint(own, named=bool(configured))


def _configured(key: str) -> str | None:
    """A text of the first configuration file that exists. Raises OSError or ValueError when it cannot be read."""
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
        if key.encode() not in text and b"\\" not in text:
            return None  # reading TOML costs more than everything else on the fast path
        return _value_of(key, text, path)
    return None


def _value_of(key: str, text: bytes, path: str) -> str | None:
    import tomllib

    try:
        value = tomllib.loads(text.decode()).get(key)
    except ValueError as error:
        raise ValueError(f"the configuration file {path} is not TOML: {error}") from None
    if value is not None and not isinstance(value, str):
        raise ValueError(f"the configuration file {path}: {key} must be a string")
    return value.strip() or None if value else None


def fault(endpoint: Endpoint) -> str | None:
    """Why this endpoint must not be used, or None. An absent one has no fault."""
    return system.endpoint_fault(endpoint.path, named=endpoint.named, system=endpoint.system)


def other_store(store: str) -> str | None:
    """What MODELS_HOME of this environment names, when that is another directory than the store of a daemon."""
    named = os.environ.get("MODELS_HOME", "").strip()
    if not named or named == store:
        return None
    from modelwire.store_root import NoRoot, resolve_root  # the fast path seldom comes this far

    try:
        named = resolve_root(named, os.environ, sys.platform)
        if same_directory(named, store) or same_directory(root(), store):
            return None  # `models_home` in the client's own configuration overrides the variable
    except (OSError, ValueError, NoRoot):
        pass  # what cannot be meant is not the store of a daemon that runs
    return named


def root() -> str:
    """The root of the store that this user means. Raises OSError, ValueError or NoRoot."""
    from modelwire.store_root import resolve_root

    return resolve_root(_models_home(), os.environ, sys.platform)


def state_directory() -> str | None:
    """Where the standard error of a daemon goes that this user starts; None when there is no such place, or when the
    daemon will refuse it."""
    from modelwire.store_root import state_directory

    try:
        if configured := os.environ.get("MODELD_STATE_DIR", "").strip() or _configured("state_dir"):
            path = os.path.expanduser(configured) if configured.startswith("~/") else configured
            return path if os.path.isabs(path) else None
        return state_directory(_models_home(), os.environ, sys.platform)
    except (OSError, ValueError):
        return None  # the daemon will report what is wrong with the configuration


def _models_home() -> str | None:
    return os.environ.get("MODELD_MODELS_HOME", "").strip() or _configured("models_home")


def of_store(root: str) -> Endpoint | None:
    """The endpoint that the lock of a store names. Its daemon may have ended without a word, and the path may be
    another daemon's by now."""
    import json

    from modelwire.store_root import LOCK, MAX_HOLDER_BYTES

    try:
        descriptor = os.open(os.path.join(root, LOCK), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            path = json.loads(os.read(descriptor, MAX_HOLDER_BYTES))["endpoint"]
        finally:
            os.close(descriptor)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    if not isinstance(path, str) or not os.path.isabs(path) or "\0" in path:
        return None
    return Endpoint(path, system=path == wire.SYSTEM_SOCKET)


def same_directory(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them does not exist, or this user may not look
        return os.path.realpath(one) == os.path.realpath(other)
