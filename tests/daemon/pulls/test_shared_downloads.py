"""One download for several jobs that join late, leave early, fail or succeed; without a network."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from modeld.download.engine.assembly import Fetched
from modeld.download.engine.budget import Budget, Pace
from modeld.download.routes.events import TransferEvent, unheard
from modeld.progress import FileProgress, JobProgress, Stopped
from modeld.pulls.shared_downloads import SharedDownloads, Work
from modeld.store.digest import Digest
from modeld.store.disk.user_space import ShareExceeded
from modeld.store.ingest.ingest import Ingest
from modeld.store.publish.holds import Holds
from modelwire.errors import SourceNotFound
from rigs.waiting import all_wait, eventually

pytestmark = pytest.mark.anyio

WAIT = 10


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass(eq=False)
class FetchedDouble:
    """A double of a fetched file."""

    committed: int = 0
    digest: Digest = field(default_factory=lambda: Digest("0" * 64))


class IngestDouble:
    """Commits without a store."""

    def __init__(self) -> None:
        self.holds = Holds()

    async def commit(self, fetched: FetchedDouble) -> str:
        await anyio.lowlevel.checkpoint()
        fetched.committed += 1
        return "blob"


class JobDouble:
    def __init__(self, rate: int | None = None) -> None:
        self.job_progress = JobProgress()
        (self.progress,) = self.job_progress.files([None])
        self.share = Budget().share(rate=rate)

    def stop(self) -> None:
        self.job_progress.stop_reason = "cancel"


class WorkDouble:
    """Runs until it may end, or is stopped."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.may_end = threading.Event()
        self.begun = threading.Event()
        self.runs = 0
        self.ended: list[str] = []
        self.fetched = FetchedDouble()
        self.fault = fault

    def __call__(self, progress: FileProgress, on_event: object, pace: Pace) -> Fetched:
        self.runs += 1
        self.pace = pace
        progress.total(10)
        progress.phase("download")
        progress.advance(done=4, network=5)
        progress.source("here")
        self.begun.set()
        while not self.may_end.wait(0.005):
            if progress.stopped():
                self.ended.append("stopped")
                raise Stopped
        progress.advance(done=6, network=6)
        if self.fault is not None:
            raise self.fault
        self.ended.append("done")
        return cast("Fetched", self.fetched)


def downloads() -> SharedDownloads:
    return SharedDownloads(cast("Ingest", IngestDouble()))


async def join(
    shared: SharedDownloads, work: Work, job: JobDouble, results: dict[str, object], name: str, route: str = "r"
) -> None:
    try:
        done = await shared.fetch("key", route, work, job.progress, unheard, job.share, ExitStack())
        results[name] = (done.blob, done.fetched) if route == done.route else (done.blob, done.fetched, done.route)
    except (Stopped, SourceNotFound, ShareExceeded) as fault:
        results[name] = type(fault)


