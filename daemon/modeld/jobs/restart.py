"""Jobs across a stop and a start of the daemon: parked in good order, or found open after a crash."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from modeld.jobs import record
from modeld.jobs.board import Board
from modeld.jobs.ledger import Ledger
from modelwire.values import Added

Published = Callable[[Added], bool]
"""Whether the publication that a job announced before the crash took place."""


async def restore(board: Board, ledger: Ledger, published: Published) -> int:
    """Takes up what the last run left open, in the order of admission; how many go on."""
    resumed = 0
    for row in await ledger.open_jobs():
        job = record.restore(row)
        job.recorded.set()
        board.jobs.enter(job)
        if job.failure is not None:
            await board.runner.end(job, "failed", failure=job.failure)
        elif job.intent is not None and published(job.intent):
            await board.runner.end(job, "done", value=job.intent)
        elif job.state != "paused":
            job.state = "queued"
            board.runner.note(job, "job.restored")
            board.readmit(job)
            resumed += 1
    return resumed


async def drain(board: Board, deadline: float) -> None:
    """No new work; what runs has until the deadline, then it is parked for the next start."""
    board.draining = True
    for job in board.jobs:
        if job.state == "queued":
            board.runner.settle(board.runner.gate.withdraw(job.id))
        if job.state in ("queued", "paused"):
            board.runner.park(job)
    with anyio.move_on_after(max(0.0, deadline)):
        await _until_idle(board)
    for job in board.jobs:
        board.runner.stop(job, "park")
    await _until_idle(board)


async def _until_idle(board: Board) -> None:
    while running := [job for job in board.jobs if not job.ended.is_set()]:
        await running[0].ended.wait()
