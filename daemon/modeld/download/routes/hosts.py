"""How many connections one host sees at once, over all files and jobs, and that each file gets one of them."""

from __future__ import annotations

import threading
from collections import Counter


class Hosts:
    """A file without a connection waits in line when there is none left: who has several gives one up to it. Else two
    files that take all could hold up a third for as long as they last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._given_up: Counter[str] = Counter()

    def take(self, origin: str | None, most: int | None = None, *, queued: bool = False) -> bool:
        """False when the host has as many as it may, or as this file allows, or when others are in line for it;
        `release` gives back what was taken."""
        if origin is None:
            return True
        with self._lock:
            if self._waiting[origin] > 0 and not queued:
                return False
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

    def join_queue(self, origin: str) -> None:
        """By a file that has no connection and was given none; `served` when it has one, or needs none any more."""
        with self._lock:
            self._waiting[origin] += 1

    def leave_queue(self, origin: str) -> None:
        with self._lock:
            self._waiting[origin] -= 1
            self._given_up[origin] = max(0, self._given_up[origin] - 1)
            if self._waiting[origin] <= 0:
                del self._waiting[origin], self._given_up[origin]

    def give_up(self, origin: str | None) -> bool:
        """Whether a connection, of a file that has others, is to end for one that waits: once for each of these."""
        if origin is None or not self._waiting:
            return False
        with self._lock:
            if self._given_up[origin] >= self._waiting[origin]:
                return False
            self._given_up[origin] += 1
            return True

    def open_connections(self) -> dict[str, int]:
        """For `status`."""
        with self._lock:
            return dict(self._taken)
