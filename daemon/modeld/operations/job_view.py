"""A job as clients see it."""

from __future__ import annotations

import msgspec

from modeld.jobs.job import AnyJob, timestamp
from modeld.jobs.record import failure_of
from modelwire.requests import Fetch
from modelwire.values import Counters, JobView


def view_of(job: AnyJob) -> JobView:
    return JobView(
        id=job.id,
        kind=job.kind.name,
        state=job.state,
        priority=job.priority,
        max_rate=job.request.max_rate if isinstance(job.request, Fetch) else None,
        created_at=timestamp(job.created_at),
        position=job.position if job.state in ("queued", "running") else None,
        model=job.model,
        started_at=timestamp(job.started_at) if job.started_at else None,
        ended_at=timestamp(job.ended_at) if job.ended_at else None,
        on_disconnect=job.on_disconnect,
        attempts=job.attempts,
        peer=job.peer,
        watchers=job.watchers,
        progress=_progress(job),
        error=failure_of(job.failure) if job.failure else None,
        value=job.value,
    )


def _progress(job: AnyJob) -> Counters:
    now = job.progress.snapshot()
    if job.state == "running":
        return now
    # A job that does not run has no rate: the smoothed one would fade from one request to the next.
    return msgspec.structs.replace(now, rate_bps=None, eta_s=None)
