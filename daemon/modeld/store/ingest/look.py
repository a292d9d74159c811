"""Inspects a new blob once, before its model is published.

The batch that commits the bytes of any producer calls it. A failed inspection stops no publication; the log has the
reason.
"""

from __future__ import annotations

import os

import structlog

from modeld.inspect.inspection import Inspection, inspect
from modeld.platform import files

log = structlog.get_logger("modeld.store.ingest")


def look_at(path: str, origin: str) -> Inspection:
    """Blocking; never raises. `origin` is the file's name where the bytes come from."""
    try:
        with files.closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)) as descriptor:
            return inspect(descriptor, os.fstat(descriptor).st_size, origin)
    except Exception as fault:  # noqa: BLE001 - what the bytes say must not decide whether they are published
        log.warning("nothing could be learned from a new blob", path=path, origin=origin, reason=str(fault))
        return Inspection()
