"""Space for a download: all that is missing when the size is known, else in steps as the bytes come."""

from __future__ import annotations

import threading
from typing import Final

from modeld.download.tuning import MIB
from modeld.store.disk.space import Reservation, Space
from modelwire.errors import NoSpace, QuotaExceeded

STEP: Final = 64 * MIB


class GrowingReservation(Reservation):
    """A reservation that can grow. `Staged` carries it until the file has its name."""

    __slots__ = ("_growing", "_parts", "_space", "_unsettled")

    def __init__(self, space: Space) -> None:
        super().__init__(space, 0)
        self._space = space
        self._growing = threading.Lock()
        self._parts: list[Reservation] = []
        self._unsettled = 0

    def grow(self, size: int) -> None:
        """NoSpace or QuotaExceeded, with the numbers."""
        with self._growing:
            self._parts.append(self._space.reserve(size))
            self._unsettled += size

    def need(self, size: int) -> None:
        """`size` more bytes are about to be written to a file whose size is not known."""
        if self._unsettled >= size:
            return
        try:
            self.grow(max(size, STEP))
        except (NoSpace, QuotaExceeded):
            if size >= STEP:
                raise
            self.grow(size)  # the disk is nearly full, and a whole step may not be needed

    def settle(self, size: int) -> None:
        with self._growing:
            self._unsettled -= min(size, self._unsettled)
            for part in self._parts:
                part.settle(size)  # settles what it holds; only the last one holds any

    def release(self) -> None:
        with self._growing:
            parts, self._parts = self._parts, []
            self._unsettled = 0
            for part in parts:
                part.release()
