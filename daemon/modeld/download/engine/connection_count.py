"""How many connections to use: few when one fills the link, more while more of them bring more.

Pure; the clock is passed in.
"""

from __future__ import annotations

from typing import Final

from modeld.download.tuning import MIB, Tuning

LEAST_BYTES: Final = 4 * MIB
LINEAR: Final = 1.7
"""Twice the connections brought nearly twice as much: each connection is limited by itself, so the steps are bigger."""

HELD_BACK: Final = 0.3
"""The part of their time that connections wait for the budget. Above it the budget is the limit: another connection
adds only the bytes that the kernel takes in for it at once, past any budget."""

LONGEST_WINDOW: Final = 2.0
"""A window is long enough once this many bytes came in, or this much time passed."""


class ConnectionCount:
    def __init__(self, tuning: Tuning, now: float, *, found: int = 0) -> None:
        """`found` is what an earlier attempt has found to be worth it."""
        self._tuning = tuning
        self._most = tuning.connections_per_file
        self.target = min(max(tuning.first_connections, found), self._most)
        self._before = self.target
        self._best = 0.0
        self._settled_at: float | None = None
        self._asked_at = now
        self._window: tuple[float, int, float] | None = None

    @property
    def found(self) -> int:
        """How many are worth it, as far as is known: without those that are being tried."""
        return self._before

    def observe(self, now: float, received: int, live: int, waited: float = 0.0) -> None:
        """`received` is the number of bytes so far, `live` the number of connections, `waited` the seconds that these
        have waited for the budget, all together."""
        if self._settled_at is not None:
            if now - self._settled_at < self._tuning.growth_rest_seconds:
                return
            self._settled_at, self._best = None, 0.0
            self._window = None
        if self._window is None:
            # A connection that is not open yet brings nothing, and would count against the target.
            if live >= self.target or now - self._asked_at > LONGEST_WINDOW:
                self._window = now, received, waited
            return
        elapsed, got = now - self._window[0], received - self._window[1]
        held_back = waited - self._window[2] > HELD_BACK * elapsed * max(1, live)
        if elapsed >= LONGEST_WINDOW or (elapsed >= self._tuning.growth_window_seconds and got >= LEAST_BYTES):
            self._judge(now, got / elapsed, held_back)

    def refused(self, now: float, live: int) -> None:
        """The source has refused a connection."""
        self.target = self._before = max(1, min(self.target, live))
        self._settled_at = now

    def _judge(self, now: float, rate: float, held_back: bool) -> None:
        self._asked_at, self._window = now, None
        if held_back:
            self._settled_at = now
            return
        if rate < self._best * self._tuning.growth_factor:
            self.target = self._before
            self._settled_at = now
            return
        linear = self._best > 0 and rate >= self._best * LINEAR
        self._best = rate
        self._before = self.target
        self.target = min(self._most, self.target * (4 if linear else 2))
        if self.target == self._before:
            self._settled_at = now
