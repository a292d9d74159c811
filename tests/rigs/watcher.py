"""A job's progress that remembers what was reported, and stops the work where a test wants it."""

from __future__ import annotations

from modeld.progress import JobProgress
from modelwire.vocabulary import Phase


class Watcher(JobProgress):
    """Stops after `stop_after` bytes, or at the phase `stop_at`."""

    def __init__(self, stop_after: int | None = None, stop_at: Phase | None = None) -> None:
        super().__init__()
        self.phases: list[Phase] = []
        self.totals: list[int | None] = []
        self._before = (0, 0, 0, 0, 0)
        self._stop_after = stop_after
        self._stop_at = stop_at
        self.add_listener(self._look)

    def _look(self, progress: JobProgress) -> None:
        if progress.current_phase != (self.phases[-1] if self.phases else "queued"):
            self.phases.append(progress.current_phase)
        if progress.total_bytes != (self.totals[-1] if self.totals else None):
            self.totals.append(progress.total_bytes)
        counters = (progress.done, progress.verified, progress.reused, progress.committed, progress.network)
        assert all(now >= before for now, before in zip(counters, self._before, strict=True)), "progress went back"
        self._before = counters

    def stopped(self) -> bool:
        if self._stop_at is not None and self._stop_at in self.phases:
            return True
        return self._stop_after is not None and self.done >= self._stop_after
