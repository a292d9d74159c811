"""How many bytes of blobs the store holds, for its limit."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Final

from modeld.store.disk.layout import Layout

FRESH_SHARE: Final = 10
"""A walk over 100,000 blobs takes about a second. It is done again after ten times as long as it took: what other
jobs have added meanwhile is missed, but never for long and never much."""


class UsedBytes:
    """Called from byte threads."""

    def __init__(self, layout: Layout, clock: Callable[[], float] = time.monotonic) -> None:
        self._layout = layout
        self._clock = clock
        self._lock = threading.Lock()
        self._bytes = 0
        self._fresh_until = float("-inf")

    def __call__(self) -> int:
        with self._lock:
            before = self._clock()
            if before >= self._fresh_until:
                self._bytes = _walk(self._layout.blobs_dir)
                after = self._clock()
                self._fresh_until = after + (after - before) * FRESH_SHARE
            return self._bytes


def _walk(blobs: str) -> int:
    """Sizes of all committed blobs; what disappears meanwhile, or is no blob, counts nothing."""
    total = 0
    for fanout in _directories(blobs):
        for blob in _directories(fanout):
            if os.path.basename(blob).startswith("."):
                continue
            try:
                total += os.lstat(f"{blob}/data").st_size
            except OSError:
                continue
    return total


def _directories(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
