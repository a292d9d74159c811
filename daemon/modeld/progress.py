"""How far a job is: one `JobProgress` for the job, one `FileProgress` for each of its files.

Byte threads report here, at least once for each 4 MiB and several times for each small file, so every method is cheap.
The event loop takes snapshots. The counters in snapshots only grow, whatever the work reports: a second attempt starts
where the counters of the first one stood until it has caught up, so that no client sees a step back.

To add a phase, add it to the wire's vocabulary and one line to `_PHASES`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Literal, get_args

from modelwire.values import Counters
from modelwire.vocabulary import Phase

StopReason = Literal["cancel", "pause", "yield", "park"]

_Kind = Literal["idle", "preparing", "working"]


def _complete(table: dict[Phase, _Kind]) -> dict[Phase, _Kind]:
    if odd := set(get_args(Phase)) ^ table.keys():
        raise LookupError(f"the wire and the table of phases differ in {', '.join(sorted(odd))}")
    return table


_PHASES: Final = _complete(
    {
        "queued": "idle",
        "checking_local": "preparing",
        "reserving": "preparing",
        "link": "preparing",
        "download": "working",
        "copy": "working",
        "quarantine": "working",
        "verify": "working",
        "publish": "working",
        "load": "working",
        "done": "idle",
    }
)
"""In the order in which a file passes through the phases. A job shows that of the file that is furthest behind."""

_PLACE: Final[Mapping[Phase, int]] = {phase: place for place, phase in enumerate(_PHASES)}

_SMOOTHING_SECONDS: Final = 5.0
"""The rate shown is an average that forgets with this time constant: short enough to follow a real change, long
enough that the figure can be read."""

_SHORTEST_SAMPLE: Final = 0.05


class Stopped(Exception):
    """Raised by byte work after `stopped()` turned true; the work leaves nothing behind."""


class JobProgress:
    """Thread-safe. The public counters are those of the current attempt; only a snapshot never goes back."""

    __slots__ = (
        "_clock",
        "_files_at",
        "_files_stopped",
        "_first_work",
        "_known_bytes",
        "_listeners",
        "_lock",
        "_not_begun",
        "_rate",
        "_sample_moved",
        "_sample_time",
        "_seen",
        "_unknown_sizes",
        "address",
        "attempt",
        "committed",
        "current_phase",
        "done",
        "files_done",
        "files_total",
        "kept",
        "network",
        "partials",
        "reused",
        "source",
        "stop_reason",
        "total_bytes",
        "verified",
    )

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._listeners: tuple[Listener, ...] = ()
        self._seen = Counters()
        self.current_phase: Phase = "queued"
        self.total_bytes: int | None = None
        self.files_total: int | None = None
        self.source: str | None = None
        self.partials: frozenset[str] = frozenset()
        """The directories of the partial downloads that the job has opened."""
        self.address: str | None = None
        self.begin_attempt(1)

    # -- called on the event loop

    def begin_attempt(self, attempt: int) -> None:
        """Starts the counters over. A snapshot shows the earlier figures until the new ones pass them."""
        self.attempt = attempt
        self.stop_reason: StopReason | None = None
        self.done = self.verified = self.reused = self.committed = self.network = 0
        self.kept = 0
        """Of `done`: bytes that were here before this attempt. They are progress, and no rate."""
        self._rate: float | None = None
        self._sample_moved, self._sample_time = 0, self._clock()
        self._forget_files()

    def snapshot(self) -> Counters:
        """The counters now: never less than at the call before."""
        self._sample()
        seen = self._seen
        done = max(self.done, seen.bytes_done)
        total = self.total_bytes if self.total_bytes is not None else seen.bytes_total
        eta = None
        if self._rate and total is not None and _PHASES[self.current_phase] != "idle":
            eta = round(max(0, total - done) / self._rate, 1)
        self._seen = Counters(
            phase=self.current_phase,
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

    def forget_rate(self) -> None:
        """After a change of what limits it: the rate so far says nothing of the rest."""
        self._rate = None
        self._sample_moved, self._sample_time = self.done - self.kept, self._clock()

    def _sample(self) -> None:
        now = self._clock()
        elapsed = now - self._sample_time
        if elapsed < _SHORTEST_SAMPLE:
            return
        moved = self.done - self.kept
        if self._rate is not None or moved > self._sample_moved:  # the time before the first byte is no slow transfer
            current = max(0, moved - self._sample_moved) / elapsed
            weight = 1.0 if self._rate is None else 1 - math.exp(-elapsed / _SMOOTHING_SECONDS)
            self._rate = (self._rate or 0.0) + weight * (current - (self._rate or 0.0))
        self._sample_moved, self._sample_time = moved, now

    # -- called by the work, from any thread

    def phase(self, phase: Phase) -> None:
        """Sets the phase of the job as a whole: before its files begin, or after they are finished."""
        with self._lock:
            self._show(phase)

    def total(self, size: int | None) -> None:
        with self._lock:
            self.total_bytes = size
            self._notify()

    def advance(
        self, *, done: int = 0, verified: int = 0, reused: int = 0, committed: int = 0, network: int = 0, kept: int = 0
    ) -> None:
        with self._lock:
            self.done += done
            self.verified += verified
            self.reused += reused
            self.committed += committed
            self.network += network
            self.kept += kept
            for listener in self._listeners:
                listener(self)

    def reuse(self, size: int) -> None:
        """Counts a whole file that is here already."""
        self.advance(done=size, reused=size, kept=size)

    def stopped(self) -> bool:
        return self.stop_reason is not None

    def files(self, sizes: Sequence[int | None], *, beside: int = 0) -> list[FileProgress]:
        """Returns one for each file of the job. Their sizes make the total, unknown while one of them is; `beside` them
        it counts the bytes of other work."""
        files = [FileProgress(self) for _ in sizes]
        with self._lock:
            self._forget_files()
            self._known_bytes = beside
            self._not_begun = self.files_total = len(files)
            self._unknown_sizes = len(files)
            for file, size in zip(files, sizes, strict=True):
                file._of_total = file._not_begun = True
                self._set_size(file, size)
            self._sum_up()
        return files

    def stop_files(self) -> None:
        """One file has failed: makes `stopped()` of the others true, so that they end and keep their bytes."""
        self._files_stopped = True

    # -- listeners

    def add_listener(self, listener: Listener) -> None:
        """Calls the listener now, and after each change in the thread that makes it. It must not report to this job."""
        with self._lock:
            self._listeners = (*self._listeners, listener)
            listener(self)

    @contextmanager
    def heard_by(self, listener: Listener) -> Iterator[None]:
        """As `add_listener`, until the end of the body."""
        self.add_listener(listener)
        try:
            yield
        finally:
            with self._lock:
                self._listeners = tuple(each for each in self._listeners if each != listener)

    def _notify(self) -> None:
        for listener in self._listeners:
            listener(self)

    # -- called with the lock held

    def _forget_files(self) -> None:
        self._files_at: dict[Phase, int] = {}
        self._first_work: Phase | None = None
        self._files_stopped = False
        self._not_begun = self._known_bytes = self._unknown_sizes = self.files_done = 0

    def _set_size(self, file: FileProgress, size: int | None) -> None:
        if size is None:
            return
        self._known_bytes += size - (file._size or 0)
        self._unknown_sizes -= file._size is None
        file._size = size

    def _sum_up(self) -> None:
        self.total_bytes = None if self._unknown_sizes else self._known_bytes
        self._notify()

    def _move(self, file: FileProgress, phase: Phase | None) -> None:
        if file._not_begun:
            file._not_begun = False
            self._not_begun -= 1
        if file._phase is not None:
            self._files_at[file._phase] -= 1
        if phase is not None:
            self._files_at[phase] = self._files_at.get(phase, 0) + 1
        file._phase = phase
        self._show_furthest_behind()

    def _show_furthest_behind(self) -> None:
        """Once a file is at work, files that prepare or have not begun count as in the earliest working phase seen: the
        phase shown does not jump to and fro."""
        preparing: Phase | None = None
        working: Phase | None = None
        for phase, files in self._files_at.items():
            if files and _PHASES[phase] == "working":
                working = _first_of(phase, working)
            elif files:
                preparing = _first_of(phase, preparing)
        if working is not None:
            self._first_work = _first_of(working, self._first_work)
        shown = working
        if self._first_work is None:
            shown = preparing
        elif self._not_begun or preparing is not None:
            shown = self._first_work
        if shown is not None:
            self._show(shown)

    def _show(self, phase: Phase) -> None:
        if phase != self.current_phase:
            self.current_phase = phase
            self._notify()


Listener = Callable[[JobProgress], None]
"""Called at each change of a job's progress, with the progress locked: it must be quick, and may only read."""


