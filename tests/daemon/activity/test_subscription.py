"""From the files to the live events: every number once, in order, and every gap reported."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from modeld.activity import Activity, Filter, Item, Lagged, Latest, Recorded, Subscription
from modeld.activity.fanout import Watcher
from rigs.waiting import eventually


class Reader:
    """As a request reads it: what is stored first, then what the watcher has."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._watcher: Watcher | None = None
        self._news = asyncio.Event()

    async def next(self) -> Sequence[Item]:
        if self._watcher is None:
            if items := await self._subscription.stored():
                return items
            self._watcher = self._subscription.hand_over(self._news.set)
        while True:
            self._news.clear()
            if items := self._watcher.pending():
                return items
            await self._news.wait()


async def until(subscription: Subscription, last: int) -> list[Item]:
    items: list[Item] = []
    reader = Reader(subscription)
    async with asyncio.timeout(60):
        while True:
            items.extend(await reader.next())
            if items and isinstance(items[-1], Recorded) and items[-1].seq >= last:
                return items


async def stored(subscription: Subscription) -> list[Item]:
    items: list[Item] = []
    async with asyncio.timeout(60):
        while batch := await subscription.stored():
            items.extend(batch)
    return items


def numbers(items: list[Item]) -> list[object]:
    return [item.seq if isinstance(item, Recorded) else item for item in items]


@pytest.mark.parametrize("burst", [1, 40])
async def test_ten_thousand_events_while_catching_up_over_rotations(
    opened: Callable[..., Activity], burst: int
) -> None:
    total = 10_000
    activity = opened(max_bytes=60_000, generations=50)
    for _ in range(1500):
        activity.record("before")

    async def write() -> None:
        while activity.last_seq < total:
            for _ in range(min(burst, total - activity.last_seq)):
                activity.record("x", job=f"j{activity.last_seq % 7}")
            await asyncio.sleep(0)

    async def subscribe_late(after: int) -> list[Item]:
        for _ in range(after):
            await asyncio.sleep(0)
        with activity.subscribe(0) as subscription:
            return await until(subscription, total)

    seen = await asyncio.gather(*(subscribe_late(after) for after in (0, 1, 30, 150)), write())
    for items in seen[:-1]:
        assert items is not None
        assert numbers(items) == list(range(1, total + 1))
    assert activity.view().lost == 0
    assert activity.watchers == 0


async def test_what_comes_live_is_the_same_line_as_what_is_stored(opened: Callable[..., Activity]) -> None:
    activity = opened()
    with activity.subscribe(0) as live:
        for number in range(300):
            activity.record("x", model="m", outcome="ok", number=number)
        first = await until(live, 300)
    with activity.subscribe(0) as again:
        assert await until(again, 300) == first
    activity.close()
    after_restart = opened()
    with after_restart.subscribe(0) as third:
        assert await stored(third) == first


async def test_each_starting_point_gives_what_comes_after_it(opened: Callable[..., Activity]) -> None:
    activity = opened(max_bytes=5000, generations=20)
    for _ in range(700):
        activity.record("x")
    for since in (0, 1, 57, 300, 443, 444, 445, 699, 700, 5000):
        with activity.subscribe(since) as subscription:
            assert numbers(await stored(subscription)) == list(range(since + 1, 701))
    with activity.subscribe() as subscription:
        assert await stored(subscription) == []


async def test_what_the_files_no_longer_have_is_reported_first(opened: Callable[..., Activity]) -> None:
    activity = opened(max_bytes=3000)
    for _ in range(900):
        activity.record("x")
    await activity.flush()
    with activity.subscribe(5) as subscription:
        lagged, first, *rest = await stored(subscription)
    assert isinstance(lagged, Lagged)
    assert isinstance(first, Recorded)
    assert first.seq > 600
    assert lagged == Lagged(first.seq - 1 - 5, first.seq - 1)
    assert numbers([first, *rest]) == list(range(first.seq, 901))
    with activity.subscribe(lagged.resume_from) as again:
        assert numbers(await stored(again)) == list(range(first.seq, 901)), "resume_from can be filled"


