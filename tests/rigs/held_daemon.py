"""A real daemon whose copying stands still for as long as a test wants: run as a program, this is that daemon.

Nothing of it is replaced. Between two chunks, where work looks at its stop sign anyway, it waits while a file is there,
and goes on looking. So a test can ask for something at a time when a job surely runs, on a machine of any speed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping

from rigs.real_daemon import TESTS, RealDaemon

HOLD = "HELD_DAEMON_FILE"
DIES = "HELD_DAEMON_DIES"


class HeldDaemon(RealDaemon):
    """Copying stands while it holds; it does from the beginning."""

    def __init__(self, room: str, environ: Mapping[str, str] | None = None) -> None:
        self.hold_path = os.path.join(room, "hold")
        super().__init__(room, {**(environ or {}), HOLD: self.hold_path, "PYTHONPATH": TESTS})
        self.program = (os.path.abspath(__file__),)
        self.hold()

    def hold(self) -> None:
        with open(self.hold_path, "w", encoding="ascii"):
            pass

    def slow(self, seconds: float) -> None:
        """Not standing, but this long for each chunk of 4 MiB."""
        fresh = f"{self.hold_path}.new"
        with open(fresh, "w", encoding="ascii") as file:
            file.write(str(seconds))
        os.replace(fresh, self.hold_path)

    def dies(self, moment: str) -> None:
        """From the next start on, by SIGKILL, at the first publication: when it is "announced" in the ledger and the
        name not given yet, or when the model is "named" and the ledger does not know."""
        self.environ[DIES] = moment

    def lives(self) -> None:
        self.environ.pop(DIES, None)

    def release(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.hold_path)


def _main() -> int:
    from modeld.__main__ import main
    from modeld.jobs.job import AnyJob
    from modeld.jobs.runner import Runner
    from modeld.progress import FileProgress, check
    from modeld.store.blobs import hashing
    from modelwire.values import Added

    path = os.environ.pop(HOLD)

    def held(progress: FileProgress) -> None:
        check(progress)
        since = time.monotonic()
        while _still_held(path, since):
            check(progress)
            time.sleep(0.002)

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    vars(hashing)["check"] = held
    moment = os.environ.pop(DIES, None)
    if moment == "announced":
        record = Runner.about_to_publish

        async def record_and_die(self: Runner, job: AnyJob, intent: Added) -> None:
            await record(self, job, intent)
            die()

        setattr(Runner, "about_to_publish", record_and_die)  # noqa: B010
    elif moment == "named":
        setattr(Runner, "published", die)  # noqa: B010
    return main()


def _still_held(path: str, since: float) -> bool:
    try:
        with open(path, encoding="ascii") as file:
            pause = file.read()
    except FileNotFoundError:
        return False
    return not pause or time.monotonic() - since < float(pause)


if __name__ == "__main__":
    sys.exit(_main())
