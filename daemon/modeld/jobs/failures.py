"""How many jobs of each user failed lately: past a limit new ones are refused, at no cost to the disk or the log."""

from __future__ import annotations

from collections import deque
from math import ceil
from typing import Final

from modeld.jobs.admission.ticket import Clock
from modelwire.errors import QueueFull

MOST: Final = 600
WINDOW_SECONDS: Final = 60.0
"""Ten a second: a script that adds its files again stays below. Each failed job costs two commits of the catalogue and
some hundred bytes of the log, of which all users have one."""


class Failures:
    """For the event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._of: dict[int, deque[float]] = {}

    def note(self, peer: int) -> None:
        self._of.setdefault(peer, deque(maxlen=MOST)).append(self._clock())

    def check(self, peer: int) -> None:
        """Raises QueueFull when so many jobs of the user failed that the next one has to wait."""
        times, now = self._of.get(peer), self._clock()
        if times is None:
            return
        while times and now - times[0] >= WINDOW_SECONDS:
            times.popleft()
        if not times:
            del self._of[peer]
        elif len(times) == MOST:
            raise QueueFull(
                f"{MOST} jobs of uid {peer} failed within {WINDOW_SECONDS:.0f} s, the most that one user's may",
                hint="See `modelctl jobs --state failed` for the reasons, and try again later.",
                retry_after_ms=ceil((WINDOW_SECONDS - (now - times[0])) * 1000),
                details={"peer_failed": MOST, "seconds": WINDOW_SECONDS},
            )
