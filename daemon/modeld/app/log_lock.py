"""The lock of an activity log, which allows one daemon to write to it.

By default all daemons of one user have their log at the same path, whatever their stores and sockets. Two writers would
use each sequence number twice, and a watcher that resumes from a number would miss or repeat events.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from modeld.platform import locks
from modelwire.errors import InUse

_PID_BYTES = 32


@contextlib.contextmanager
def sole_writer(log: str, store: str) -> Iterator[None]:
    """Holds the lock beside the log, or raises `InUse` with the pid of its holder. The lock file stays."""
    try:
        os.makedirs(os.path.dirname(log), mode=0o700, exist_ok=True)
        descriptor = locks.take(f"{log}.lock", mode=0o600, max_content=_PID_BYTES)
    except locks.Held as held:
        raise _in_use(log, store, held.content) from None
    except (OSError, locks.NotAFile):
        # Opening the log fails for the same reason next, with an error that says why.
        yield
        return
    try:
        locks.write(descriptor, b"%d\n" % os.getpid())
        yield
    finally:
        os.close(descriptor)


def _in_use(log: str, store: str, holder: bytes) -> InUse:
    pid = holder.strip().decode("ascii", "replace")
    return InUse(
        f"the activity log {log} is written by {f'pid {pid}' if pid.isdigit() else 'another daemon'}",
        hint=f"Give the daemon of {store} a state_dir of its own.",
        details={"log": log},
    )
