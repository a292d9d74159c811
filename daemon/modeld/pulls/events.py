"""What a pull tells beside its counters: the phases of its way, and what went wrong in between, as events."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final

from modeld.activity import Activity
from modeld.download.routes.events import EventKind, TransferEvent
from modeld.download.source import address_of
from modeld.jobs.job import AnyJob
from modeld.jobs.progress import Meter
from modelwire.errors import DigestMismatch
from modelwire.vocabulary import Phase

TELL_BYTES: Final = 32 * 1024 * 1024
TELL_SECONDS: Final = 5.0
"""How often a download is told to those who watch events: the contract's numbers."""

_EVENTS: Final[dict[EventKind, str]] = {
    "resumed": "transfer.resumed",
    "retry": "transfer.retry",
    "waiting": "transfer.waiting",
    "ranges_ignored": "transfer.ranges_ignored",
    "restarted": "transfer.restarted",
    "damaged_piece": "transfer.damaged_piece",
    "failover": "source.failed",
    "skipped": "source.skipped",
    "source_changed": "source.changed",
    "breaker_opened": "source.breaker_opened",
    "condemned": "source.condemned",
}


class Telling:
    """Of one job. `transfer` and what `Observed` calls come from byte threads."""

    def __init__(self, activity: Activity, job: AnyJob) -> None:
        self._activity = activity
        self._job = job
        self._loop = asyncio.get_running_loop()

    def event(self, name: str, **fields: Any) -> None:
        """On the event loop."""
        self._activity.record(name, job=self._job.id, model=self._job.model, **fields)

    def soon(self, name: str, **fields: Any) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is gone
            self._loop.call_soon_threadsafe(lambda: self.event(name, **fields))

    def transfer(self, event: TransferEvent) -> None:
        more: dict[str, Any] = {}
        if event.kind == "retry":
            more = {"attempt": event.attempt, "delay_s": event.delay_s}
        if event.bytes:
            more["kept_bytes"] = event.bytes
        self.soon(_EVENTS[event.kind], source=event.source, file=event.file, message=event.reason, **more)

    def mismatch(self, fault: DigestMismatch) -> None:
        wanted = ("path", "expected_sha256", "actual_sha256", "quarantine_path", "source")
        if "quarantine_path" in fault.details:
            self.event("phase.quarantine", **{name: fault.details.get(name) for name in wanted})


class Observed:
    """The job's meter, for the transfer: what goes by is told as phases too."""

    def __init__(self, meter: Meter, telling: Telling, path: str) -> None:
        self._meter = meter
        self._telling = telling
        self.path = path
        self._done = 0
        self._told = -1
        self._told_at = 0.0
        self._total: int | None = None
        self._phase: Phase | None = None
        self.stopped = meter.stopped

    def phase(self, phase: Phase) -> None:
        self._meter.phase(phase)
        if phase == self._phase:
            return
        if "download" in (phase, self._phase) and self._done != self._told:
            self._tell()
        if phase == "verify" and self._phase is not None:
            self._telling.soon("phase.verify", path=self.path)
        self._phase = phase

    def total(self, size: int | None) -> None:
        self._total = size
        self._meter.total(size)

    def advance(self, *, done: int = 0, verified: int = 0, reused: int = 0, committed: int = 0) -> None:
        self._meter.advance(done=done, verified=verified, reused=reused, committed=committed)
        self._done += done
        if self._phase != "download":
            return
        if self._done - self._told >= TELL_BYTES or time.monotonic() - self._told_at >= TELL_SECONDS:
            self._tell()

    def _tell(self) -> None:
        self._told, self._told_at = self._done, time.monotonic()
        address = address_of(self._meter.source)
        self._telling.soon("phase.download", downloaded_bytes=self._done, total_bytes=self._total, source_url=address)

    @property
    def network(self) -> int:
        return self._meter.network

    @network.setter
    def network(self, size: int) -> None:
        self._meter.network = size

    @property
    def source(self) -> str | None:
        return self._meter.source

    @source.setter
    def source(self, name: str | None) -> None:
        self._meter.source = name

    @property
    def attempt(self) -> int:
        return self._meter.attempt

    @attempt.setter
    def attempt(self, number: int) -> None:
        self._meter.attempt = number

    @property
    def files_done(self) -> int:
        return self._meter.files_done

    @files_done.setter
    def files_done(self, number: int) -> None:
        self._meter.files_done = number

    @property
    def files_total(self) -> int | None:
        return self._meter.files_total

    @files_total.setter
    def files_total(self, number: int | None) -> None:
        self._meter.files_total = number
