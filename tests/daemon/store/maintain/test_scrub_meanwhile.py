"""Scrubs while other things happen: another scrub, a repair, a stop, a store that goes away, a clock that is wrong."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from modeld.progress import JobProgress, Stopped
from modeld.store import Manner
from modeld.store.blobs.background import Background
from modeld.store.blobs.block_checksums import BLOCK
from modeld.store.digest import Digest
from modeld.store.maintain import checking
from modelwire.errors import NoSpace, WireError
from modelwire.values import Scrubbed
from rigs.maintain_rig import DAY
from rigs.scrub_rig import Scrubs, stop_after
from rigs.waiting import all_wait

LONG = os.urandom(1 << 20) * 16 * 3 + b"and a short block"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scrubs]:
    made = Scrubs(tmp_path, monkeypatch)
    yield made
    made.close()


class Meanwhile:
    """Does something before the scrub of a bench looks at a blob for the n-th time."""

    def __init__(self, bench: Scrubs, number: int, work: Any) -> None:
        checker = bench.store.scrubber.checker
        self.real, self.left, self.work = checker.check, number, work
        checker.check = self.check  # type: ignore[method-assign]

    async def check(self, digests: Sequence[Digest], manner: Manner, progress: JobProgress) -> Any:
        self.left -= 1
        if self.left == 0:
            await self.work()
        return await self.real(digests, manner, progress)


# -- another scrub


async def test_what_another_scrub_has_found_meanwhile_is_damage_in_both(bench: Scrubs) -> None:
    added = [await bench.add(f"m{number}", f"GGUF {number}".encode() * 1000) for number in range(80)]
    for one in added:
        bench.flip(one.path, 7)
    bench.clock.now += 60
    found: list[Scrubbed] = []

    async def scrub() -> None:
        found.append(await bench.scrub())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scrub)
        tasks.start_soon(scrub)
    assert [(each.checked, each.failed) for each in found] == [(80, 80)] * 2


async def test_a_full_scrub_hashes_what_another_has_only_compared_meanwhile(bench: Scrubs) -> None:
    added = await bench.add("a", LONG)
    since = bench.clock.now = bench.clock.now + 60
    bench.clock.now += 1
    await bench.scrub()
    bench.clock.now += 1
    assert (await bench.scrub(since=since, full=True)).hashed == 1
    assert bench.read == [(added.blob, False), (added.blob, True)]
    assert (await bench.scrub(since=since, full=True)).checked == 1
    assert len(bench.read) == 2, "what was hashed since it began is hashed"


async def test_a_full_scrub_hashes_what_another_compares_after_its_plan(bench: Scrubs) -> None:
    first, second = await bench.add("first", LONG), await bench.add("second", LONG[1:])
    bench.clock.now += 60

    async def look() -> None:
        await bench.looked(Digest.parse(second.blob), bench.clock.now, quick=1)

    bench.one_at_a_time()
    Meanwhile(bench, 1, look)
    await bench.scrub(full=True)
    assert bench.read == [(first.blob, True), (second.blob, True)]


async def test_a_scrub_that_waits_for_another_can_be_stopped(bench: Scrubs) -> None:
    await bench.add("a")
    bench.clock.now += 60
    progress = JobProgress()
    async with bench.store.scrubber.reading, anyio.create_task_group() as tasks:

        async def scrub() -> None:
            with pytest.raises(Stopped):
                await bench.scrub(progress=progress)

        tasks.start_soon(scrub)
        await all_wait()
        progress.stop_reason = "cancel"
        tasks.cancel_scope.deadline = anyio.current_time() + 10
    assert not tasks.cancel_scope.cancelled_caught


async def test_what_was_read_before_a_scrub_began_is_read_again(bench: Scrubs) -> None:
    """The bytes that an earlier scrub has read may have rotted since, and nothing of the file shows it."""
    added = await bench.add("a", LONG)
    bench.clock.now += 60
    with pytest.raises(Stopped):
        await bench.scrub(progress=stop_after(JobProgress(), 2 * BLOCK))
    status = os.stat(added.path)
    bench.clock.now += 90 * DAY
    progress = JobProgress()
    await bench.scrub(progress=progress)
    assert os.stat(added.path).st_ctime_ns == status.st_ctime_ns
    assert (progress.done, progress.kept) == (len(LONG), 0)


async def test_a_blob_that_was_being_read_as_a_scrub_began_is_read_by_it(bench: Scrubs) -> None:
    await bench.add("a", LONG)
    bench.clock.now += 60

    async def pass_time() -> None:
        bench.clock.now += 60

    Meanwhile(bench, 1, pass_time)
    began = bench.clock.now + 30
    await bench.scrub()
    assert len(bench.read) == 1
    await bench.scrub(since=began)
    assert len(bench.read) == 2


async def test_a_blob_half_of_which_was_read_before_a_scrub_began_is_read_by_it(bench: Scrubs) -> None:
    await bench.add("a", LONG)
    since = bench.clock.now = bench.clock.now + 60
    with pytest.raises(Stopped):
        await bench.scrub(since=since, progress=stop_after(JobProgress(), 2 * BLOCK))
    bench.clock.now += 60
    began = bench.clock.now
    bench.clock.now += 60
    await bench.scrub(since=since)
    assert len(bench.read) == 2
    await bench.scrub(since=began)
    assert len(bench.read) == 3


# -- a repair, a stop, a fault


async def test_a_blob_that_was_repaired_meanwhile_is_no_damage(bench: Scrubs) -> None:
    bad = await bench.add("bad", LONG)
    await bench.add("good", b"GGUF good")
    bench.flip(bad.path, 5)
    bench.clock.now = time.time()

    async def repair() -> None:
        assert len(bench.quarantined()) == 1
        await bench.store.renaming.remove("bad")
        await bench.add("bad", LONG)
        bench.clock.now = time.time() + 1

    bench.one_at_a_time()
    Meanwhile(bench, 2, repair)
    scrubbed = await bench.scrub()
    assert (scrubbed.failed, scrubbed.damaged) == (0, ())


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_store_that_is_away_for_a_moment_is_not_damaged(bench: Scrubs, replaced: bool) -> None:
    for number in range(3):
        await bench.add(f"m{number}", f"GGUF {number}".encode() * 1000)
    bench.clock.now += 60
    away = bench.root + ".away"

    async def unmount() -> None:
        os.rename(bench.root, away)
        if replaced:
            os.makedirs(os.path.join(bench.root, "manifests"))

    async def mount() -> None:
        if not os.path.exists(away):
            return
        if replaced:
            os.rename(bench.root, bench.root + ".other")
        os.rename(away, bench.root)

    bench.one_at_a_time()
    Meanwhile(bench, 1, unmount)
    Meanwhile(bench, 2, mount)
    failed: list[str] = []
    with pytest.raises(WireError):
        await bench.scrub(manner=Manner(on_failed=lambda name, _digest, _reason: failed.append(name)))
    await mount()
    assert failed == []
    assert bench.store.scrubber.ended is None
    bench.clock.now += 60
    assert (await bench.scrub()).failed == 0
    assert (await bench.store.models.show("m0")).state == "ready"


async def test_a_blob_that_cannot_be_judged_keeps_no_other_from_being_read(
    bench: Scrubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = await bench.add("bad", b"GGUF bad" * 1000)
    good = await bench.add("good", b"GGUF good")
    await bench.looked(Digest.parse(good.blob), bench.clock.now)
    bench.flip(bad.path, 5)
    bench.one_at_a_time()
    real = checking._set_aside

    def refuse(*_: object) -> str:
        raise NoSpace("no room in the quarantine")

    monkeypatch.setattr(checking, "_set_aside", refuse)
    bench.clock.now += 60
    scrubbed = await bench.scrub()
    assert {digest for digest, _ in bench.read} == {bad.blob, good.blob}
    assert [(model.name, model.reason) for model in scrubbed.damaged] == [("bad", "no room in the quarantine")]
    monkeypatch.setattr(checking, "_set_aside", real)
    bench.clock.now += 10
    due = (await bench.plan(every=50)).due
    assert [each.digest.text for each in due] == [bad.blob], "it was not judged, so it stays due"
    assert (await bench.scrub(every=50)).failed == 1
    assert len(bench.quarantined()) == 1


async def test_at_a_low_rate_a_stop_loses_little_of_what_was_read(bench: Scrubs) -> None:
    """A daemon that lives for a minute at a time would otherwise read the same first blobs in each life."""
    for number in range(20):
        await bench.add(f"m{number}", bytes([65 + number]) * 1_000_000)
    bench.store.scrubber.background = Background(100_000, clock=bench.clock, sleep=bench.sleep)
    since = bench.clock.now = bench.clock.now + 60
    with pytest.raises(Stopped):
        await bench.scrub(since=since, progress=stop_after(JobProgress(), 10_000_000))
    assert (await bench.plan(since=since)).checked >= 8


# -- clocks


async def test_after_a_clock_that_was_ahead_blobs_are_due_again(bench: Scrubs) -> None:
    await bench.add("a", LONG)
    now = bench.clock.now
    bench.clock.now = now + 365 * DAY
    await bench.scrub()
    bench.clock.now = now + DAY
    assert not (await bench.plan(every=30 * DAY)).due
    bench.clock.now = now + 32 * DAY
    assert (await bench.plan(every=30 * DAY)).due


async def test_a_blob_that_was_added_by_a_clock_that_was_ahead_is_read(bench: Scrubs) -> None:
    await bench.add("a", LONG)
    bench.clock.now -= 365 * DAY
    for _ in range(3):
        if (await bench.plan(every=30 * DAY)).due:
            await bench.scrub(every=30 * DAY)
        bench.clock.now += 31 * DAY
    assert len(bench.read) >= 2
