"""A job as a row of the ledger, and back."""

from __future__ import annotations

from typing import Any

import msgspec

from modeld.jobs.job import Job, failure_error
from modeld.jobs.ledger import JobRecord
from modelwire.errors import Interrupted, Unsupported
from modelwire.operations import OPERATIONS
from modelwire.requests import Write
from modelwire.values import Failure, Value

_ENCODER = msgspec.json.Encoder()

_TOLD = {
    "blob": "digest",
    "size_bytes": "size_bytes",
    "reused": "reused",
    "source": "source",
    "checked": "checked",
    "failed": "failed",
    "removed": "removed",
    "freed_bytes": "freed_bytes",
}
"""Fields of outcomes that the activity log tells, and how it calls them."""


def encode(value: Value | Write) -> bytes:
    return _ENCODER.encode(value)


def of(job: Job) -> JobRecord:
    return JobRecord(
        id=job.id,
        kind=job.kind,
        key=job.key,
        token=job.token,
        peer_uid=job.peer,
        priority=job.priority,
        order=job.order,
        state="queued",
        request=encode(job.request),
        model=job.model,
        on_disconnect=job.on_disconnect,
        created_at=job.created_at,
    )


def _job(row: JobRecord, request: Write) -> Job:
    return Job(
        id=row.id,
        kind=row.kind,
        key=row.key,
        request=request,
        peer=row.peer_uid,
        priority=row.priority,
        on_disconnect=row.on_disconnect,
        created_at=row.created_at,
        model=row.model,
        token=row.token,
        order=row.order,
        state=row.state,
        attempts=row.attempts,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )


def restore(row: JobRecord) -> Job:
    """An open row as a live job. A request that this version cannot read makes a job that is to fail."""
    try:
        request = msgspec.json.decode(row.request, type=_request_type(row.kind))
        job = _job(row, request)
        job.intent = msgspec.json.decode(row.result, type=OPERATIONS[row.kind].value) if row.result else None
    except (msgspec.MsgspecError, KeyError) as error:
        job = _job(row, Write())
        job.failure = Unsupported(
            f"job {row.id} ({row.kind}) was written by another version and cannot be read: {error}",
            hint="ask for it again",
        )
    return job


def revive(row: JobRecord) -> Job:
    """A row that is no live job, to be looked at."""
    job = _job(row, Write())
    job.recorded.set()
    job.ended.set()
    if row.result:
        job.value = _value(row)
    if row.error:
        job.failure = failure_error(msgspec.json.decode(row.error, type=Failure))
    if job.terminal:
        job.meter.phase("done" if row.state == "done" else "queued")
    else:
        job.failure = Interrupted(
            f"job {row.id} has ended, and its end could not be written down",
            hint="the daemon's log tells how it ended; the next start takes it up again",
            details={"job": row.id},
        )
    return job


def outcome(job: Job) -> dict[str, Any]:
    """The fields of the activity log's line about an end."""
    figures: dict[str, Any] = {"outcome": "ok" if job.failure is None else job.failure.code}
    if job.started_at and job.ended_at:
        figures["seconds"] = round(job.ended_at - job.started_at, 3)
    if job.failure is not None:
        figures["message"] = job.failure.message
    if job.value is not None:
        figures |= {_TOLD[name]: value for name in _TOLD if (value := getattr(job.value, name, None)) is not None}
    return figures


def _request_type(kind: str) -> type[Write]:
    request = OPERATIONS[kind].request
    if not issubclass(request, Write):
        raise KeyError(kind)
    return request


def _value(row: JobRecord) -> Value | None:
    try:
        return msgspec.json.decode(row.result or b"null", type=OPERATIONS[row.kind].value)
    except (msgspec.MsgspecError, KeyError):
        return None
