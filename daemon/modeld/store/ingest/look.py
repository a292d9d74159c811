"""Inspects a new blob once, before its model is published.

The batch that commits the bytes of any producer calls it. A failed inspection stops no publication; the log has the
reason.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import structlog

from modeld.inspect.formats import HEAD_BYTES, format_of_content
from modeld.inspect.soundness import fault_of
from modeld.platform import files

log = structlog.get_logger("modeld.store.ingest")


@dataclass(frozen=True, slots=True)
class Learned:
    format: str | None = None
    """None when the bytes are of no known format, or could not be inspected."""

    fault: str | None = None
    """Why the bytes are certainly not what the file's name promises."""


def look_at(path: str, origin: str) -> Learned:
    """Blocking; never raises. `origin` is the file's name where the bytes come from."""
    try:
        with files.closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)) as descriptor:
            format_ = format_of_content(os.pread(descriptor, HEAD_BYTES, 0))
            return Learned(format_, fault_of(descriptor, os.fstat(descriptor).st_size, origin))
    except Exception as fault:  # noqa: BLE001 - what the bytes say must not decide whether they are published
        log.warning("nothing could be learned from a new blob", path=path, origin=origin, reason=str(fault))
        return Learned()
