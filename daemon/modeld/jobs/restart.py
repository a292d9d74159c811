"""Jobs across a stop and a start of the daemon: parked at a stop, found open at a start."""

from __future__ import annotations

import anyio
import anyio.to_thread

from modeld.jobs import record
from modeld.jobs.board import Board
from modeld.jobs.job import AnyJob, Job, V, W
from modeld.jobs.ledger import Ledger
from modelwire.errors import WireError


async def restore(board: Board, ledger: Ledger) -> int:
    """Takes up the jobs that the last run left open, in the order of admission. Returns how many go on."""
    resumed = 0
    for row in await ledger.open_jobs():
        job = record.live(row, board.kind_of(row))
        board.jobs.enter(job)
        if job.failure is not None:
            await board.runner.end(job, "failed", job.failure)
        elif job.intent is not None and await anyio.to_thread.run_sync(_took_place, job, job.intent):
            await board.runner.end(job, "done", job.intent)
        elif job.move("restore") == "queued":
            board.runner.note(job, "job.restored")
            board.readmit(job)
            resumed += 1
    return resumed


def _took_place(job: Job[W, V], intent: V) -> bool:
    try:
        return job.kind.took_place(job.request, intent)
    except WireError:
        return False  # run again, the work reports the same fault; the daemon must start in any case


_STOP_SECONDS = 10.0
"""For work to see that it is to stop, which it checks at least every 4 MiB, or to finish a publication."""

_REPLY_SECONDS = 2.0
"""For clients to get their replies; one that does not read them does not delay the stop for longer."""


async def drain(board: Board, deadline: float, *, stop_seconds: float = _STOP_SECONDS) -> None:
    """Refuses new work, waits for the running jobs until the deadline, and parks the others for the next start.

    Every request that follows a job gets its reply.
    """
    board.draining = True
    for job in board.jobs:
        if job.stage in ("queued", "paused"):
            board.runner.settle(board.runner.gate.withdraw(job.id))
            board.runner.leave(job)
    with anyio.move_on_after(max(0.0, deadline)):
        await _until_idle(board)
    for job in board.jobs:
        job.move("park")
    with anyio.move_on_after(stop_seconds):
        await _until_idle(board)
    for job in _working(board):
        # It waits for another process's lock or for a disk that hangs. It is in the ledger, so it may be left.
        board.runner.leave(job)
    with anyio.move_on_after(_REPLY_SECONDS):
        await board.runner.record_missing_ends()
    with anyio.move_on_after(_REPLY_SECONDS):
        while board.attached:
            await board.departure.wait()


def _working(board: Board) -> list[AnyJob]:
    return [job for job in board.jobs if not job.ended.is_set()]


async def _until_idle(board: Board) -> None:
    while working := _working(board):
        job = working[0]
        if job.stage == "paused":
            board.runner.leave(job)
        else:
            await job.changed.wait()
