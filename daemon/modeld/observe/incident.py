"""Unforeseen errors: the log gets the details, the client an id by which to find them there."""

from __future__ import annotations

import uuid
from typing import Final

import structlog

from modelwire.errors import Internal, QueueFull, WireError

_NO_THREAD: Final = "can't start new thread"
"""The whole text of Python's error when the system refuses a thread."""

log = structlog.get_logger("modeld.observe.incident")


def incident(error: BaseException, **where: object) -> WireError:
    """Logs the traceback and returns the error for the client, which never gets a traceback."""
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        log.warning("no thread can be started", **where)
        return QueueFull(
            "the daemon's user has as many threads and processes as the system allows, and this needs one more",
            hint="Try again when other work has ended, or raise the limit: TasksMax= and LimitNPROC= of the service, or"
            " `ulimit -u`.",
            retry_after_ms=1000,
        )
    number = uuid.uuid4().hex[:12]
    log.error("unforeseen error", incident=number, error=repr(error), exc_info=error, **where)
    return Internal(
        f"the daemon met an error that it did not foresee (incident {number})",
        hint=f"Look for incident {number} in the daemon's log, which has the details.",
        details={"incident": number},
    )
