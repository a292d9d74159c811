"""Starts a daemon for the client that finds none, waits for it with a bound, and starts one for many clients.

Many clients may come at once. A lock beside the endpoint keeps them from starting one each; it only saves work. The
daemon's own lifetime lock decides: a daemon that loses it reports `in_use`, and its client goes on trying to connect.

The daemon reports by one line: `READY {"socket":…,"pid":…}` or `ERROR {"message":…,"hint":…,"code":…,"exit":…}`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from modelclient import dialing, locate, platform
from modelclient.locate import Endpoint
from modelclient.platform.interface import Channel, Spawned
from modelwire import exits
from modelwire.errors import NoDaemon

EXTRA = ("modeld", "structlog", "filelock", "xxhash")
"""What only the daemon needs. Without them this installation is a client, and uses the `modeld` on PATH."""

INSTALL = "pip install 'modeld[daemon]'"

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.5


class StartFailed(NoDaemon):
    """A daemon was started and gave up. Message, hint and code are its own, `exit_code` is what it ended with."""

    def __init__(
        self, message: str, *, hint: str | None = None, code: str | None = None, exit_code: int = exits.NO_DAEMON
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.exit_code = exit_code


class StillStarting(NoDaemon):
    """A daemon was started, and the deadline passed before it reported anything."""


def missing_packages() -> list[str]:
    return [name for name in EXTRA if find_spec(name) is None]


def start(
    endpoint: Endpoint, deadline: float, *, check_cancelled: Callable[[], None] = dialing.nothing_to_cancel
) -> Channel:
    """A connection to a daemon that this client or another one has started."""
    command = _command()
    pause = _FIRST_PAUSE
    in_use: NoDaemon | None = None
    while True:
        check_cancelled()
        if not endpoint.named:
            with suppress(OSError):  # the daemon will report what is wrong with the place
                os.makedirs(os.path.dirname(endpoint.path), mode=0o700, exist_ok=True)
        with platform.starting().start_lock(endpoint.path + ".start") as ours:
            dialing.check(endpoint)
            made = dialing.dial(endpoint)
            if made is None and ours:
                try:
                    in_use = _start_one(command, endpoint, deadline, check_cancelled)
                except StillStarting:
                    if in_use is None:
                        raise
                    raise in_use from None  # what the tries before it reported; this one had no time to report anything
                made = dialing.dial(endpoint)
        if made is not None:
            return made
        if time.monotonic() + pause >= deadline:
            raise in_use or NoDaemon(
                f"no daemon answered at {endpoint.path} in time; another client is starting one",
                hint="Try again in a moment, or see `modelctl status`.",
            )
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE) if ours else _FIRST_PAUSE


def _command() -> list[str]:
    """The program that is the daemon: of this installation, else of another one on PATH."""
    if not (missing := missing_packages()):
        if not sys.executable:
            raise NoDaemon("no daemon runs, and this program does not know its interpreter", hint="Run `modeld` first.")
        # -P: a folder that is called modeld in some working directory is not the daemon.
        return [sys.executable, "-P", "-m", "modeld"]
    if elsewhere := _on_path():
        return [elsewhere]
    raise NoDaemon(
        "no daemon runs, and none can be started: there is no other modeld on PATH, and this installation lacks"
        f" {', '.join(missing)}",
        hint=f"Install the daemon with `{INSTALL}`.",
    )


def _on_path() -> str | None:
    """The first `modeld` on PATH that is not the script of this very installation, which lacks the packages too."""
    own: set[str] = set()
    with suppress(metadata.PackageNotFoundError):
        files = metadata.distribution("modeld").files or ()
        own = {os.path.realpath(file.locate()) for file in files if file.stem == "modeld"}
    for directory in os.environ.get("PATH", "").split(os.pathsep):
        # Not a relative directory: what lies in some working directory is not the daemon.
        found = shutil.which("modeld", path=directory) if os.path.isabs(directory) else None
        if found is not None and os.path.realpath(found) not in own:
            return found
    return None


def _start_one(
    command: list[str], endpoint: Endpoint, deadline: float, check_cancelled: Callable[[], None]
) -> StartFailed | None:
    """None when the daemon is ready; its own error when another one holds the lock, for then waiting may help."""
    spawned = _spawn(command, endpoint)
    line = spawned.first_line(deadline, check_cancelled)
    where = f"See {spawned.log_path}." if spawned.log_path else "Run `modeld` to see why."
    if line is None:
        raise StillStarting(
            f"a daemon was started (pid {spawned.pid}) but is not ready yet; it goes on",
            hint=f"Try again in a moment. {where}",
        )
    word, _, rest = line.partition(b" ")
    if word == b"READY":
        return None
    if word == b"ERROR":
        return _failed(rest, where, endpoint)
    reason = f": {words}" if (words := spawned.last_words()) else ""
    raise StartFailed(f"a daemon was started and ended before it was ready{reason}", hint=where, code="internal")


def _spawn(command: list[str], endpoint: Endpoint) -> Spawned:
    state = locate.state_directory()
    log_path = None if state is None else os.path.join(state, "daemon.log")
    arguments = ["--auto-started", "--socket", endpoint.path]
    try:
        return platform.starting().spawn([*command, *arguments], _environment(), log_path)
    except OSError as error:
        raise NoDaemon(f"no daemon could be started: {error}", hint="Run `modeld` to see why.") from None


def _environment() -> dict[str, str]:
    """This one, fit for another working directory: a configuration file is found where the client found it."""
    environment = dict(os.environ)
    if (config := environment.get("MODELD_CONFIG", "").strip()) and not config.startswith("~"):
        environment["MODELD_CONFIG"] = os.path.abspath(config)
    return environment


def _failed(rest: bytes, where: str, endpoint: Endpoint) -> StartFailed:
    try:
        report: dict[str, Any] = dict(json.loads(rest))
    except (ValueError, TypeError):
        report = {}
    code, exit_code = report.get("code"), report.get("exit")
    failure = StartFailed(
        str(report.get("message") or "a daemon was started and could not go on"),
        hint=str(report.get("hint") or where),
        code=str(code) if code else None,
        exit_code=exit_code if isinstance(exit_code, int) and exit_code > 0 else exits.NO_DAEMON,
    )
    if code == "in_use" and report.get("endpoint") in (None, endpoint.path):
        return failure  # the race for this endpoint is lost: its winner will answer
    raise failure
