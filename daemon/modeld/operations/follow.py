"""Keeps one client informed about one job until it ends."""

from __future__ import annotations

import anyio

from modeld.jobs.board import Attachment
from modeld.jobs.job import AnyJob, Job, V, W
from modeld.operations.operation import Call
from modelwire.limits import PROGRESS_INTERVAL_SECONDS
from modelwire.replies import Accepted, Progress
from modelwire.values import Counters


async def follow(call: Call, attachment: Attachment[W, V]) -> Job[W, V]:
    """Positions as they change, progress at most ten times a second, and the job when it has ended.

    Nothing is queued here for a slow peer: it gets the newest figures once it takes them.
    """
    with attachment:
        job = attachment.job
        told_position: int | None = None
        told: Counters | None = None
        while True:
            await call.until_writable()
            if told_position is None or (job.position is not None and job.position != told_position):
                told_position = job.position or 0
                call.send(Accepted(id=call.id, job=job.id, position=told_position, joined=attachment.joined))
            if job.ended.is_set():
                break
            if job.state == "running" and (now := job.meter.snapshot()) != told:
                told = now
                call.send(Progress.of(call.id, job.id, now))
            with anyio.move_on_after(_patience(job)):
                await job.changed.wait()
        if job.failure is None and job.attempts:
            call.send(Progress.of(call.id, job.id, job.meter.snapshot()))
        return job


def _patience(job: AnyJob) -> float | None:
    """A running job is looked at ten times a second; one that waits tells of itself."""
    return PROGRESS_INTERVAL_SECONDS if job.state == "running" else None
