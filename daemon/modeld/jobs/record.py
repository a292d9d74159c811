"""A job as a row of the ledger, and back."""

from __future__ import annotations

import time
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread
import msgspec

from modeld.jobs.job import AnyJob, Job, Kind
from modeld.jobs.ledger import JobRecord
from modelwire.errors import Interrupted, Unsupported, WireError, from_code
from modelwire.requests import Write
from modelwire.values import Failure, Value

V = TypeVar("V", bound=Value)

_ENCODER = msgspec.json.Encoder()

_LONG: Final = 500
"""Entries of a list, from which its encoding takes half a millisecond."""

_PIECE: Final = 100

_LOGGED = {
    "blob": "digest",
    "size_bytes": "size_bytes",
    "reused": "reused",
    "source": "source",
    "checked": "checked",
    "failed": "failed",
    "removed": "removed",
    "freed_bytes": "freed_bytes",
}
"""The fields of outcomes that the activity log records, and their names in the log."""


class Unreadable(Kind[Write, Value]):
    """Stands for a kind of work that this version does not know, or whose request it cannot read."""

    request, value = Write, Value

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    async def work(self, job: Job[Write, Value], /) -> Value:
        raise unreadable(job.id, self.name, "its request is not known")


def unreadable(job_id: str, kind: str, why: object) -> Unsupported:
    return Unsupported(
        f"job {job_id} ({kind}) was written by another version and cannot be read: {why}", hint="Ask for it again."
    )


def encode(value: Value | Write) -> bytes:
    return _ENCODER.encode(value)


async def with_long_lists_encoded(value: V) -> V:
    """The same value with JSON in place of its long lists, for the ledger and the replies: 10,000 entries take 7 ms at
    each encoding and 4 ms when they are freed, which the event loop must not spend."""
    if not any(isinstance(field, tuple) and len(field) > _LONG for field in msgspec.structs.astuple(value)):
        return value
    only = [value]
    del value
    return await anyio.to_thread.run_sync(_encode_long_lists, only)


def _encode_long_lists(only: list[V]) -> V:
    value = only.pop()
    fields = {name: getattr(value, name) for name in value.__struct_fields__}
    encoded = {
        name: msgspec.Raw(_encode_in_pieces(field))
        for name, field in fields.items()
        if isinstance(field, tuple) and len(field) > _LONG
    }
    return msgspec.structs.replace(value, **encoded)


def _encode_in_pieces(items: tuple[Any, ...]) -> bytes:
    """The interpreter serves other threads between the pieces."""
    pieces = []
    for first in range(0, len(items), _PIECE):
        pieces.append(_ENCODER.encode(items[first : first + _PIECE])[1:-1])
        time.sleep(0)
    return b"[" + b",".join(pieces) + b"]"


def of(job: AnyJob) -> JobRecord:
    return JobRecord(
        id=job.id,
        kind=job.kind.name,
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
        accepted_for=job.accepted_for,
    )


def request_at_end(job: AnyJob) -> dict[str, bytes]:
    """The column of the request, if it changes as the job ends."""
    kept = job.kind.kept(job.request)
    return {} if kept is job.request else {"request": encode(kept)}


def _job(row: JobRecord, kind: Kind[Any, Any], request: Write) -> AnyJob:
    job = Job(
        id=row.id,
        kind=kind,
        key=row.key,
        request=request,
        peer=row.peer_uid,
        priority=row.priority,
        on_disconnect=row.on_disconnect,
        created_at=row.created_at,
        model=row.model,
        token=row.token,
        accepted_for=row.accepted_for,
        order=row.order,
        stage=row.state,
        state=row.state,
        attempts=row.attempts,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )
    job.recorded.set()
    return job


def live(row: JobRecord, kind: Kind[Any, Any]) -> AnyJob:
    """An open row as a live job. A row that this version cannot read becomes a job that has failed."""
    try:
        job = _job(row, kind, msgspec.json.decode(row.request, type=kind.request))
        job.intent = msgspec.json.decode(row.result, type=kind.value) if row.result else None
    except msgspec.MsgspecError as error:
        job = _job(row, Unreadable(row.kind), Write())
        job.failure = unreadable(row.id, row.kind, error)
    return job


def past(row: JobRecord, kind: Kind[Any, Any]) -> AnyJob:
    """A row that is no live job, as a job to read."""
    try:
        job = _job(row, kind, msgspec.json.decode(row.request, type=kind.request))
    except msgspec.MsgspecError:
        job = _job(row, Unreadable(row.kind), Write())
    job.ended.set()
    job.value = None if isinstance(kind, Unreadable) else _value(row, kind.value)
    if row.error:
        job.failure = failure_error(msgspec.json.decode(row.error, type=Failure))
    if job.terminal:
        job.progress.phase("done" if row.state == "done" else "queued")
    else:
        job.stage = "parked"
        job.failure = Interrupted(
            f"job {row.id} has ended, and its end could not be recorded",
            hint="Look in the daemon's log for how it ended; the next start takes it up again.",
            details={"job": row.id},
        )
    return job


def _value(row: JobRecord, kind: type[V]) -> V | None:
    try:
        return msgspec.json.decode(row.result, type=kind) if row.result else None
    except msgspec.MsgspecError:
        return None


def end_fields(job: AnyJob) -> dict[str, Any]:
    """The fields of the activity log's record of a job's end."""
    fields: dict[str, Any] = {"outcome": "ok" if job.failure is None else job.failure.code}
    if job.began is not None:
        fields["seconds"] = round(anyio.current_time() - job.began, 3)
    if job.failure is not None:
        fields["message"] = job.failure.message
    if job.value is not None:
        fields |= {_LOGGED[name]: value for name in _LOGGED if (value := getattr(job.value, name, None)) is not None}
    return fields


def failure_of(fault: WireError) -> Failure:
    """An error as the ledger and the wire carry it."""
    return Failure(
        code=fault.code, message=fault.message, hint=fault.hint, retryable=fault.retryable, details=fault.details
    )


def failure_error(value: Failure) -> WireError:
    return from_code(value.code, value.message, hint=value.hint, retryable=value.retryable, details=value.details)
