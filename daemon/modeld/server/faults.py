"""Gives internal errors a number that the log has too."""

from __future__ import annotations

import uuid

import structlog

from modelwire.errors import Internal

log = structlog.get_logger("modeld.server")


def numbered(fault: Internal) -> Internal:
    """Gives an internal error without an incident number one, such as the error of a disk, and logs it under that."""
    if "incident" in fault.details:
        return fault
    number = uuid.uuid4().hex[:12]
    log.error("internal error", incident=number, error=fault.message, details=fault.details)
    return Internal(
        fault.message,
        hint=fault.hint or f"Look for incident {number} in the daemon's log.",
        retryable=fault.retryable,
        retry_after_ms=fault.retry_after_ms,
        details={**fault.details, "incident": number},
    )
