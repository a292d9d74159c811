"""A few MiB that the daemon gives up when the disk is full, so that what makes room can still be written down.

Without it a full disk locks itself: removing a model is a job, a job is recorded before it is accepted, and the record
needs a block that nobody has.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from modeld.store.disk import durable
from modeld.store.disk.layout import Layout

BYTES: Final = 4 * 1024 * 1024
"""Measured: a hundred removals and a sweep take 0.5 MiB of the catalogue's log; the rest is for its checkpoint."""


class Reserve:
    def __init__(self, layout: Layout) -> None:
        self._path = os.path.join(layout.private, "reserve")

    def refill(self) -> bool:
        """Taken back when the disk has room again. That there is none is no error."""
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

    def release(self) -> bool:
        """Whether there was something to give up."""
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
