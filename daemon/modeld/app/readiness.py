"""Tells how the start went: whoever waits on the pipe, the service manager, and a person by standard error."""

from __future__ import annotations

import os
import sys

from modeld.observe import notify


class Readiness:
    def __init__(self, descriptor: int | None) -> None:
        self._pipe = notify.ReadyPipe(descriptor)

    def ready(self, socket: str, store: str) -> None:
        self._pipe.ready({"socket": socket, "pid": os.getpid()})
        notify.ready(f"serving {store}")

    def failed(self, message: str, *, hint: str | None, code: str, exit_code: int, endpoint: str | None = None) -> int:
        """The reason in one line, the next step in another; gives the exit code back.

        `endpoint` is that of the daemon which is in the way: a client knows by it whether to wait for that one.
        """
        sys.stderr.write(f"modeld: {message}\n" + (f"  {hint}\n" if hint else ""))
        self._pipe.error({"code": code, "message": message, "hint": hint, "exit": exit_code, "endpoint": endpoint})
        notify.status(message)
        return exit_code
