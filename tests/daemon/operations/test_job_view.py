"""A job as clients see it: only a running job has a rate and an estimate."""

from __future__ import annotations

import pytest

from modeld.jobs.job import AnyJob, Job
from modeld.jobs.record import Unreadable
from modeld.jobs.states import Event
from modeld.operations.job_view import view_of
from modeld.progress import JobProgress
from modelwire.requests import ModelAdd
from modelwire.vocabulary import JobState

MIB = 1 << 20


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def half_way(clock: Clock) -> AnyJob:
    """Half of its bytes came within a second."""
    job = Job(
        id="j",
        kind=Unreadable("model.add"),
        key="k",
        request=ModelAdd(id="1", path="/source"),
        peer=1,
        priority=3,
        on_disconnect="cancel",
        created_at=0.0,
        progress=JobProgress(clock),
    )
    job.move("start")
    job.progress.phase("copy")
    job.progress.total(2 * MIB)
    view_of(job)
    clock.now += 1
    job.progress.advance(done=MIB)
    return job


def test_a_job_that_runs_has_a_rate_and_an_estimate() -> None:
    now = view_of(half_way(Clock())).progress
    assert now is not None
    assert now.rate_bps
    assert now.eta_s


WAYS: dict[JobState, tuple[Event, ...]] = {
    "queued": ("restore",),
    "paused": ("pause", "stop"),
    "done": ("end", "done"),
    "failed": ("end", "failed"),
    "cancelled": ("cancel", "stop", "cancelled"),
}


@pytest.mark.parametrize("state", WAYS)
def test_a_job_that_does_not_run_has_none(state: JobState) -> None:
    clock = Clock()
    job = half_way(clock)
    view_of(job)
    for event in WAYS[state]:
        job.move(event)
    assert job.state == state
    clock.now += 1
    now = view_of(job).progress
    assert now is not None
    assert (now.rate_bps, now.eta_s) == (None, None)
    assert (now.bytes_done, now.bytes_total) == (MIB, 2 * MIB)
