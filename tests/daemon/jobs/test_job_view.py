"""What a job tells of itself: a rate and an estimate are of what runs, and of nothing else."""

from __future__ import annotations

import pytest

from modeld.jobs.job import Job
from modeld.progress import JobProgress
from modelwire.requests import ModelAdd
from modelwire.vocabulary import JobState

MIB = 1 << 20


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def half_way(clock: Clock) -> Job:
    """Half of its bytes came within a second."""
    job = Job(
        id="j",
        kind="model.add",
        key="k",
        request=ModelAdd(id="1", path="/source"),
        peer=1,
        priority=3,
        on_disconnect="cancel",
        created_at=0.0,
        meter=JobProgress(clock),
    )
    job.state = "running"
    job.meter.phase("copy")
    job.meter.total(2 * MIB)
    job.view()
    clock.now += 1
    job.meter.advance(done=MIB)
    return job


def test_a_job_that_runs_has_a_rate_and_an_estimate() -> None:
    now = half_way(Clock()).view().progress
    assert now is not None
    assert now.rate_bps
    assert now.eta_s


@pytest.mark.parametrize("state", ["queued", "paused", "done", "failed", "cancelled"])
def test_a_job_that_does_not_run_has_none(state: JobState) -> None:
    clock = Clock()
    job = half_way(clock)
    job.view()
    job.state = state
    clock.now += 1
    now = job.view().progress
    assert now is not None
    assert (now.rate_bps, now.eta_s) == (None, None)
    assert (now.bytes_done, now.bytes_total) == (MIB, 2 * MIB)
