"""One daemon process: detached from the client that starts it, and the one line that it says when it stands or falls.

The line comes on a descriptor that the daemon is given, and closes:
`READY {"socket":…,"pid":…}` or `ERROR {"message":…,"hint":…,"code":…,"exit":…}`.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from modelwire.errors import NoDaemon

LOG_BYTES = 4 * 1024 * 1024
"""The daemon's standard error is set aside at this size; what it has to say in full is in its own log."""

LINE_BYTES = 64 * 1024
"""A sentence and its hint are a few hundred bytes; more is not read."""

TOO_LATE = b"\0"


class Spawned:
    """Started when it is made."""

    def __init__(self, socket_path: str) -> None:
        if not sys.executable:
            raise NoDaemon("no daemon runs, and this program does not know its interpreter", hint="run `modeld` first")
        self.log_path, log = _open_log()
        self._log_start = 0 if log is None else os.fstat(log).st_size
        self._read_end, write_end = os.pipe()
        # -P: a folder that is called modeld in some working directory is not the daemon.
        command = [sys.executable, "-P", "-m", "modeld", "--auto-started", "--socket", socket_path]
        try:
            process = subprocess.Popen(
                [*command, "--ready-fd", str(write_end)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL if log is None else log,
                pass_fds=(write_end,),
                start_new_session=True,
                cwd="/",
                env=_environment(),
            )
        except OSError as error:
            os.close(self._read_end)
            raise NoDaemon(f"no daemon could be started: {error}", hint="run `modeld` to see why") from None
        finally:
            os.close(write_end)
            if log is not None:
                os.close(log)
        self.pid = process.pid
        # A client that outlives the daemon must not keep its remains.
        threading.Thread(target=process.wait, name="modeld-reaper", daemon=True).start()

    def first_line(self, deadline: float, check_cancelled: Callable[[], None]) -> bytes:
        """The line, or what there is of it when the daemon ends; `TOO_LATE` at the deadline."""
        try:
            return self._read(deadline, check_cancelled)
        finally:
            os.close(self._read_end)

    def last_words(self) -> str:
        """The last line that a daemon which ended has left on its standard error."""
        if self.log_path is None:
            return ""
        try:
            with open(self.log_path, "rb") as log:
                log.seek(self._log_start)
                lines = log.read(LOG_BYTES).decode(errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip(" |+-\r") for line in reversed(lines) if any(map(str.isalnum, line))), "")

    def _read(self, deadline: float, check_cancelled: Callable[[], None]) -> bytes:
        waiting = select.poll()
        waiting.register(self._read_end, select.POLLIN)
        held = b""
        while b"\n" not in held and len(held) < LINE_BYTES:
            left = deadline - time.monotonic()
            if left <= 0:
                return TOO_LATE
            check_cancelled()
            if waiting.poll(min(left, 0.1) * 1000):
                more = os.read(self._read_end, LINE_BYTES)
                if not more:
                    break
                held += more
        return held.partition(b"\n")[0]


def _environment() -> dict[str, str]:
    """This one, fit for another working directory: a configuration file is found where the client found it."""
    environment = dict(os.environ)
    if (config := environment.get("MODELD_CONFIG", "").strip()) and not config.startswith("~"):
        environment["MODELD_CONFIG"] = os.path.abspath(config)
    return environment


def _open_log() -> tuple[str | None, int | None]:
    """Where the daemon's standard error goes. A place that cannot be written must not keep a daemon from starting."""
    import platformdirs

    path = os.path.join(platformdirs.user_state_dir("modeld", appauthor=False), "daemon.log")
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        log = os.open(path, flags, 0o600)
        if os.fstat(log).st_size > LOG_BYTES:
            os.close(log)
            os.replace(path, path + ".1")
            log = os.open(path, flags, 0o600)
    except OSError:
        return None, None
    return path, log