async def test_two_jobs_share_one_and_the_late_one_gets_the_missed_progress() -> None:
    shared, work, results = downloads(), WorkDouble(), dict[str, object]()
    one, two = JobDouble(), JobDouble()
    with anyio.fail_after(WAIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(join, shared, work, one, results, "one")
            await eventually(work.begun.is_set)
            tasks.start_soon(join, shared, work, two, results, "two")
            await eventually(lambda: two.job_progress.snapshot().bytes_done >= 4)
            work.may_end.set()
    assert results == {"one": ("blob", work.fetched), "two": ("blob", work.fetched)}
    assert (work.runs, work.fetched.committed) == (1, 1)
    first, second = one.job_progress.snapshot(), two.job_progress.snapshot()
    assert first.bytes_done == second.bytes_done == 10
    assert first.source == second.source == "here"
    assert (first.network_bytes, second.network_bytes) == (11, 6)
    assert (one.job_progress.kept, two.job_progress.kept) == (0, 4), "missed bytes are no rate"


@pytest.mark.parametrize("leaver", ["one", "two"])
async def test_a_job_that_leaves_does_not_end_it(leaver: str) -> None:
    shared, work, results = downloads(), WorkDouble(), dict[str, object]()
    jobs = {"one": JobDouble(), "two": JobDouble()}
    stays = "two" if leaver == "one" else "one"
    with anyio.fail_after(WAIT):
        async with anyio.create_task_group() as tasks:
            for name, job in jobs.items():
                tasks.start_soon(join, shared, work, job, results, name)
            await eventually(work.begun.is_set)
            jobs[leaver].stop()
            await eventually(lambda: leaver in results)
            assert work.ended == []
            work.may_end.set()
    assert results == {leaver: Stopped, stays: ("blob", work.fetched)}
    assert work.runs == 1


async def test_the_last_job_that_leaves_ends_it_and_the_next_begins_anew() -> None:
    shared, first, second, results = downloads(), WorkDouble(), WorkDouble(), dict[str, object]()
    one, two = JobDouble(), JobDouble()
    second.may_end.set()
    with anyio.fail_after(WAIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(join, shared, first, one, results, "one")
            await eventually(first.begun.is_set)
            one.stop()
            await eventually(lambda: "one" in results)
            assert first.ended == ["stopped"]
            tasks.start_soon(join, shared, second, two, results, "two")
    assert results == {"one": Stopped, "two": ("blob", second.fetched)}
    assert (first.runs, second.runs) == (1, 1)


async def test_a_job_that_joins_a_download_as_it_is_stopped_gets_the_next_one() -> None:
    shared, second, results = downloads(), WorkDouble(), dict[str, object]()
    second.may_end.set()
    one, two, stopping, may_stop = JobDouble(), JobDouble(), threading.Event(), threading.Event()

    def first(progress: FileProgress, on_event: object, pace: Pace) -> Fetched:
        progress.advance(done=4)
        while not progress.stopped():
            may_stop.wait(0.005)
        stopping.set()
        assert may_stop.wait(WAIT)
        raise Stopped

    with anyio.fail_after(WAIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(join, shared, first, one, results, "one")
            await eventually(lambda: one.job_progress.done)
            one.stop()
            await eventually(stopping.is_set)
            tasks.start_soon(join, shared, second, two, results, "two")
            await eventually(lambda: two.job_progress.done)
            may_stop.set()
    assert results == {"one": Stopped, "two": ("blob", second.fetched)}
    assert two.job_progress.snapshot().bytes_done == 10


async def test_a_file_that_is_whole_as_the_last_job_leaves_is_committed() -> None:
    shared, job, fetched, results = downloads(), JobDouble(), FetchedDouble(), dict[str, object]()
    begun = threading.Event()

    def work(progress: FileProgress, on_event: object, pace: Pace) -> Fetched:
        begun.set()
        never = threading.Event()
        while not progress.stopped():
            never.wait(0.005)
        return cast("Fetched", fetched)

    with anyio.fail_after(WAIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(join, shared, work, job, results, "one")
            await eventually(begun.is_set)
            job.stop()
    assert results == {"one": Stopped}
    assert fetched.committed == 1


async def test_a_failure_fails_the_jobs_that_would_ask_the_same_sources() -> None:
    shared, work, results = downloads(), WorkDouble(SourceNotFound("there is nothing")), dict[str, object]()
    elsewhere = WorkDouble()
    elsewhere.may_end.set()
    with anyio.fail_after(WAIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(join, shared, work, JobDouble(), results, "one")
            await eventually(work.begun.is_set)
            tasks.start_soon(join, shared, WorkDouble(), JobDouble(), results, "same")
            tasks.start_soon(join, shared, elsewhere, JobDouble(), results, "other", "another route")
            await all_wait()
            work.may_end.set()
    assert results == {"one": SourceNotFound, "same": SourceNotFound, "other": ("blob", elsewhere.fetched)}
    assert (work.runs, elsewhere.runs) == (1, 1)


async def test_a_job_that_joins_learns_of_which_route_the_bytes_are() -> None:
    shared, work, results = downloads(), WorkDouble(), dict[str, object]()
    with anyio.fail_after(WAIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(join, shared, work, JobDouble(), results, "one")
            await eventually(work.begun.is_set)
            tasks.start_soon(join, shared, WorkDouble(), JobDouble(), results, "other", "another route")
            await all_wait()
            work.may_end.set()
    assert results == {"one": ("blob", work.fetched), "other": ("blob", work.fetched, "r")}


async def test_the_bytes_of_a_download_that_failed_count_no_more_for_a_job_that_begins_another() -> None:
    shared, work, results = downloads(), WorkDouble(SourceNotFound("there is nothing")), dict[str, object]()
    elsewhere, other = WorkDouble(), JobDouble()
    elsewhere.may_end.set()
    with anyio.fail_after(WAIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(join, shared, work, JobDouble(), results, "one")
            await eventually(work.begun.is_set)
            tasks.start_soon(join, shared, elsewhere, other, results, "other", "another route")
            await eventually(lambda: other.job_progress.done)
            work.may_end.set()
    assert results["other"] == ("blob", elsewhere.fetched)
    now = other.job_progress.snapshot()
    assert (now.bytes_done, now.bytes_total) == (10, 10)


async def test_a_job_that_is_cancelled_leaves_too() -> None:
    shared, work = downloads(), WorkDouble()
    job = JobDouble()
    with anyio.fail_after(WAIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(join, shared, work, job, dict[str, object](), "one")
            await eventually(work.begun.is_set)
            tasks.cancel_scope.cancel()
        await eventually(lambda: work.ended)
    assert work.ended == ["stopped"]


@pytest.mark.parametrize("steps", range(12))
async def test_a_job_that_is_cancelled_at_any_point_leaves_nothing_to_the_next(steps: int) -> None:
    shared, work, results = downloads(), WorkDouble(), dict[str, object]()
    work.may_end.set()
    with anyio.fail_after(WAIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(join, shared, work, JobDouble(), results, "cancelled")
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        await join(shared, work, JobDouble(), results, "next")
        assert results["next"] == ("blob", work.fetched)
        await eventually(lambda: not shared._by_key)


async def test_an_event_is_reported_once() -> None:
    shared, results = downloads(), dict[str, object]()
    events: list[TransferEvent] = []
    done = threading.Event()

    def work(progress: FileProgress, on_event: Any, pace: object) -> Fetched:
        assert done.wait(WAIT)
        on_event(TransferEvent(kind="transfer.retry", file="f", source="s", reason="why"))
        return cast("Fetched", FetchedDouble())

    async def ask(name: str) -> None:
        job = JobDouble()
        results[name] = await shared.fetch("key", "r", work, job.progress, events.append, job.share, ExitStack())

    with anyio.fail_after(WAIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "one")
            tasks.start_soon(ask, "two")
            await all_wait()
            done.set()
    assert len(results) == 2
    assert [event.reason for event in events] == ["why"]


async def test_a_job_brings_its_rate_and_takes_it_away() -> None:
    """A slow limit of the first job must not slow a job that joins later, and applies again when it is alone."""
    shared, work, results = downloads(), WorkDouble(), dict[str, object]()
    slow, free = JobDouble(rate=1000), JobDouble()
    with anyio.fail_after(WAIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(join, shared, work, slow, results, "slow")
            await eventually(work.begun.is_set)
            tasks.start_soon(join, shared, work, free, results, "free")
            await eventually(lambda: free.job_progress.snapshot().bytes_done)
            assert work.pace.take(1 << 20, lambda: False) == 1 << 20
            free.stop()
            await eventually(lambda: "free" in results)
            assert work.pace.take(1 << 20, StopsAfter(3)) == 0, "four seconds until there are 4 KiB"
            work.may_end.set()
    assert results["slow"] == ("blob", work.fetched)


class StopsAfter:
    """Stops after `calls` calls."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


async def test_a_thread_that_cannot_be_started_fails_for_all_and_the_next_begins_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared, work, results = downloads(), WorkDouble(), dict[str, object]()
    work.may_end.set()

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched, anyio.fail_after(WAIT):
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="new thread"):
            await join(shared, work, JobDouble(), results, "one")
    with anyio.fail_after(WAIT):
        await join(shared, work, JobDouble(), results, "two")
    assert results == {"two": ("blob", work.fetched)}


async def test_the_share_of_one_user_is_no_limit_for_another_who_asks_the_same() -> None:
    shared, work, results = downloads(), WorkDouble(ShareExceeded("half of the space is taken")), dict[str, object]()
    second = WorkDouble()
    second.may_end.set()
    with anyio.fail_after(WAIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(join, shared, work, JobDouble(), results, "one")
            await eventually(work.begun.is_set)
            tasks.start_soon(join, shared, second, JobDouble(), results, "other")
            await all_wait()
            work.may_end.set()
    assert results == {"one": ShareExceeded, "other": ("blob", second.fetched)}
