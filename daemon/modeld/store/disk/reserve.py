"""A few MiB that the daemon gives up when the disk is full, so that it can still record the jobs that free space.

Without it a full disk locks itself: removing a model is a job, a job is recorded before it is accepted, and the record
needs a block that the disk does not have.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from modeld.store.disk import durable
from modeld.store.disk.layout import Layout

BYTES: Final = 4 * 1024 * 1024
"""Measured: a hundred removals and a sweep take 0.5 MiB of the catalogue's log; the rest is for its checkpoint."""


_PART: Final = 256 * 1024
"""For the records of ends: one takes some 40 KiB of the catalogue's log."""

_KEPT: Final = BYTES // 2
"""Of the reserve, for jobs that free space."""


class Reserve:
    def __init__(self, layout: Layout) -> None:
        self._path = os.path.join(layout.private, "reserve")

    def refill(self) -> bool:
        """Allocates the reserve again; returns False when the disk has no room for it."""
        try:
            if os.stat(self._path).st_blocks * 512 >= BYTES:
                return True
        except FileNotFoundError:
            pass
        try:
            self._make()
        except OSError:
            self.release()
            return False
        return True

    def release_part(self) -> bool:
        """Frees a part, for the record of what has ended: else the next start would do it again. Returns False when the
        rest is for jobs that free space."""
        with contextlib.suppress(OSError):
            left = os.stat(self._path).st_size - _PART
            if left >= _KEPT:
                os.truncate(self._path, left)
                return True
        return False

    def release(self) -> bool:
        """Frees the reserve; returns False when there is none."""
        try:
            os.unlink(self._path)
        except OSError:
            return False
        return True

    def _make(self) -> None:
        self.release()
        descriptor = durable.create_file(self._path)
        try:
            if not durable.preallocate(descriptor, BYTES):
                durable.write_at(descriptor, memoryview(bytes(BYTES)), 0)
        finally:
            with contextlib.suppress(OSError):
                durable.close(descriptor)