class FileProgress:
    """The progress of one file; thread-safe.

    Those that `JobProgress.files` makes count for the job's total and its number of files. Others only report their
    bytes and phases. Without a job it is for work that nothing follows or stops.
    """

    __slots__ = ("_job", "_not_begun", "_of_total", "_phase", "_size")

    def __init__(self, job: JobProgress | None = None) -> None:
        self._job = JobProgress() if job is None else job
        self._phase: Phase | None = None
        self._size: int | None = None
        self._of_total = self._not_begun = False

    def phase(self, phase: Phase) -> None:
        if phase != self._phase:
            with self._job._lock:
                self._job._move(self, phase)

    def total(self, size: int | None) -> None:
        if self._of_total and size != self._size:
            with self._job._lock:
                self._job._set_size(self, size)
                self._job._sum_up()

    def advance(
        self, *, done: int = 0, verified: int = 0, reused: int = 0, committed: int = 0, network: int = 0, kept: int = 0
    ) -> None:
        self._job.advance(done=done, verified=verified, reused=reused, committed=committed, network=network, kept=kept)

    def reuse(self, size: int) -> None:
        self._job.reuse(size)

    def stopped(self) -> bool:
        return self._job._files_stopped or self._job.stopped()

    def source(self, name: str, address: str | None = None) -> None:
        """Sets where the bytes come from now, and the address of the file there, without secrets."""
        with self._job._lock:
            self._job.source, self._job.address = name, address
            self._job._notify()

    def partial(self, *directories: str) -> None:
        """Notes where the bytes of a download that can be resumed are."""
        if not self._job.partials.issuperset(directories):
            with self._job._lock:
                self._job.partials |= set(directories)
                self._job._notify()

    def attempted(self) -> None:
        """Counts another attempt at the source."""
        with self._job._lock:
            self._job.attempt += 1
            self._job._notify()

    def finished(self) -> None:
        with self._job._lock:
            self._job.files_done += 1
            self._job._move(self, None)


def _first_of(phase: Phase, other: Phase | None) -> Phase:
    return phase if other is None or _PLACE[phase] < _PLACE[other] else other


def check(progress: JobProgress | FileProgress) -> None:
    """Raises Stopped when the work is to end."""
    if progress.stopped():
        raise Stopped