async def test_a_damaged_line_is_skipped_and_reported_as_a_gap(path: str, opened: Callable[..., Activity]) -> None:
    before = opened()
    for _ in range(400):
        before.record("x")
    before.close()
    rows = Path(path).read_bytes().splitlines(keepends=True)
    rows[9] = b"\xff" + rows[9][:20] + b"\n"
    rows[200] = rows[201] = b""
    Path(path).write_bytes(b"".join(rows))
    activity = opened()
    with activity.subscribe(0) as subscription:
        items = await stored(subscription)
    assert numbers(items) == [
        *range(1, 10),
        Lagged(1, 10),
        *range(11, 201),
        Lagged(2, 202),
        *range(203, 401),
    ]


async def test_events_that_never_reached_the_disk_are_reported_without_a_wait(
    path: str, opened: Callable[..., Activity]
) -> None:
    activity = opened()
    for _ in range(10):
        activity.record("x")
    activity.close()
    for _ in range(500):
        activity.record("lost")
    with activity.subscribe(3) as subscription:
        items = await until(subscription, 510)
    assert numbers(items) == [*range(4, 11), Lagged(244, 254), *range(255, 511)]


async def test_filters_hold_for_stored_and_live(opened: Callable[..., Activity]) -> None:
    activity = opened()
    for number in range(600):
        activity.record("job.done" if number % 3 == 0 else "model.added", job=f"j{number % 2}", model="Mixed")
    with activity.subscribe(0, Filter(events=frozenset({"job"}), job="j0", model="mixed")) as subscription:
        items = await stored(subscription)
        assert numbers(items) == [number + 1 for number in range(0, 600, 6)]
        waiting = asyncio.ensure_future(Reader(subscription).next())
        activity.record("job.done", job="j1", model="mixed")
        activity.record("model.added", job="j0", model="mixed")
        activity.record("job.done", job="j0", model="mixed")
        assert numbers(list(await waiting)) == [603]


async def test_progress_is_live_only_and_coalesced(opened: Callable[..., Activity]) -> None:
    activity = opened()
    with activity.subscribe(0, Filter(progress=True)) as subscription:
        assert await stored(subscription) == []
        for done in range(100):
            activity.progress("j", model="m", bytes_done=done, source="https://u:p@h/")
        reader = Reader(subscription)
        (item,) = await reader.next()
        assert isinstance(item, Latest)
        assert json.loads(item.line) == {"job": "j", "bytes_done": 99, "source": "https://***@h/"}
        activity.progress("j", bytes_done=100)
        activity.record("job.done", job="j", outcome="ok")
        assert numbers(list(await reader.next())) == [1]
    assert activity.last_seq == 1


async def test_close_ends_who_reads_what_is_stored(opened: Callable[..., Activity]) -> None:
    activity = opened()
    for _ in range(300):
        activity.record("x")
    for since in (0, 150):
        subscription = activity.subscribe(since)
        task = asyncio.ensure_future(drain(subscription))
        await asyncio.sleep(0)
        subscription.close()
        async with asyncio.timeout(30):
            await task
        assert await subscription.stored() == ()
    assert activity.watchers == 0


async def drain(subscription: Subscription) -> None:
    while await subscription.stored():
        pass


async def test_leaving_at_any_moment_leaks_no_descriptor(opened: Callable[..., Activity]) -> None:
    activity = opened(max_bytes=20_000, generations=9)
    for _ in range(1500):
        activity.record("x")
    await activity.flush()
    with activity.subscribe(0) as warm:
        await stored(warm)
    before = set(os.listdir("/proc/self/fd"))
    for steps in range(60):
        subscription = activity.subscribe(0)
        task = asyncio.ensure_future(drain(subscription))
        for _ in range(steps):
            await asyncio.sleep(0)
        if steps % 2:
            task.cancel()
        subscription.close()
        await asyncio.wait([task])
    await eventually(lambda: len(os.listdir("/proc/self/fd")) <= len(before))
    assert activity.watchers == 0


@pytest.fixture(autouse=True)
async def _no_task_left_behind() -> AsyncIterator[None]:
    yield
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and "drain" in repr(task)]
    assert not left
