"""Puts running jobs back into the queue whose slots others wait for.

Three reasons: a user has more than half of the slots while another user waits; a pull hardly moves; a user has none of
the slots, and those who have them had their turn. Jobs that go on later where they were lose nothing but their turn. A
download that starts again, because its server gives no ranges, gives way only when its user has too many slots and no
other job that can, or when it hardly moves: else whoever runs such a server keeps all slots.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import anyio

from modeld.jobs.admission.ticket import Clock
from modeld.jobs.board import Board
from modeld.jobs.job import AnyJob
from modelwire.units import rounded_rate

CHECK_SECONDS: Final = 5.0

PATIENCE_SECONDS: Final = 10.0
"""How long a user waits before another one's job gives way: a job that ends by itself by then loses nothing."""

TURN_SECONDS: Final = 120.0
"""How long a pull runs at least before it gives way to a user who has no slot. A resumed one hashes what it has, at a
gigabyte a second, before it is far ahead of that: a shorter turn would bring a big one nothing."""

WINDOW_SECONDS: Final = 60.0
"""A source that rests for less is no slow one: one that has sent nothing for so long is given up by the download."""


@dataclass(frozen=True, slots=True)
class _Sample:
    time: float
    received: int


class FairTurns:
    """For the event loop."""

    def __init__(self, board: Board, clock: Clock, *, slowest: Callable[[], float]) -> None:
        """`slowest` returns bytes a second: a download that is slower gives way. 0: none does."""
        self._board = board
        self._gate = board.runner.gate
        self._clock = clock
        self._slowest = slowest
        self._samples: dict[str, _Sample] = {}
        self._waits = anyio.Event()

    async def keep(self) -> None:
        """Checks until it is cancelled; wakes up only while jobs wait."""
        self._gate.on_wait = lambda: self._waits.set()
        while True:
            if not self._gate.contended():
                self._samples.clear()
                self._waits = anyio.Event()
                await self._waits.wait()
            await anyio.sleep(CHECK_SECONDS)
            self.check()

    def check(self) -> None:
        running = {job.id: job for job in self._board.jobs if job.stage == "running" and self._gate.holds_slot(job.id)}
        self._samples = {id_: sample for id_, sample in self._samples.items() if id_ in running}
        if self._board.draining:
            return
        for kind in self._gate.contended():
            if not self._ends_excess(kind, running):
                for job in running.values():
                    if job.kind.queue(job.request) == kind:
                        self._end_slow(job)
                self._end_turn(kind, running)

    def _ends_excess(self, kind: str, running: dict[str, AnyJob]) -> bool:
        """Whether a job gives way, one at a time: the next check sees what that has changed."""
        above = [running[id_] for id_ in self._gate.above_share(kind, PATIENCE_SECONDS) if id_ in running]
        # The latest started; of those that start again, the one that loses least.
        giving_way = [job for job in above if job.resumable] or sorted(
            (job for job in above if _downloads(job)), key=lambda job: job.progress.network
        )
        if giving_way:
            why = "another user waits, and this one has more than half of the slots"
            self._board.runner.put_back(giving_way[0], why)
        return bool(giving_way)

    def _end_slow(self, job: AnyJob) -> None:
        if not _downloads(job) and not (job.resumable and job.progress.current_phase == "checking_local"):
            return
        now, received = self._clock(), job.progress.network
        sample = self._samples.setdefault(job.id, _Sample(now, received))
        elapsed = now - sample.time
        if elapsed < WINDOW_SECONDS:
            return
        self._samples[job.id] = _Sample(now, received)
        rate = (received - sample.received) / elapsed
        if rate < self._slowest():
            why = f"others wait, and it received {rounded_rate(round(rate))} in the last {elapsed:.0f} s"
            self._board.runner.put_back(job, why)

    def _end_turn(self, kind: str, running: dict[str, AnyJob]) -> None:
        """One at a time, the one that has run longest."""
        if not self._gate.shut_out(kind, TURN_SECONDS):
            return
        before = self._clock() - TURN_SECONDS
        had_turn = [
            (job.began, id_)
            for id_, job in running.items()
            if job.began is not None
            and job.began <= before
            and job.resumable
            and _downloads(job)
            and job.kind.queue(job.request) == kind
        ]
        if had_turn:
            self._board.runner.put_back(running[min(had_turn)[1]], "another user has no slot, and waits for a turn")


def _downloads(job: AnyJob) -> bool:
    return job.progress.current_phase == "download"
