"""What a pull writes to the activity log: its phases, and what happens to its transfers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final

from modeld.activity import Activity
from modeld.download.routes.events import TransferEvent
from modeld.download.source import address_of
from modeld.jobs.job import AnyJob
from modeld.progress import JobProgress
from modelwire.vocabulary import Phase

LOG_BYTES: Final = 32 * 1024 * 1024
LOG_SECONDS: Final = 5.0
"""How often the log gets a line about a download: the contract's numbers."""


class PullEvents:
    """Of one job. Byte threads call `on_transfer_event` and `on_progress`."""

    def __init__(self, activity: Activity, job: AnyJob, path: str) -> None:
        self._activity = activity
        self._job = job
        self._loop = asyncio.get_running_loop()
        self.path = path
        self._phase: Phase | None = None
        self._logged = -1
        self._logged_at = 0.0

    def record(self, name: str, **fields: Any) -> None:
        """On the event loop."""
        self._activity.record(name, job=self._job.id, model=self._job.model, peer=self._job.peer, **fields)

    def _record_soon(self, name: str, **fields: Any) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is gone
            self._loop.call_soon_threadsafe(lambda: self.record(name, **fields))

    def on_transfer_event(self, event: TransferEvent) -> None:
        retry = {"attempt": event.attempt, "delay_s": event.delay_s} if event.kind == "transfer.retry" else {}
        kept = {"kept_bytes": event.bytes} if event.bytes else {}
        self._record_soon(event.kind, source=event.source, file=event.file, message=event.reason, **retry, **kept)

    def on_progress(self, progress: JobProgress) -> None:
        """A listener of the job's progress."""
        phase, done = progress.current_phase, progress.done
        if phase != self._phase:
            if "download" in (phase, self._phase) and done != self._logged:
                self._record_download(progress)
            if phase == "verify" and self._logged >= 0:
                self._record_soon("phase.verify", path=self.path)
            self._phase = phase
        elif phase == "download" and (
            done - self._logged >= LOG_BYTES or time.monotonic() - self._logged_at >= LOG_SECONDS
        ):
            self._record_download(progress)

    def _record_download(self, progress: JobProgress) -> None:
        self._logged, self._logged_at = progress.done, time.monotonic()
        address, total = progress.address or address_of(progress.source), progress.total_bytes
        self._record_soon("phase.download", downloaded_bytes=self._logged, total_bytes=total, source_url=address)
