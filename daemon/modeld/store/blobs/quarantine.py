"""Quarantine: bad bytes are kept for an investigation, and never stay under a name in use."""

from __future__ import annotations

import errno
import os
import re
from datetime import UTC, datetime
from typing import Final

from modeld.store.digest import Signature
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modelwire.values import Quarantined, QuarantineList

_UNFIT = re.compile(r"[^A-Za-z0-9]")
_KEPT = re.compile(r"(\d{8}T\d{6}Z)-(.*?)(?:-\d+)?(?:\.bin)?")
_MOMENT: Final = "%Y%m%dT%H%M%SZ"
MAX_REASON = 100
"""A file name has 255 bytes on every filesystem; the time and a number need their share."""

KEPT_SECONDS: Final = 30 * 86_400
"""Long enough for an investigation; then a sweep removes the bytes."""

SHOWN: Final = 10_000
"""Items in one answer, the newest: 3 MB, where a reply may have 8."""


def quarantine(
    layout: Layout, path: str, reason: str, now: datetime | None = None, *, only: Signature | None = None
) -> str:
    """Moves what lies at `path` (also a link or a directory, never what it points to); the new path.

    FileNotFoundError when nothing lies there, or another file than `only`: another tool may name good bytes over the
    bad ones at any moment.
    """
    moment = (now or datetime.now(UTC)).astimezone(UTC).strftime(_MOMENT)
    stem = f"{layout.quarantine_dir}/{moment}-{_UNFIT.sub('-', reason[:MAX_REASON])}"
    target, number = f"{stem}.bin", 1
    durable.make_directories(layout.quarantine_dir, below=layout.root)
    while not durable.name_without_replacing(path, target):
        number += 1
        target = f"{stem}-{number}.bin"
    if only is not None:
        moved = os.lstat(target)
        if (moved.st_dev, moved.st_ino) != (only.device, only.inode):
            if not durable.name_without_replacing(target, path):
                durable.remove(target)  # a third file has the name by now, as if it had replaced the second
            raise FileNotFoundError(errno.ENOENT, "another file has taken its place", path)
    return target


def taken_at(name: str, info: os.stat_result) -> float:
    """When the file was set aside: the time in its name, else its last change."""
    found = _KEPT.fullmatch(name)
    if found is not None:
        try:
            return datetime.strptime(found[1], _MOMENT).replace(tzinfo=UTC).timestamp()
        except ValueError:  # no such day
            pass
    return info.st_mtime


def kept(layout: Layout) -> QuarantineList:
    """Blocking: all items in quarantine, the newest first."""
    items: list[tuple[float, Quarantined]] = []
    with durable.store_faults("read", layout.quarantine_dir):
        try:
            entries = os.scandir(layout.quarantine_dir)
        except FileNotFoundError:  # removed by another program; the next bad blob makes it again
            return QuarantineList()
    with durable.store_faults("read", layout.quarantine_dir), entries:
        for entry in entries:
            try:
                info = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            found = _KEPT.fullmatch(entry.name)
            reason = entry.name if found is None else found[2]
            moment = taken_at(entry.name, info)
            when = datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            item = Quarantined(path=entry.path, size_bytes=info.st_size, reason=reason, time=when)
            items.append((moment, item))
    items.sort(key=lambda row: (-row[0], row[1].path))
    return QuarantineList(
        items=tuple(item for _, item in items[:SHOWN]), size_bytes=sum(item.size_bytes for _, item in items)
    )
