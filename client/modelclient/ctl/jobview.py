"""A job as people read it: a row among others, or everything about it. Shared by the verbs that show jobs."""

from __future__ import annotations

import argparse
from typing import Final

from modelclient.ctl.output import count
from modelclient.ctl.session import Session
from modelclient.ctl.table import line, pairs
from modelwire.errors import WireError, from_code
from modelwire.units import rounded_rate, rounded_size
from modelwire.values import Counters, JobView

NOT_DONE: Final = ("does_not_fit", "rolled_back")
"""The outcomes of update commands that were for this machine and have not taken effect, without an error."""

HEADINGS = ("JOB", "STATE", "KIND", "MODEL", "PROGRESS", "CREATED")


def row(job: JobView) -> tuple[str, ...]:
    return (job.id, _state(job), job.kind, job.model or "", _progress(job.progress), job.created_at)


def configure(parser: argparse.ArgumentParser) -> None:
    """The argument of a verb for one job."""
    parser.add_argument("job", metavar="ID", help="the job's id")


def print_job(session: Session, job: JobView) -> None:
    session.show_result(job, quiet=[job.id], text=pairs(_all(job)))


def print_state(session: Session, job: JobView) -> None:
    """After a control: the state of the job now."""
    session.show_result(job, quiet=[job.id], text=line(job.id, _state(job)))


def failure(job: JobView) -> WireError | None:
    """The error that a job has ended with."""
    if job.error is None:
        return None
    kept = job.error
    return from_code(kept.code, kept.message, hint=kept.hint, retryable=kept.retryable, details=kept.details)


def outcome(job: JobView) -> str | None:
    """Of work that ends in one of several ways without an error, such as an update command."""
    return job.value.get("outcome") if isinstance(job.value, dict) else None


def _why(job: JobView) -> str | None:
    """What failed before an update was rolled back."""
    error = job.value.get("error") if isinstance(job.value, dict) else None
    return f"{error['code']}: {error['message']}" if error else None


def _state(job: JobView) -> str:
    return f"{job.state} ({count(job.position, 'job')} before it)" if job.position else job.state


def _progress(now: Counters | None) -> str:
    if now is None:
        return ""
    if now.bytes_total:
        return f"{100 * now.bytes_done / now.bytes_total:.0f} % of {rounded_size(now.bytes_total)}"
    return rounded_size(now.bytes_done) if now.bytes_done else ""


def _served(job: JobView) -> str | None:
    """Which source gave how much, of a pull."""
    served = job.value.get("served") if isinstance(job.value, dict) else None
    if served:
        return ", ".join(f"{name} ({rounded_size(size)})" for name, size in served.items())
    return job.progress.source if job.progress else None


def _all(job: JobView) -> list[tuple[str, str | None]]:
    return [
        ("job", job.id),
        ("state", _state(job)),
        ("kind", job.kind),
        ("model", job.model),
        ("priority", str(job.priority)),
        ("phase", job.progress.phase if job.progress else None),
        ("progress", _progress(job.progress)),
        ("rate", rounded_rate(job.progress.rate_bps) if job.progress else None),
        ("rate limit", rounded_rate(job.max_rate)),
        ("bytes from", _served(job)),
        ("attempts", str(job.attempts) if job.attempts > 1 else None),
        ("asked by", f"uid {job.peer}" if job.peer is not None else None),
        ("watched by", count(job.watchers, "client") if job.watchers else None),
        ("when left", job.on_disconnect),
        ("created", job.created_at),
        ("started", job.started_at),
        ("ended", job.ended_at),
        ("outcome", (outcome(job) or "").replace("_", " ") or None),
        ("error", f"{job.error.code}: {job.error.message}" if job.error else _why(job)),
        ("hint", job.error.hint if job.error else None),
    ]
