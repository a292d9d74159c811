"""How far one job is, written by its byte threads and read by the event loop.

Plain integers need no lock: each field has one writer at a time and the interpreter makes their assignment atomic.
The counters only ever grow, whatever the work reports; a second attempt starts where the first one's counters stood
until it has caught up, so that no client sees a step back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Literal, cast

from modelwire.values import Counters
from modelwire.vocabulary import Phase

StopReason = Literal["cancel", "pause", "park"]

_SMOOTHING_SECONDS = 5.0
"""The rate shown is an average that forgets with this time constant: short enough to follow a real change, long
enough that the figure can be read."""

_SHORTEST_SAMPLE = 0.05


class Meter:
    """What the store calls an observer: see `modeld.store.observer`."""

    __slots__ = (
        "_clock",
        "_done",
        "_rate",
        "_sample_done",
        "_sample_time",
        "_seen",
        "_total",
        "attempt",
        "committed",
        "current_phase",
        "files_done",
        "files_total",
        "network",
        "reused",
        "source",
        "stop_reason",
        "verified",
    )

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.current_phase = "queued"
        self._done = 0
        self._total: int | None = None
        self.network = 0
        self.verified = 0
        self.reused = 0
        self.committed = 0
        self.files_done = 0
        self.files_total: int | None = None
        self.source: str | None = None
        self.attempt = 1
        self.stop_reason: StopReason | None = None
        self._rate: float | None = None
        self._sample_done = 0
        self._sample_time = clock()
        self._seen = Counters()

    # -- called by the work, from any thread

    def phase(self, phase: str) -> None:
        self.current_phase = phase

    def total(self, size: int | None) -> None:
        self._total = size

    def advance(self, *, done: int = 0, verified: int = 0, reused: int = 0, committed: int = 0) -> None:
        self._done += done
        self.verified += verified
        self.reused += reused
        self.committed += committed

    def files(self, *, total: int | None = None, done: int = 0) -> None:
        if total is not None:
            self.files_total = total
        self.files_done += done

    def stopped(self) -> bool:
        return self.stop_reason is not None

    # -- called on the event loop

    def begin_attempt(self, attempt: int) -> None:
        """The work starts over: what it reports from here counts anew, what was shown stays until it is passed."""
        self.attempt = attempt
        self.stop_reason = None
        self._done = self.verified = self.reused = self.committed = self.network = self.files_done = 0
        self._sample_done, self._sample_time, self._rate = 0, self._clock(), None

    def snapshot(self) -> Counters:
        """The counters now: never less than at the call before."""
        self._sample()
        seen = self._seen
        done = max(self._done, seen.bytes_done)
        total = self._total if self._total is not None else seen.bytes_total
        eta = None
        if self._rate and total is not None and self.current_phase not in ("queued", "done"):
            eta = round(max(0, total - done) / self._rate, 1)
        self._seen = Counters(
            phase=cast("Phase", self.current_phase),
            bytes_done=done,
            bytes_total=max(total, done) if total is not None else None,
            network_bytes=max(self.network, seen.network_bytes),
            verified_bytes=max(self.verified, seen.verified_bytes),
            reused_bytes=max(self.reused, seen.reused_bytes),
            committed_bytes=max(self.committed, seen.committed_bytes),
            rate_bps=round(self._rate) if self._rate is not None else None,
            eta_s=eta,
            source=self.source,
            attempt=max(self.attempt, seen.attempt),
            files_done=max(self.files_done, seen.files_done),
            files_total=self.files_total,
        )
        return self._seen

    def _sample(self) -> None:
        now = self._clock()
        elapsed = now - self._sample_time
        if elapsed < _SHORTEST_SAMPLE:
            return
        current = (self._done - self._sample_done) / elapsed
        weight = 1 - math.exp(-elapsed / _SMOOTHING_SECONDS)
        self._rate = current if self._rate is None else self._rate + weight * (current - self._rate)
        self._sample_done, self._sample_time = self._done, now
