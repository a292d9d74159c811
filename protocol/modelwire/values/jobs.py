"""What operations on jobs answer with, and what a job keeps."""

from __future__ import annotations

from typing import Any

from msgspec import field

from modelwire.values.value import Value
from modelwire.vocabulary import JobState, OnDisconnect, Phase


class Failure(Value, frozen=True, kw_only=True):
    """An error as a stored value: what a failed job keeps."""

    code: str
    message: str
    hint: str | None = None
    retryable: bool = False
    details: dict[str, Any] = field(default_factory=dict)


class Counters(Value, omit_defaults=False, frozen=True, kw_only=True):
    """How far a job is. No counter ever decreases within a job."""

    phase: Phase = "queued"
    bytes_done: int = 0
    bytes_total: int | None = None
    network_bytes: int = 0
    verified_bytes: int = 0
    reused_bytes: int = 0
    committed_bytes: int = 0
    rate_bps: int | None = None
    eta_s: float | None = None
    source: str | None = None
    attempt: int = 1
    files_done: int = 0
    files_total: int | None = None


class JobView(Value, frozen=True, kw_only=True):
    """One job, live or finished."""

    id: str
    kind: str
    state: JobState
    priority: int
    created_at: str
    position: int | None = None
    model: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    on_disconnect: OnDisconnect = "cancel"
    attempts: int = 0
    peer: int | None = None
    watchers: int = 0
    max_rate: int | None = None
    discarded_bytes: int | None = None
    """Only in the answer to a cancel that discards: the bytes of the partial downloads that it removed."""
    progress: Counters | None = None
    error: Failure | None = None
    value: Any = None


class JobList(Value, omit_defaults=False, frozen=True, kw_only=True):
    jobs: tuple[JobView, ...] = ()
