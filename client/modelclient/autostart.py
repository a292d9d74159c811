"""Starts a daemon for the client that finds none: waited for with a bound, and only one for many clients.

Many clients may come at once. A lock beside the endpoint keeps them from starting one each; it only saves work.
The daemon's own lifetime lock decides: whoever loses it says `in_use`, and its client goes on trying to connect.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from modelclient import dialing
from modelclient.locate import Endpoint
from modelwire.errors import NoDaemon

EXTRA = ("modeld", "structlog", "filelock", "xxhash")
"""What only the daemon needs. Without them this installation is a client."""

INSTALL = "pip install 'modeld[daemon]'"

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.5


class StartFailed(NoDaemon):
    """A daemon was started and gave up; these are its words. `exit_code` is what it ended with."""

    def __init__(self, message: str, *, hint: str | None = None, code: str | None = None, exit_code: int = 9) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.exit_code = exit_code


class StillStarting(NoDaemon):
    """A daemon was started, and the time was over before it had said a word."""


def missing_packages() -> list[str]:
    return [name for name in EXTRA if find_spec(name) is None]


def start(
    endpoint: Endpoint, deadline: float, *, check_cancelled: Callable[[], None] = dialing.nothing_to_cancel
) -> socket.socket:
    """A connection to a daemon that this client or another one has started."""
    _check_installed()
    pause = _FIRST_PAUSE
    in_use: NoDaemon | None = None
    while True:
        check_cancelled()
        with _only_one(endpoint) as ours:
            dialing.check(endpoint)
            made = dialing.dial(endpoint)
            if made is None and ours:
                try:
                    in_use = _start_one(endpoint, deadline, check_cancelled)
                except StillStarting:
                    if in_use is None:
                        raise
                    raise in_use from None  # the words of the tries before; this one has had no time for any
                made = dialing.dial(endpoint)
        if made is not None:
            return made
        if time.monotonic() + pause >= deadline:
            raise in_use or NoDaemon(
                f"no daemon answered at {endpoint.path} in time; another client is starting one",
                hint="try again in a moment, or see `modelctl status`",
            )
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE) if ours else _FIRST_PAUSE


def _check_installed() -> None:
    if missing := missing_packages():
        raise NoDaemon(
            f"no daemon runs, and none can be started: this installation lacks {', '.join(missing)}",
            hint=f"install the daemon: {INSTALL}",
        )


@contextmanager
def _only_one(endpoint: Endpoint) -> Iterator[bool]:
    """Whether this client is the one to start a daemon. Where nothing can be locked, each is.

    The file stays: a lock whose file is removed can be held twice. The directory itself is locked by the daemon.
    """
    directory = os.path.dirname(endpoint.path)
    try:
        if not endpoint.named:
            os.makedirs(directory, mode=0o700, exist_ok=True)
        if os.stat(directory).st_uid != os.getuid():
            yield True  # a stranger could hold a lock there for ever
            return
        held = os.open(endpoint.path + ".start", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        yield True  # the daemon will say what is wrong with the place
        return
    try:
        yield _locked(held)
    finally:
        os.close(held)


def _locked(held: int) -> bool:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a filesystem without locks: more work, the same outcome
    return True


def _start_one(endpoint: Endpoint, deadline: float, check_cancelled: Callable[[], None]) -> StartFailed | None:
    """None when the daemon is ready; its words when another one holds the lock, for then waiting may help."""
    from modelclient.spawning import TOO_LATE, Spawned

    spawned = Spawned(endpoint.path)
    line = spawned.first_line(deadline, check_cancelled)
    where = f"see {spawned.log_path}" if spawned.log_path else "run `modeld` to see why"
    word, _, rest = line.partition(b" ")
    if word == b"READY":
        return None
    if word == b"ERROR":
        return _told(rest, where, endpoint)
    if line is TOO_LATE:
        raise StillStarting(
            f"a daemon was started (pid {spawned.pid}) but is not ready yet; it goes on",
            hint=f"try again in a moment; {where}",
        )
    said = f": {words}" if (words := spawned.last_words()) else ""
    raise StartFailed(f"a daemon was started and ended before it was ready{said}", hint=where, code="internal")


def _told(rest: bytes, where: str, endpoint: Endpoint) -> StartFailed:
    try:
        said: dict[str, Any] = dict(json.loads(rest))
    except (ValueError, TypeError):
        said = {}
    code, exit_code = said.get("code"), said.get("exit")
    failure = StartFailed(
        str(said.get("message") or "a daemon was started and could not go on"),
        hint=str(said.get("hint") or where),
        code=str(code) if code else None,
        exit_code=exit_code if isinstance(exit_code, int) and exit_code > 0 else 9,
    )
    if code == "in_use" and said.get("endpoint") in (None, endpoint.path):
        return failure  # the race for this endpoint is lost: its winner will answer
    raise failure
