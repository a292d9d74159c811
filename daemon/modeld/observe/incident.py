"""An error that nobody foresaw: the log gets all of it, the client an id that finds it there."""

from __future__ import annotations

import uuid

import structlog

from modelwire.errors import Internal

log = structlog.get_logger("modeld.observe.incident")


def incident(error: BaseException, **where: object) -> Internal:
    """Logs the traceback and gives the error to answer with: never a traceback to a client."""
    number = uuid.uuid4().hex[:12]
    log.error("unforeseen error", incident=number, error=repr(error), exc_info=error, **where)
    return Internal(
        f"the daemon met an error that it did not foresee (incident {number})",
        hint=f"the daemon's log holds the details: look for incident {number}",
        details={"incident": number},
    )
