"""Where the daemon listens: one pure calculation, used by the daemon, the library and the command.

First hit wins: `MODELD_SOCKET`; `socket` in the configuration file; `$XDG_RUNTIME_DIR/modeld/modeld.sock`;
`/run/user/<uid>/modeld/modeld.sock` where that directory exists; a directory of the user's own under the
temporary directory. The last two exist because a shell without a login session (cron, su, a container) has no
XDG_RUNTIME_DIR. A caller checks a directory's owner and mode: see `unsafe_directory`.

This module imports nothing but `os` and `stat`: the command's fast path uses it, and there each millisecond counts.
"""

from __future__ import annotations

import os
import stat
import sys

TYPE_CHECKING = False  # collections.abc costs the fast path of the command a millisecond
if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM_SOCKET = "/run/modeld/modeld.sock"
SYSTEM_CONFIG = "/etc/modeld/config.toml"
SOCKET_NAME = "modeld.sock"
PATH_LIMIT = 103 if sys.platform == "darwin" else 107
"""Bytes of `sun_path` without its NUL."""


def config_paths(environ: Mapping[str, str]) -> list[str]:
    """The configuration files that may exist, the one that counts first."""
    explicit = environ.get("MODELD_CONFIG", "").strip()
    if explicit:
        return [explicit]
    base = _absolute(environ, "XDG_CONFIG_HOME")
    if not base:
        home = environ.get("HOME", "").strip()
        base = os.path.join(home, ".config") if home else ""
    own = [os.path.join(base, "modeld", "config.toml")] if base else []
    return [*own, SYSTEM_CONFIG]


def runtime_directory(environ: Mapping[str, str], uid: int, *, run_user_exists: bool) -> str:
    """The directory of the user's own endpoint."""
    runtime = _absolute(environ, "XDG_RUNTIME_DIR")
    if runtime:
        return os.path.join(runtime, "modeld")
    if run_user_exists:
        return f"/run/user/{uid}/modeld"
    return os.path.join(_absolute(environ, "TMPDIR") or "/tmp", f"modeld-{uid}")  # noqa: S108 - owner and mode are checked before use


def _absolute(environ: Mapping[str, str], variable: str) -> str:
    """The variable's directory. A relative one is ignored, as the base directory specification says: daemon and client
    would each find another endpoint from another working directory."""
    path = environ.get(variable, "").strip()
    return path if os.path.isabs(path) else ""


def socket_path(environ: Mapping[str, str], configured: str | None, uid: int, *, run_user_exists: bool) -> str:
    """The endpoint. `configured` is the configuration file's `socket`, if it has one."""
    explicit = environ.get("MODELD_SOCKET", "").strip() or (configured or "").strip()
    if explicit:
        return os.path.abspath(os.path.expanduser(explicit))
    return os.path.join(runtime_directory(environ, uid, run_user_exists=run_user_exists), SOCKET_NAME)


def here(configured: str | None = None) -> str:
    """The endpoint for this process."""
    uid = os.getuid()
    return socket_path(os.environ, configured, uid, run_user_exists=os.path.isdir(f"/run/user/{uid}"))


def unsafe_directory(info: os.stat_result, uid: int, *, trusted_uids: tuple[int, ...] = ()) -> str | None:
    """Why a directory must not hold an endpoint, or None when it may. `info` comes from lstat."""
    if stat.S_ISLNK(info.st_mode):
        return "it is a symbolic link"
    if not stat.S_ISDIR(info.st_mode):
        return "it is not a directory"
    if info.st_uid != uid and info.st_uid not in trusted_uids:
        return f"it belongs to uid {info.st_uid}, not to uid {uid}"
    if info.st_mode & 0o022 and not info.st_mode & stat.S_ISVTX:
        return f"others can write to it (mode {stat.S_IMODE(info.st_mode):04o})"
    return None
