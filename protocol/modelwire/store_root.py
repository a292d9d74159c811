"""Which directory the store is in, and where its daemon's state is when there is no home directory: pure calculations,
used by the daemon, the library and the command.

It never falls back to another directory: a store in the wrong directory costs gigabytes and looks like lost models.
"""

from __future__ import annotations

import ntpath
import posixpath
from collections.abc import Mapping
from types import ModuleType

LOCK = ".modeld/lock"
"""Below the root: held by the store's daemon until it ends. The content describes the holder, its endpoint included."""

MAX_HOLDER_BYTES = 4096
"""An endpoint has about a hundred bytes; more is not read."""


class NoRoot(Exception):
    """Nothing says where the store is, or what does cannot be meant. `hint` says what to do."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def resolve_root(configured: str | None, environ: Mapping[str, str], platform: str) -> str:
    """The root for `sys.platform`. First hit wins: the configuration's `models_home`, MODELS_HOME, the platform's."""
    for origin, value in (("models_home", configured), ("MODELS_HOME", environ.get("MODELS_HOME"))):
        text = (value or "").strip()
        if text:
            return _chosen(origin, text, environ, platform)
    return _platform_root(environ, platform)


def state_directory(configured: str | None, environ: Mapping[str, str], platform: str) -> str | None:
    """The directory of a user's own daemon for its state: below $XDG_STATE_HOME, below the home directory, or in the
    store. Service accounts often have no home; None when nothing says where the store is either."""
    # The XDG specification says to ignore a relative path.
    base = environ.get("XDG_STATE_HOME", "").strip()
    if _paths(platform).isabs(base):
        return str(_paths(platform).join(base, "modeld"))
    if home := _home(environ, platform):
        return str(_paths(platform).join(home, ".local", "state", "modeld"))
    try:
        return str(_paths(platform).join(resolve_root(configured, environ, platform), ".modeld", "state"))
    except NoRoot:
        return None


def _chosen(origin: str, text: str, environ: Mapping[str, str], platform: str) -> str:
    if "\0" in text:
        raise NoRoot(f"{origin} contains a NUL")
    paths = _paths(platform)
    if text[:2] in ("~/", "~\\"):
        home = _home(environ, platform)
        if home is None:
            raise NoRoot(
                f"{origin} is '{text}', but there is no home directory: {_home_variable(platform)} is not set",
                hint="Write an absolute path.",
            )
        text = paths.join(home, text[2:])
    if not paths.isabs(text):
        raise NoRoot(
            f"{origin} is '{text}', which is relative: it would be another store in each working directory",
            hint="Write an absolute path, or a path that starts with ~/.",
        )
    return str(paths.normpath(text))


def _platform_root(environ: Mapping[str, str], platform: str) -> str:
    if platform == "win32":
        if local := _set(environ, "LOCALAPPDATA"):
            return ntpath.join(local, "models")
        if home := _home(environ, platform):
            return ntpath.join(home, "AppData", "Local", "models")
        raise _nowhere("LOCALAPPDATA")
    data = None if platform == "darwin" else _set(environ, "XDG_DATA_HOME")
    if data is not None and posixpath.isabs(data):  # the specification has relative values ignored
        return posixpath.join(posixpath.normpath(data), "models")
    home = _home(environ, platform)
    if home is None:
        raise _nowhere("HOME")
    below = "Library/Application Support/models" if platform == "darwin" else ".local/share/models"
    return posixpath.join(home, below)


def _nowhere(variable: str) -> NoRoot:
    return NoRoot(
        f"nothing says where the models are: no models_home, no MODELS_HOME, and {variable} is not set",
        hint="Set models_home in the configuration or MODELS_HOME in the environment to an absolute path.",
    )


def _home(environ: Mapping[str, str], platform: str) -> str | None:
    home = _set(environ, _home_variable(platform))
    return home if home is not None and _paths(platform).isabs(home) else None


def _home_variable(platform: str) -> str:
    return "USERPROFILE" if platform == "win32" else "HOME"


def _set(environ: Mapping[str, str], variable: str) -> str | None:
    return environ.get(variable, "").strip() or None


def _paths(platform: str) -> ModuleType:
    return ntpath if platform == "win32" else posixpath
