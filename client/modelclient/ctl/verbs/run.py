"""`run NAME -- COMMAND`: runs a command that uses a model, and holds a lease of the model meanwhile.

The lease ends with this process, however the process ends. After a restart of the daemon this process takes the lease
again.
"""

from __future__ import annotations

import argparse
import os
import threading
from contextlib import ExitStack, suppress
from typing import Final

from modelclient import platform
from modelclient.client import Client
from modelclient.ctl.session import Session
from modelwire.errors import InvalidRequest, ModeldError
from modelwire.limits import PURPOSE
from modelwire.values import Leased

PLACE: Final = "{path}"

_LOOK_SECONDS, _AGAIN_SECONDS = 60.0, 1.0
"""How long one look at the connection lasts, and the time between two attempts to get the lease back."""

NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""As a shell reports it."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="the model")
    parser.add_argument(
        "command",
        metavar="COMMAND",
        nargs=argparse.REMAINDER,
        help=f"after `--`: the command and its arguments; {PLACE} in them, and MODEL_PATH in its environment, is the"
        " model's path",
    )
    parser.epilog = "The exit code is that of the command."


def run(session: Session, args: argparse.Namespace) -> int:
    words = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not words:
        raise InvalidRequest("no command is given", hint=f"Write `modelctl run {args.name} -- COMMAND {PLACE}`.")
    lease = _Lease(session, args.name, os.path.basename(words[0])[:PURPOSE])
    path = lease.model.path
    try:
        return platform.commands().run(
            [word.replace(PLACE, path) for word in words], {**os.environ, "MODEL_PATH": path}, lease.start
        )
    except OSError as error:
        fault = InvalidRequest(f"{words[0]} cannot be run: {error.strerror}", hint="Check the command after `--`.")
        fault.exit_code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        raise fault from None
    finally:
        lease.ended.set()


class _Lease(threading.Thread):
    """Keeps the model for as long as this process lives: the connection is never closed."""

    def __init__(self, session: Session, name: str, purpose: str) -> None:
        super().__init__(name="lease", daemon=True)
        self.ended = threading.Event()
        self._session, self._name, self._purpose = session, name, purpose
        self._client = session.client()
        self._kept = ExitStack()
        self.model = self._acquired()

    def _acquired(self) -> Leased:
        return self._kept.enter_context(self._client.lease(self._name, purpose=self._purpose))

    def run(self) -> None:
        try:
            while not self.ended.is_set():
                if self._client.wait_closed(_LOOK_SECONDS) and not self.ended.is_set():
                    self._acquire_again()
        except Exception:  # once the command has ended, the main thread closes the connection under this one
            if not self.ended.is_set():
                raise

    def _acquire_again(self) -> None:
        self._session.note(f"the daemon has ended; {self.model.name} is not held until it runs again")
        while not self.ended.wait(_AGAIN_SECONDS):
            with suppress(ModeldError):
                self._client = Client(self._session.socket, start=False, timeout=self._session.timeout)
                again = self._acquired()
                other = "" if again.blob == self.model.blob else ", which stands for other content now"
                self._session.note(f"{self.model.name} is held again{other}")
                return
