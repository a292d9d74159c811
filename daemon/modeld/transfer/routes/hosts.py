"""How many connections one host sees at once, over all files and jobs."""

from __future__ import annotations

import threading
from collections import Counter


class Hosts:
    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    def take(self, origin: str | None, most: int | None = None) -> bool:
        """False when the host has as many as it may, or as this file allows; `release` gives back what was taken."""
        if origin is None:
            return True
        with self._lock:
            if self._taken[origin] >= min(self._most, most or self._most):
                return False
            self._taken[origin] += 1
            return True

    def release(self, origin: str | None) -> None:
        if origin is None:
            return
        with self._lock:
            self._taken[origin] -= 1
            if self._taken[origin] <= 0:
                del self._taken[origin]

    def open_connections(self) -> dict[str, int]:
        """For `status`."""
        with self._lock:
            return dict(self._taken)
