"""One transfer for many: joined late, left early, failed, landed; without any network."""

from __future__ import annotations

import threading
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
from modeld.store.ingest.ingest import Ingest
from modelwire.errors import SourceNotFound
from rigs.waiting import eventually

pytestmark = pytest.mark.anyio

WAIT = 10


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Bytes:
    """What stands for a file that was fetched."""

    served: dict[str, int] = field(default_factory=lambda: {"here": 10})
    as_described: bool = True
    kept: int = 0
    learned: None = None
    committed: int = 0

    def keep(self) -> None:
        self.kept += 1


class Committing:
    """What the store does with it."""

    async def commit(self, fetched: Bytes) -> str:
        await anyio.lowlevel.checkpoint()
        fetched.committed += 1
        return "blob"


class Asker:
    def __init__(self, rate: int | None = None) -> None:
        self.meter = JobProgress()
        (self.progress,) = self.meter.files([None])
        self.share = Budget().share(rate=rate)

    def stop(self) -> None:
        self.meter.stop_reason = "cancel"


class Transfer:
    """Runs until it may end, or nobody wants it any more."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.may_end = threading.Event()
        self.begun = threading.Event()
        self.runs = 0
        self.ended: list[str] = []
        self.brought = Bytes()
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
        return cast("Fetched", self.brought)


def downloads() -> SharedDownloads:
    return SharedDownloads(cast("Ingest", Committing()))


async def asked(
    shared: SharedDownloads, work: Work, asker: Asker, told: dict[str, object], name: str, route: str = "r"
) -> None:
    try:
        told[name] = await shared.fetch("key", route, work, asker.progress, unheard, asker.share)
    except (Stopped, SourceNotFound) as fault:
        told[name] = type(fault)


async def test_two_share_one_and_who_comes_late_is_told_what_was_missed() -> None:
    shared, work, told = downloads(), Transfer(), dict[str, object]()
    one, two = Asker(), Asker()
    with anyio.fail_after(WAIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asked, shared, work, one, told, "one")
            await eventually(work.begun.is_set)
            tasks.start_soon(asked, shared, work, two, told, "two")
            await eventually(lambda: two.meter.snapshot().bytes_done >= 4)
            work.may_end.set()
    assert told == {"one": ("blob", {"here": 10}, True, None), "two": ("blob", {"here": 10}, True, None)}
    assert (work.runs, work.brought.committed, work.brought.kept) == (1, 1, 0)
    first, second = one.meter.snapshot(), two.meter.snapshot()
    assert first.bytes_done == second.bytes_done == 10
    assert first.source == second.source == "here"
    assert (first.network_bytes, second.network_bytes) == (11, 6)


@pytest.mark.parametrize("leaver", ["one", "two"])
async def test_who_leaves_does_not_end_it(leaver: str) -> None:
    shared, work, told = downloads(), Transfer(), dict[str, object]()
    askers = {"one": Asker(), "two": Asker()}
    stays = "two" if leaver == "one" else "one"
    with anyio.fail_after(WAIT):
        async with anyio.create_task_group() as tasks:
            for name, asker in askers.items():
                tasks.start_soon(asked, shared, work, asker, told, name)
            await eventually(work.begun.is_set)
            askers[leaver].stop()
            await eventually(lambda: leaver in told)
            assert work.ended == []
            work.may_end.set()
    assert told == {leaver: Stopped, stays: ("blob", {"here": 10}, True, None)}
    assert work.runs == 1


async def test_the_last_who_leaves_ends_it_and_the_next_begins_anew() -> None:
    shared, first, second, told = downloads(), Transfer(), Transfer(), dict[str, object]()
    one, two = Asker(), Asker()
    second.may_end.set()
    with anyio.fail_after(WAIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asked, shared, first, one, told, "one")
            await eventually(first.begun.is_set)
            one.stop()
            await eventually(lambda: "one" in told)
            assert first.ended == ["stopped"]
            tasks.start_soon(asked, shared, second, two, told, "two")
    assert told == {"one": Stopped, "two": ("blob", {"here": 10}, True, None)}
    assert (first.runs, second.runs) == (1, 1)


async def test_a_failure_is_everybodys_unless_they_would_ask_elsewhere() -> None:
    shared, work, told = downloads(), Transfer(SourceNotFound("there is nothing")), dict[str, object]()
    elsewhere = Transfer()
    elsewhere.may_end.set()
    with anyio.fail_after(WAIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asked, shared, work, Asker(), told, "one")
            await eventually(work.begun.is_set)
            tasks.start_soon(asked, shared, Transfer(), Asker(), told, "same")
            tasks.start_soon(asked, shared, elsewhere, Asker(), told, "other", "another route")
            await anyio.wait_all_tasks_blocked()
            work.may_end.set()
    assert told == {"one": SourceNotFound, "same": SourceNotFound, "other": ("blob", {"here": 10}, True, None)}
    assert (work.runs, elsewhere.runs) == (1, 1)


async def test_an_asker_that_is_cancelled_leaves_too() -> None:
    shared, work = downloads(), Transfer()
    asker = Asker()
    with anyio.fail_after(WAIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asked, shared, work, asker, dict[str, object](), "one")
            await eventually(work.begun.is_set)
            tasks.cancel_scope.cancel()
        await eventually(lambda: work.ended)
    assert work.ended == ["stopped"]


async def test_what_is_told_is_told_once() -> None:
    shared, told = downloads(), dict[str, object]()
    heard: list[TransferEvent] = []
    done = threading.Event()

    def work(progress: FileProgress, on_event: Any, pace: object) -> Fetched:
        assert done.wait(WAIT)
        on_event(TransferEvent(kind="retry", file="f", source="s", reason="why"))
        return cast("Fetched", Bytes())

    async def ask(name: str) -> None:
        asker = Asker()
        told[name] = await shared.fetch("key", "r", work, asker.progress, heard.append, asker.share)

    with anyio.fail_after(WAIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "one")
            tasks.start_soon(ask, "two")
            await anyio.wait_all_tasks_blocked()
            done.set()
    assert len(told) == 2
    assert [event.reason for event in heard] == ["why"]


async def test_who_joins_brings_a_rate_along_and_takes_it_away() -> None:
    """Whoever began may be held to little: that must not hold back who comes later, nor stay when only it is left."""
    shared, work, told = downloads(), Transfer(), dict[str, object]()
    slow, free = Asker(rate=1000), Asker()
    with anyio.fail_after(WAIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asked, shared, work, slow, told, "slow")
            await eventually(work.begun.is_set)
            tasks.start_soon(asked, shared, work, free, told, "free")
            await eventually(lambda: free.meter.snapshot().bytes_done)
            assert work.pace.take(1 << 20, lambda: False) == 1 << 20
            free.stop()
            await eventually(lambda: "free" in told)
            assert work.pace.take(1 << 20, Looks(3)) == 0, "four seconds until there are 4 KiB"
            work.may_end.set()
    assert told["slow"] == ("blob", {"here": 10}, True, None)


class Looks:
    """Stops at the so many-th look."""

    def __init__(self, most: int) -> None:
        self.left = most

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


async def test_a_thread_that_cannot_be_started_fails_for_all_and_the_next_begins_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared, work, told = downloads(), Transfer(), dict[str, object]()
    work.may_end.set()

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched, anyio.fail_after(WAIT):
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="new thread"):
            await asked(shared, work, Asker(), told, "one")
    with anyio.fail_after(WAIT):
        await asked(shared, work, Asker(), told, "two")
    assert told == {"two": ("blob", {"here": 10}, True, None)}
