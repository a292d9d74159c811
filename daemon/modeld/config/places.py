"""The directories of the daemon's state and log, computed from settings and environment without a look at the disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from modeld.config.errors import ConfigError
from modeld.config.settings import Settings
from modelwire import store_root


def state_directory(settings: Settings, environ: Mapping[str, str]) -> str:
    """`state_dir`, else systemd's STATE_DIRECTORY, else that of the user: see `modelwire.store_root`."""
    configured = (settings.state_dir or "").strip()
    if configured:
        return _absolute(configured, environ)
    given = _from_service_manager(environ, "STATE_DIRECTORY")
    if given:
        return given
    found = store_root.state_directory(settings.models_home, environ, sys.platform)
    if found is None:
        raise ConfigError(
            "no directory for the daemon's state: state_dir, STATE_DIRECTORY, XDG_STATE_HOME, HOME and MODELS_HOME are"
            " all unset",
            hint="Set state_dir in the configuration, or MODELD_STATE_DIR in the environment.",
        )
    return found


def log_directory(settings: Settings, environ: Mapping[str, str]) -> str:
    """The directory of the activity log: systemd's LOGS_DIRECTORY when the unit sets one, else that of the state."""
    if not (settings.state_dir or "").strip():
        given = _from_service_manager(environ, "LOGS_DIRECTORY")
        if given:
            return given
    return state_directory(settings, environ)


def _from_service_manager(environ: Mapping[str, str], name: str) -> str | None:
    """systemd joins several directories with colons; modeld's units name the daemon's own first."""
    first = environ.get(name, "").split(":", 1)[0].strip()
    return first if os.path.isabs(first) else None


def _absolute(path: str, environ: Mapping[str, str]) -> str:
    if path == "~" or path.startswith("~/"):
        home = environ.get("HOME", "").strip()
        if not home:
            raise ConfigError(f"state_dir: {path!r} needs a home directory, and HOME is unset")
        path = home + path[1:]
    if not os.path.isabs(path):
        raise ConfigError(
            f"state_dir: expected an absolute path, got {path!r}",
            hint="Write the whole path, starting with / or ~/.",
        )
    return os.path.normpath(path)
