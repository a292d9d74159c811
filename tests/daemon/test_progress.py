"""The counters of a job: they only grow, whatever its work reports and however often it starts over."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeld.progress import _PHASES, FileProgress, JobProgress, Stopped, _complete, check
from modelwire.values import Counters
from modelwire.vocabulary import Phase
from rigs.watcher import Watcher

GROWING = ("bytes_done", "network_bytes", "verified_bytes", "reused_bytes", "committed_bytes", "files_done", "attempt")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


amounts = st.integers(0, 1 << 40)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("done"), amounts),
        st.tuples(st.just("verified"), amounts),
        st.tuples(st.just("reused"), amounts),
        st.tuples(st.just("committed"), amounts),
        st.tuples(st.just("total"), st.one_of(st.none(), amounts)),
        st.tuples(st.just("again"), st.just(0)),
        st.tuples(st.just("time"), st.integers(0, 100)),
    ),
    max_size=40,
)


@given(steps)
def test_no_counter_decreases(taken: list[tuple[str, int | None]]) -> None:
    clock = Clock()
    job, attempt = JobProgress(clock), 1
    before = job.snapshot()
    for what, amount in taken:
        if what == "again":
            attempt += 1
            job.begin_attempt(attempt)
        elif what == "time":
            clock.now += (amount or 0) / 10
        elif what == "total":
            job.total(amount)
        else:
            job.advance(**{what: amount or 0})
        now = job.snapshot()
        assert all(getattr(now, name) >= getattr(before, name) for name in GROWING)
        assert now.bytes_total is None or now.bytes_total >= now.bytes_done
        assert now.rate_bps is None or now.rate_bps >= 0
        assert now.eta_s is None or now.eta_s >= 0
        assert msgspec.json.decode(msgspec.json.encode(now), type=Counters) == now
        before = now


def test_the_rate_follows_and_the_rest_is_estimated() -> None:
    clock = Clock()
    job = JobProgress(clock)
    job.phase("copy")
    job.total(1000)
    assert after(job, clock, rounds=200, each=1).rate_bps == 10
    assert job.snapshot().eta_s == 80.0
    assert after(job, clock, rounds=300, each=2).rate_bps == 20


def test_another_limit_makes_the_rate_so_far_no_measure_of_the_rest() -> None:
    clock = Clock()
    job = JobProgress(clock)
    job.phase("download")
    job.total(10_000)
    after(job, clock, rounds=100, each=10)
    job.forget_rate()
    assert (job.snapshot().rate_bps, job.snapshot().eta_s) == (None, None)
    now = after(job, clock, rounds=1, each=1)
    assert (now.rate_bps, now.eta_s) == (10, 899.9)


def test_bytes_that_were_here_before_are_no_rate() -> None:
    clock = Clock()
    job = JobProgress(clock)
    job.phase("download")
    job.total(10_000)
    clock.now += 1
    job.advance(done=5_000, kept=5_000)
    assert job.snapshot().rate_bps is None
    assert job.snapshot().eta_s is None
    now = after(job, clock, rounds=300, each=1)
    assert now.bytes_done == 5_300
    assert now.rate_bps == 10
    assert now.eta_s == 470.0
    job.reuse(1_000)
    clock.now += 0.1
    assert job.snapshot().rate_bps in (9, 10)


def test_bytes_that_are_taken_back_make_no_negative_rate() -> None:
    clock = Clock()
    job = JobProgress(clock)
    after(job, clock, rounds=100, each=1)
    job.advance(done=-100)
    clock.now += 0.1
    rate = job.snapshot().rate_bps
    assert rate is not None
    assert 0 < rate <= 10


def after(job: JobProgress, clock: Clock, *, rounds: int, each: int) -> Counters:
    """Looked at ten times a second while it goes on."""
    for _ in range(rounds):
        clock.now += 0.1
        job.advance(done=each)
        job.snapshot()
    return job.snapshot()


def test_looking_often_does_not_change_the_rate() -> None:
    clock = Clock()
    job = JobProgress(clock)
    job.advance(done=100)
    clock.now += 1
    first = job.snapshot().rate_bps
    for _ in range(100):
        assert job.snapshot().rate_bps == first


def test_a_new_attempt_forgets_the_stop_sign() -> None:
    job = JobProgress()
    assert not job.stopped()
    job.stop_reason = "pause"
    assert job.stopped()
    job.begin_attempt(2)
    assert not job.stopped()
    assert job.snapshot().attempt == 2


def test_what_waits_or_is_done_has_no_estimate() -> None:
    clock = Clock()
    job = JobProgress(clock)
    job.total(10)
    job.advance(done=5)
    clock.now += 1
    assert job.snapshot().eta_s is None
    job.phase("copy")
    assert job.snapshot().eta_s is not None
    job.phase("done")
    assert job.snapshot().eta_s is None


# -- the files of a job


def test_each_phase_of_the_wire_has_its_line() -> None:
    assert set(_PHASES) == set(get_args(Phase))
    for phase in get_args(Phase):
        without = {known: kind for known, kind in _PHASES.items() if known != phase}
        with pytest.raises(LookupError, match=phase):
            _complete(without)
    with pytest.raises(LookupError, match="unheard"):
        _complete(_PHASES | cast("dict[Phase, Any]", {"unheard": "working"}))


def test_the_files_make_the_total_and_the_numbers() -> None:
    job = JobProgress()
    one, two = job.files([10, None])
    assert (job.snapshot().bytes_total, job.snapshot().files_total) == (None, 2)
    two.total(5)
    assert job.snapshot().bytes_total == 15
    one.total(12)
    one.total(None)
    assert job.snapshot().bytes_total == 17
    one.advance(done=12, verified=12, network=13)
    two.advance(done=5, reused=5, committed=5)
    one.finished()
    now = job.snapshot()
    assert (now.bytes_done, now.verified_bytes, now.reused_bytes, now.committed_bytes) == (17, 12, 5, 5)
    assert (now.network_bytes, now.files_done, now.files_total) == (13, 1, 2)


def test_a_file_that_is_not_of_the_total_reports_bytes_and_phases_only() -> None:
    job = JobProgress()
    job.total(100)
    loose = FileProgress(job)
    loose.total(7)
    loose.phase("copy")
    loose.advance(done=7)
    now = job.snapshot()
    assert (now.bytes_total, now.bytes_done, now.phase, now.files_total) == (100, 7, "copy", None)


def test_the_phase_is_that_of_the_file_furthest_behind() -> None:
    watcher = Watcher()
    watcher.phase("checking_local")
    one, two, three = watcher.files([1, 1, 1])
    one.finished()  # it was here
    two.phase("reserving")
    two.phase("download")
    two.phase("verify")  # the third has yet to begin
    three.phase("reserving")
    three.phase("download")
    two.finished()
    three.phase("verify")
    three.finished()
    watcher.phase("publish")
    assert watcher.phases == ["checking_local", "reserving", "download", "verify", "publish"]


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["reserving", "download", "verify", None])), max_size=40))
def test_once_bytes_move_no_phase_before_that_is_shown(steps: list[tuple[int, Phase | None]]) -> None:
    watcher = Watcher()
    files = dict(enumerate(watcher.files([1] * 5)))
    for number, phase in steps:
        if phase is None and number in files:
            files.pop(number).finished()
        elif phase is not None and number in files:
            files[number].phase(phase)
    moving = [phase in ("download", "verify") for phase in watcher.phases]
    assert moving == sorted(moving)


def test_the_names_that_a_link_makes_do_not_hide_the_hashing() -> None:
    watcher = Watcher()
    watcher.phase("reserving")
    for each in watcher.files([1, 1]):
        each.phase("link")
        each.phase("verify")
        each.finished()
    assert watcher.phases == ["reserving", "link", "verify"]


def test_one_that_fails_stops_the_others_until_the_work_begins_anew() -> None:
    job = JobProgress()
    _, other = job.files([1, 1])
    job.stop_files()
    with pytest.raises(Stopped):
        check(other)
    check(job)
    (again,) = job.files([1])
    check(again)
    job.stop_reason = "cancel"
    with pytest.raises(Stopped):
        check(again)
    job.begin_attempt(2)
    check(again)


def test_work_that_nothing_follows_never_stops() -> None:
    alone = FileProgress()
    alone.phase("copy")
    alone.total(None)
    alone.advance(done=1, verified=1, reused=1, committed=1)
    check(alone)


def test_a_listener_hears_the_state_now_and_each_change_until_the_end() -> None:
    job = JobProgress()
    seen: list[tuple[Phase, int, int | None, str | None, int]] = []

    def look(progress: JobProgress) -> None:
        seen.append((progress.current_phase, progress.done, progress.total_bytes, progress.source, progress.attempt))

    (file,) = job.files([None])
    with job.heard_by(look):
        file.total(8)
        file.source("here")
        file.phase("download")
        file.phase("download")
        file.advance(done=3)
        file.attempted()
    file.advance(done=5)
    assert seen == [
        ("queued", 0, None, None, 1),
        ("queued", 0, 8, None, 1),
        ("queued", 0, 8, "here", 1),
        ("download", 0, 8, "here", 1),
        ("download", 3, 8, "here", 1),
        ("download", 3, 8, "here", 2),
    ]


def test_many_threads_lose_nothing() -> None:
    job = JobProgress()
    files = job.files([1000] * 8)

    def work(file: FileProgress) -> None:
        file.phase("copy")
        for _ in range(1000):
            file.advance(done=1, verified=1)
        file.finished()

    with ThreadPoolExecutor(len(files)) as threads:
        list(threads.map(work, files))
    now = job.snapshot()
    assert (now.bytes_done, now.verified_bytes, now.files_done, now.phase) == (8000, 8000, 8, "copy")


def test_the_total_of_files_counts_the_work_beside_them() -> None:
    """A repair has looked at all bytes before it brings some: its progress goes on from there."""
    job = JobProgress()
    job.total(100)
    job.advance(done=100)
    (file,) = job.files([30], beside=100)
    assert job.total_bytes == 130
    file.total(40)
    file.advance(done=40)
    assert (job.snapshot().bytes_done, job.snapshot().bytes_total) == (140, 140)
