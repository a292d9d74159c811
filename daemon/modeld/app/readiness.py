"""Reports the outcome of the start: to the client on the pipe, to the service manager, and on standard error."""

from __future__ import annotations

import os
import sys

from modeld.observe import notify
from modeld.observe.line_writer import write_last


class Readiness:
    def __init__(self, descriptor: int | None) -> None:
        self._pipe = notify.ReadyPipe(descriptor)

    def ready(self, socket: str, store: str) -> None:
        self._pipe.ready({"socket": socket, "pid": os.getpid()})
        notify.ready(f"serving {store}")

    def failed(self, message: str, *, hint: str | None, code: str, exit_code: int, endpoint: str | None = None) -> int:
        """Reports the error in one line and the hint in another. Returns `exit_code`.

        `endpoint` is that of the daemon that prevents this start: a client decides by it whether to connect there.
        """
        write_last(sys.stderr, f"modeld: {message}\n" + (f"  {hint}\n" if hint else ""))
        self._pipe.error({"code": code, "message": message, "hint": hint, "exit": exit_code, "endpoint": endpoint})
        notify.status(message)
        return exit_code
