"""Recovery at start: cleans up after the run before, and is done before the first client is served.

The caller holds the store's lock, so everything in the private staging directory is from an earlier run. Nothing else
is changed: partials are resumed, blobs without a manifest wait for a sweep, other tools' files are theirs.
It is bounded by time: models that are not checked now are checked when a client resolves them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from modeld.store.digest import Digest
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modeld.store.maintain.walk import BlobFile, walk
from modeld.store.manifests.index import Index
from modelwire.errors import WireError

SWEEP_SECONDS: Final = 0.7
CHECK_SECONDS: Final = 0.5
"""With `SWEEP_SECONDS`, within the 1.5 s in which a daemon with 100,000 blobs is ready."""

_CHECKED_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryReport:
    """For the log and for `status`."""

    seconds: float
    staging_removed: int = 0
    staging_bytes: int = 0
    models_failed: tuple[str, ...] = ()
    """Names with a blob that is missing or cannot be read. Their manifests are kept."""
    damaged: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def recover(layout: Layout, index: Index, clock: Callable[[], float] = time.monotonic) -> RecoveryReport:
    started = clock()
    notes: list[str] = []
    removed, freed = _sweep_staging(layout, started + SWEEP_SECONDS, clock, notes)
    with durable.store_faults("sync", layout.manifests_dir):
        # A manifest that was named but not synced by a killed run is visible, so it must last from here on.
        durable.sync_directory(layout.manifests_dir)
    if not os.path.lexists(layout.linked):
        try:
            index.trees.linked.begin(_blobs_with_other_names(layout))
        except WireError as fault:  # a full disk, most likely: the models that can be served are
            notes.append(fault.message)
    failed, damaged = _check_models(index, clock() + CHECK_SECONDS, clock, notes)
    return RecoveryReport(
        seconds=clock() - started,
        staging_removed=removed,
        staging_bytes=freed,
        models_failed=tuple(failed),
        damaged=tuple(damaged),
        notes=tuple(notes),
    )


def _sweep_staging(layout: Layout, deadline: float, clock: Callable[[], float], notes: list[str]) -> tuple[int, int]:
    removed = freed = 0
    with durable.store_faults("sweep", layout.staging), os.scandir(layout.staging) as leftovers:
        for entry in leftovers:
            if clock() > deadline:
                notes.append(f"more is left in {layout.staging} than could be removed at this start")
                break
            try:
                freed += _remove(entry)
                removed += 1
            except OSError as fault:
                notes.append(f"cannot remove {entry.path}: {fault.strerror}")
    return removed, freed


def _remove(entry: os.DirEntry[str]) -> int:
    """Bytes given back. A link is removed, never followed."""
    info = entry.stat(follow_symlinks=False)
    if stat.S_ISDIR(info.st_mode):
        shutil.rmtree(entry.path)
        return 0
    os.unlink(entry.path)
    # One of two names of a committed blob gives nothing back.
    return info.st_blocks * 512 if info.st_nlink == 1 else 0


def _blobs_with_other_names(layout: Layout) -> list[Digest]:
    """Blobs with more names than those that the store gives them. When the marks are lost, or never were, only the
    number of links says that a program outside the store can write to a blob."""
    ours = Counter[tuple[int, int]]()
    for directory, _, names in os.walk(layout.trees):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                info = os.lstat(f"{directory}/{name}")
                ours[info.st_dev, info.st_ino] += 1
    return [
        Digest(found.digest)
        for found in walk(layout)
        if isinstance(found, BlobFile) and found.info.st_nlink > 1 + ours[found.info.st_dev, found.info.st_ino]
    ]


def _check_models(
    index: Index, deadline: float, clock: Callable[[], float], notes: list[str]
) -> tuple[list[str], list[str]]:
    failed: list[str] = []
    damaged: list[str] = []
    checked, after = 0, None
    while True:
        page = index.page(after, _CHECKED_AT_ONCE)
        checked += len(page.models)
        failed += [view.name for view in page.models if view.state == "failed"]
        damaged += page.damaged
        after = page.next
        if after is None:
            return failed, damaged
        if clock() > deadline:
            notes.append(f"{checked} of {len(index.names())} models were checked at the start, the rest when asked for")
            return failed, damaged
