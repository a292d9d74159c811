"""Requests that are about jobs."""

from __future__ import annotations

from typing import Final

from modelwire.fields import Count, RateLimit
from modelwire.requests.request import Request
from modelwire.vocabulary import JobState, OnDisconnect

JOBS_LISTED: Final = 100
"""Jobs in a list whose length the client leaves open."""


class JobList(Request, tag="job.list", frozen=True, kw_only=True):
    state: JobState | None = None
    limit: Count = JOBS_LISTED


class JobShow(Request, tag="job.show", frozen=True, kw_only=True):
    job: str


class JobAttach(Request, tag="job.attach", frozen=True, kw_only=True):
    """Progress and the outcome of a job, from any connection."""

    job: str


class JobCancel(Request, tag="job.cancel", frozen=True, kw_only=True):
    """Ends a job; what has arrived is kept for the next time. With `discard` its partial downloads are removed, also
    those of a job that has ended."""

    job: str
    discard: bool = False


class JobPause(Request, tag="job.pause", frozen=True, kw_only=True):
    job: str


class JobResume(Request, tag="job.resume", frozen=True, kw_only=True):
    job: str


class JobPrioritize(Request, tag="job.prioritize", frozen=True, kw_only=True):
    job: str
    priority: int


class JobConfigure(Request, tag="job.configure", frozen=True, kw_only=True):
    """Settings of one job, waiting or running, until it ends. What is left out stays as it is.

    `max_rate` is in bytes a second, of a pull, beside what all downloads may together; 0 for no limit of its own.
    `on_disconnect` is as in a write: with `continue` the job goes on when those that asked for it have left.
    """

    job: str
    priority: int | None = None
    max_rate: RateLimit | None = None
    on_disconnect: OnDisconnect | None = None
