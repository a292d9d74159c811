"""Jobs across a stop and a start of the daemon: parked at a stop, found open at a start."""

from __future__ import annotations

import anyio
import anyio.to_thread

from modeld.jobs import record
from modeld.jobs.board import Board
from modeld.jobs.ids import go_on_after
from modeld.jobs.job import AnyJob, Job, V, W
from modeld.jobs.ledger import Ledger
from modelwire.errors import Interrupted, WireError


async def restore(board: Board, ledger: Ledger) -> int:
    """Takes up the jobs that the last run left open, in the order of admission. Returns how many go on."""
    if last := await ledger.last_id():
        go_on_after(last)
    jobs = [record.live(row, board.kind_of(row)) for row in await ledger.open_jobs()]
    for job in jobs:
        board.jobs.enter(job)
        if job.failure is not None:
            await board.runner.end(job, "failed", job.failure)
        elif job.intent is not None and await anyio.to_thread.run_sync(_took_place, job, job.intent):
            await board.runner.end(job, "done", job.intent)
    # Judged before any of them runs, and after what had taken place is known: the work of one is no reason to doubt
    # another that was accepted before it.
    doubts = {job.id: doubt for job in jobs if job in board.jobs and (doubt := await _doubt(job, board, ledger))}
    resumed = 0
    for job in jobs:
        if doubt := doubts.get(job.id):
            await board.runner.end(job, "failed", doubt)
        elif job in board.jobs:
            await job.kind.restored(job)
            if job.move("restore") == "queued":
                board.runner.note(job, "job.restored")
                board.runner.readmit(job)
                resumed += 1
    return resumed


async def _doubt(job: AnyJob, board: Board, ledger: Ledger) -> Interrupted | None:
    """A catalogue may have been put back from a copy: its open jobs are of the past, and the names may stand for newer
    content. A job that changes a name must prove that the content is what it was accepted for, or what a job that the
    same catalogue knows has made of that."""
    name = job.kind.changes(job.request)
    if name is None or await job.kind.standing(name) in ("", job.accepted_for):
        return None
    if job.intent is not None and (job.accepted_for is None or (name == job.model and job.kind.made(job.intent))):
        # It has made the content itself, and was interrupted before its last step; or an earlier version accepted it,
        # which recorded only what it was about to change.
        return None
    for row in await ledger.done_since(name, job.created_at):
        made = record.past(row, board.kind_of(row))
        if made.value is not None and made.kind.made(made.value):
            return None
    return Interrupted(
        f"job {job.id} was accepted when '{name}' stood for other content than now, so it did not run",
        hint="Ask for it again if it is still wanted: the catalogue is an older one, or another tool changed the name.",
        retryable=False,
        details={"name": name, "job": job.id},
    )


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
    """Refuses new work, waits for the running jobs until the deadline, and parks the others for the next start. What
    the next start resumes is parked at once.

    Every request that follows a job gets its reply.
    """
    board.draining = True
    for job in board.jobs:
        if job.stage in ("queued", "paused"):
            board.runner.settle(board.runner.gate.withdraw(job.id))
            board.runner.leave(job)
        elif job.resumable:
            job.move("park")
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
        await board.runner.ledger.write_late()
    with anyio.move_on_after(_REPLY_SECONDS):
        while board.attached:
            await board.departure.wait()


def _working(board: Board) -> list[AnyJob]:
    return [job for job in board.jobs if not job.ended.is_set()]


async def _until_idle(board: Board) -> None:
    while working := _working(board):
        job = working[0]
        if job.stage in ("queued", "paused"):
            board.runner.settle(board.runner.gate.withdraw(job.id))
            board.runner.leave(job)
        else:
            await job.changed.wait()
