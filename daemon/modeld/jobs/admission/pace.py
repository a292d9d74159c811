"""Estimates when a place in the queue will be free, from how fast places became free lately."""

from __future__ import annotations

from collections import deque
from math import ceil

REMEMBERED = 32
"""Enough to even out one slow job, few enough to follow a change of load within a queue's length."""

UNKNOWN_SECONDS = 1.0
"""The estimate before any place became free: a second costs a client little either way."""

RETRY_MS_MIN = 100
RETRY_MS_MAX = 60_000


class Pace:
    """The moments at which a waiting ticket left the queue, because it started or was withdrawn.

    Not every finish frees a place: quick jobs that never waited do not show how fast a queue moves that stands
    still behind a download.
    """

    def __init__(self) -> None:
        self._freed: deque[float] = deque(maxlen=REMEMBERED)

    def freed(self, now: float) -> None:
        self._freed.append(now)

    def retry_after_ms(self, now: float, places: int = 1) -> int:
        """Estimates when `places` more will be free. The time since the last one counts too, so a stall shows."""
        interval = UNKNOWN_SECONDS
        if self._freed:
            interval = max(0.0, now - self._freed[0]) / len(self._freed)
        return max(RETRY_MS_MIN, min(RETRY_MS_MAX, ceil(interval * places * 1000)))
