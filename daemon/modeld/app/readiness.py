"""Tells how the start went: whoever waits on the pipe, the service manager, and a person by standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

from modeld.notify import ReadyPipe, ServiceManager


class Readiness:
    def __init__(self, environ: MutableMapping[str, str], descriptor: int | None) -> None:
        self._pipe = ReadyPipe(environ, fd=descriptor)
        self.manager = ServiceManager(environ)

    def ready(self, socket: str, store: str) -> None:
        self._pipe.ready({"socket": socket, "pid": os.getpid()})
        self.manager.ready(f"serving {store}")

    def failed(self, message: str, *, hint: str | None, code: str, exit_code: int) -> int:
        """The reason in one line, the next step in another; gives the exit code back."""
        sys.stderr.write(f"modeld: {message}\n" + (f"  {hint}\n" if hint else ""))
        self._pipe.error(code, message, hint)
        self.manager.status(message)
        return exit_code
