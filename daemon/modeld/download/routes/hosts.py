"""Limits the connections of one host over all files and jobs, and lets each file have one of them."""

from __future__ import annotations

import threading
from collections import Counter


class Hosts:
    """A file that has no connection and gets none, because all are taken, joins a queue: a file with several gives one
    up to it. Otherwise two files that take all connections could hold up a third until they end."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._given_up: Counter[str] = Counter()

    def take(self, origin: str | None, most: int | None = None, *, queued: bool = False) -> bool:
        """False when the host has as many as it may, or as this file allows, or when other files are in the queue.
        `release` gives the connection back."""
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
        """For a file without a connection. It leaves the queue when it has a connection or no longer needs one."""
        with self._lock:
            self._waiting[origin] += 1

    def leave_queue(self, origin: str) -> None:
        with self._lock:
            self._waiting[origin] -= 1
            self._given_up[origin] = max(0, self._given_up[origin] - 1)
            if self._waiting[origin] <= 0:
                del self._waiting[origin], self._given_up[origin]

    def give_up(self, origin: str | None) -> bool:
        """True when a connection of a file with others is to end: once for each file in the queue."""
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
