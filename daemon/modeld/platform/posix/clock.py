"""Time that a person, a time server or a sleep of the machine does not change."""

from __future__ import annotations

import time
from collections.abc import Callable

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""On macOS the monotonic clock itself goes on while the machine sleeps."""


def elapsed() -> float:
    """Seconds since some moment, those included that the machine slept."""
    return time.clock_gettime(_CLOCK)


class Calendar:
    """The time of day, for deciding what has expired: a clock that is set forward makes nothing older than it is."""

    def __init__(self, clock: Callable[[], float] = time.time, passed: Callable[[], float] = elapsed) -> None:
        self._clock = clock
        self._passed = passed
        self._began = clock() - passed()

    def __call__(self) -> float:
        return min(self._clock(), self._began + self._passed())
