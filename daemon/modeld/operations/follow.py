"""Reports one job to one client until it ends."""

from __future__ import annotations

import anyio

from modeld.jobs.board import Attachment
from modeld.jobs.job import AnyJob, Job, V, W
from modeld.operations.operation import Call
from modelwire.limits import PROGRESS_INTERVAL_SECONDS
from modelwire.replies import Accepted, Progress
from modelwire.values import Counters


async def follow(call: Call, attachment: Attachment[W, V]) -> Job[W, V]:
    """Sends positions as they change and progress at most ten times a second; returns the job when it has ended.

    Nothing is queued for a slow peer: it gets the newest figures once it takes them.
    """
    with attachment:
        job = attachment.job
        sent_position: int | None = None
        sent: Counters | None = None
        while True:
            await call.until_writable()
            if sent_position is None or (job.position is not None and job.position != sent_position):
                sent_position = job.position or 0
                call.send(Accepted(id=call.id, job=job.id, position=sent_position, joined=attachment.joined))
            if job.ended.is_set():
                break
            if job.state == "running" and (now := job.progress.snapshot()) != sent:
                sent = now
                call.send(Progress.of(call.id, job.id, now))
            with anyio.move_on_after(_poll_seconds(job)):
                await job.changed.wait()
        if job.failure is None and job.attempts:
            call.send(Progress.of(call.id, job.id, job.progress.snapshot()))
        return job


def _poll_seconds(job: AnyJob) -> float | None:
    """A running job is polled ten times a second; any other fires `changed`."""
    return PROGRESS_INTERVAL_SECONDS if job.state == "running" else None
