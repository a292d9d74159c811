"""`stop`: asks the daemon to end in good order, and returns when it has. Never starts one."""

from __future__ import annotations

import argparse
import os
import time

from modelclient.connect_or_start import Absent
from modelclient.ctl.arguments import seconds
from modelclient.ctl.output import count
from modelclient.ctl.session import Session
from modelclient.ctl.table import line
from modelclient.platform import system
from modelwire.errors import TimedOut
from modelwire.units import rounded_duration

GRACE_SECONDS = 10.0
"""Beyond the daemon's own deadline for its jobs: for what it writes at the end."""

LONGEST_SECONDS = 3600
"""The daemon takes no longer deadline."""

UNSEEN_SECONDS = 1.0
"""From its path being gone to its end a daemon takes milliseconds."""

PAUSE_SECONDS = 0.02


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--deadline",
        metavar="SECONDS",
        type=seconds(0, LONGEST_SECONDS),
        help="give running jobs this long to end, such as 90 or 15m",
    )


def run(session: Session, args: argparse.Namespace) -> None:
    try:
        client = session.client(start=False, any_store=True)
    except Absent as error:
        error.hint = "To stop a daemon at another endpoint, name it with --socket."
        raise
    status = client.status()
    drained = client.drain(args.deadline)
    running = count(drained.running, "running job")
    if drained.running:
        session.note(f"waiting up to {rounded_duration(drained.deadline_s)} for {running}")
    deadline = time.monotonic() + drained.deadline_s + GRACE_SECONDS
    if not (client.wait_closed(deadline - time.monotonic()) and _gone(status.pid, client.endpoint, deadline)):
        raise TimedOut(
            f"the daemon (pid {status.pid}) has been asked to stop and has not ended yet",
            hint=f"See what it is waiting for with `modelctl status`, or end it with `kill {status.pid}`.",
        )
    session.show(
        {"pid": status.pid, "stopped": True, "running": drained.running, "waiting": drained.waiting},
        quiet=(),
        text=line(f"stopped: {status.server}, pid {status.pid}"),
    )


def _gone(pid: int, endpoint: str, deadline: float) -> bool:
    """Whether the daemon has ended. Connecting would not show it: a service manager would start the next one.

    Its path goes before its locks and its process. One in another container cannot be seen: then the path decides.
    """
    unlinked_at: float | None = None
    while not system.has_ended(pid):
        now = time.monotonic()
        if unlinked_at is None and not os.path.lexists(endpoint):
            unlinked_at = now
        if unlinked_at is not None and now > unlinked_at + UNSEEN_SECONDS:
            return True
        if now >= deadline:
            return False
        time.sleep(PAUSE_SECONDS)
    return True
