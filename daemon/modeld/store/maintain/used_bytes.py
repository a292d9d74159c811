"""The bytes of all blobs, for the store's limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from modeld.store.disk.layout import Layout
from modeld.store.maintain.walk import BlobFile, walk

FRESH_SHARE: Final = 10
"""A walk over 100,000 blobs takes about a second. It is repeated after ten times as long as it took: blobs added
meanwhile are missed, but not for long."""


class UsedBytes:
    """Safe to call from any thread."""

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
                self._bytes = sum(found.info.st_size for found in walk(self._layout) if isinstance(found, BlobFile))
                after = self._clock()
                self._fresh_until = after + (after - before) * FRESH_SHARE
            return self._bytes
