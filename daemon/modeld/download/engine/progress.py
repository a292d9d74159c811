"""Progress of several files, written from several threads, as one that never goes back."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final, Protocol

from modeld.store.observer import Observer, Unwatched
from modelwire.vocabulary import Phase

_ORDER: Final[dict[Phase, int]] = {"checking_local": 0, "reserving": 1, "download": 2, "quarantine": 3, "verify": 4}

_BEFORE: Final[tuple[Phase, ...]] = ("checking_local", "reserving")


class TransferObserver(Observer, Protocol):
    """What a job's meter is: an observer with these counters beside it. Set from one thread at a time."""

    network: int
    source: str | None
    attempt: int
    files_done: int
    files_total: int | None


class Unfollowed(Unwatched):
    """For a transfer that nobody follows and nobody can stop."""

    def __init__(self) -> None:
        self.network = 0
        self.source: str | None = None
        self.attempt = 1
        self.files_done = 0
        self.files_total: int | None = None


class Progress:
    """The lock between the files of one job and its observer."""

    def __init__(self, observer: TransferObserver, sizes: Sequence[int | None]) -> None:
        self._observer = observer
        self._lock = threading.Lock()
        self._sizes = list(sizes)
        self._phases: dict[int, Phase] = {}
        self._begun: set[int] = set()
        self._shown: Phase | None = None
        self._quit = False
        observer.files_total = len(sizes)
        self._tell_total()

    def file(self, number: int) -> FileProgress:
        return FileProgress(self, number)

    def quit(self) -> None:
        """Stops all files: one has failed."""
        self._quit = True

    def stopped(self) -> bool:
        return self._quit or self._observer.stopped()

    def _tell_total(self) -> None:
        known = [size for size in self._sizes if size is not None]
        self._observer.total(sum(known) if len(known) == len(self._sizes) else None)

    def _size(self, number: int, size: int | None) -> None:
        with self._lock:
            if size is not None and self._sizes[number] != size:
                self._sizes[number] = size
                self._tell_total()

    def _phase(self, number: int, phase: Phase | None) -> None:
        """Shown is the phase of the file that is furthest behind, so it does not jump to and fro; once one is
        fetched, those that have yet to begin are a part of that."""
        with self._lock:
            self._begun.add(number)
            if phase is None:
                self._phases.pop(number, None)
            else:
                self._phases[number] = phase
            behind = set(self._phases.values())
            if self._shown not in (None, *_BEFORE):
                behind = {"download" if phase in _BEFORE else phase for phase in behind}
                if len(self._begun) < len(self._sizes):
                    behind.add("download")
            slowest = min(behind, key=lambda phase: _ORDER.get(phase, 9), default=self._shown)
            if slowest is not None and slowest != self._shown:
                self._shown = slowest
                self._observer.phase(slowest)

    def _advance(self, network: int, done: int, verified: int, reused: int) -> None:
        with self._lock:
            self._observer.network += network
            self._observer.advance(done=done, verified=verified, reused=reused)


class FileProgress:
    """One file's part of it; thread-safe."""

    def __init__(self, progress: Progress, number: int) -> None:
        self._progress = progress
        self._number = number

    def phase(self, phase: Phase) -> None:
        self._progress._phase(self._number, phase)

    def total(self, size: int | None) -> None:
        self._progress._size(self._number, size)

    def advance(
        self, *, done: int = 0, verified: int = 0, reused: int = 0, committed: int = 0, network: int = 0
    ) -> None:
        if done or verified or reused or network:
            self._progress._advance(network, done, verified, reused)
        if committed:
            with self._progress._lock:
                self._progress._observer.advance(committed=committed)

    def stopped(self) -> bool:
        return self._progress.stopped()

    def source(self, name: str) -> None:
        with self._progress._lock:
            self._progress._observer.source = name

    def attempted(self) -> None:
        """The source is asked once more."""
        with self._progress._lock:
            self._progress._observer.attempt += 1

    def finished(self) -> None:
        with self._progress._lock:
            self._progress._observer.files_done += 1
        self._progress._phase(self._number, None)
