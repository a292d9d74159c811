"""Bad bytes are set aside for whoever wants to know what happened; they never stay under a name that is used."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from modeld.store import durable

if TYPE_CHECKING:
    from modeld.store.layout import Layout

_UNFIT = re.compile(r"[^A-Za-z0-9]")
MAX_REASON = 100
"""A file name has 255 bytes on every filesystem; the time and a number need their share."""


def quarantine(layout: Layout, path: str, reason: str, now: datetime | None = None) -> str:
    """Moves what lies at `path` (also a link or a directory, never what it points to); the new path.

    FileNotFoundError when nothing lies there.
    """
    moment = (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    stem = f"{layout.quarantine_dir}/{moment}-{_UNFIT.sub('-', reason[:MAX_REASON])}"
    target, number = f"{stem}.bin", 1
    durable.make_directories(layout.quarantine_dir, below=layout.root)
    while not durable.name_without_replacing(path, target):
        number += 1
        target = f"{stem}-{number}.bin"
    return target
