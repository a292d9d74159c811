"""A real daemon on a machine whose directory server is slow: run as a program, this is that daemon.

Only what the C library would do is replaced: the names of users and the groups of a user wait while a file is there.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import sys
import time
from typing import NoReturn

from rigs.real_daemon import TESTS, RealDaemon

SILENT = "SLOW_ACCOUNTS_FILE"
PATIENCE = "SLOW_ACCOUNTS_PATIENCE"


class DaemonWithSlowAccounts(RealDaemon):
    """Silent from the beginning, until `answer`."""

    def __init__(self, room: str) -> None:
        self._silent = os.path.join(room, "silent")
        super().__init__(room, {SILENT: self._silent, "PYTHONPATH": TESTS})
        self.program = (os.path.abspath(__file__),)
        with open(self._silent, "w", encoding="ascii"):
            pass

    def gives_up_after(self, seconds: float) -> None:
        """From the next start on."""
        self.environ[PATIENCE] = str(seconds)

    def answer(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._silent)

    def asked(self) -> list[int]:
        """The users that it was asked for up to now."""
        with contextlib.suppress(FileNotFoundError), open(f"{self._silent}.asked", encoding="ascii") as file:
            return [int(line) for line in file]
        return []


def _main() -> int:
    from modeld.__main__ import main
    from modeld.access import accounts

    silent = os.environ.pop(SILENT)
    patience = float(os.environ.pop(PATIENCE, accounts.LOOK_UP_SECONDS))
    vars(accounts.Accounts)["__init__"].__kwdefaults__["timeout"] = patience

    def getpwuid(uid: int) -> NoReturn:
        with open(f"{silent}.asked", "a", encoding="ascii") as file:
            file.write(f"{uid}\n")
        while os.path.exists(silent):
            time.sleep(0.01)
        raise KeyError(uid)

    vars(pwd)["getpwuid"] = getpwuid
    return main()


if __name__ == "__main__":
    sys.exit(_main())
