"""Unforeseen errors: the log gets the details, the client an id by which to find them there."""

from __future__ import annotations

import uuid

import structlog

from modelwire.errors import Internal

log = structlog.get_logger("modeld.observe.incident")


def incident(error: BaseException, **where: object) -> Internal:
    """Logs the traceback and returns the error for the client, which never gets a traceback."""
    number = uuid.uuid4().hex[:12]
    log.error("unforeseen error", incident=number, error=repr(error), exc_info=error, **where)
    return Internal(
        f"the daemon met an error that it did not foresee (incident {number})",
        hint=f"Look for incident {number} in the daemon's log, which has the details.",
        details={"incident": number},
    )
