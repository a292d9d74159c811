"""What a scrub reads and in which order, what it remembers over interruptions, and what it does about what it finds."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from modeld.progress import JobProgress, Stopped
from modeld.store import Manner
from modeld.store.blobs.background import Background
from modeld.store.blobs.block_checksums import BLOCK
from modeld.store.catalog.scrubs import Look
from modeld.store.digest import Digest
from modeld.store.disk import durable
from modeld.store.maintain import scrub as module
from rigs.maintain_rig import DAY
from rigs.scrub_rig import Scrubs, stop_after

LONG = os.urandom(1 << 20) * 16 * 3 + b"and a short block"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scrubs]:
    made = Scrubs(tmp_path, monkeypatch)
    yield made
    made.close()


async def test_all_that_models_name_is_read_and_nothing_else(bench: Scrubs) -> None:
    long, small = await bench.add("long", LONG), await bench.add("small", b"GGUF small")
    await bench.store.renaming.copy("small", "again")
    bench.plant(b"no model names this")
    bench.clock.now += 60
    progress = JobProgress()
    scrubbed = await bench.scrub(progress=progress)
    assert (scrubbed.checked, scrubbed.failed, scrubbed.damaged) == (2, 0, ())
    assert scrubbed.size_bytes == len(LONG) + len(b"GGUF small")
    assert {digest for digest, _ in bench.read} == {long.blob, small.blob}
    assert (long.blob, False) in bench.read
    assert (progress.done, progress.total_bytes) == (scrubbed.size_bytes, scrubbed.size_bytes)
    assert await bench.outcomes("long") == ["added", "checked"]


async def test_the_blob_that_nobody_has_looked_at_for_longest_comes_first(bench: Scrubs) -> None:
    bench.monkeypatch.setattr(module, "_SORTED", 2)
    added = {name: await bench.add(name, f"GGUF {name}".encode() * 1000) for name in "abcd"}
    order = ["c", "a", "d", "b"]
    for name in order:
        bench.clock.now += DAY
        await bench.store.scrubber.scrubs.looked([(Digest.parse(added[name].blob), Look(bench.clock.now, 0, None))])
    bench.clock.now += DAY
    bench.write_manifest("foreign", {"a": b"nobody has ever looked at this"})
    await bench.scrub()
    assert [digest for digest, _ in bench.read] == [
        bench.document("foreign")["blob"],
        *(added[name].blob for name in order),
    ]


async def test_only_what_is_due_is_read(bench: Scrubs) -> None:
    old = await bench.add("old", b"GGUF old")
    bench.clock.now += 30 * DAY
    new = Digest.parse((await bench.add("new", b"GGUF new")).blob)
    await bench.store.scrubber.scrubs.looked([(new, Look(bench.clock.now, 0, None))])
    bench.clock.now += DAY
    plan = await bench.store.scrubber.plan(since=bench.clock.now, before=bench.clock.now - 7 * DAY)
    assert [each.digest.text for each in plan.due] == [old.blob]
    assert plan.oldest == bench.clock.now - DAY
    assert (await bench.scrub(every=7 * DAY)).checked == 1
    assert (await bench.scrub(every=7 * DAY)).checked == 1, "it is the same scrub: its own look counts"
    bench.clock.now += 1
    assert (await bench.scrub(every=7 * DAY)).checked == 0
    assert len(bench.read) == 1


async def test_each_so_many_times_a_blob_is_hashed(bench: Scrubs) -> None:
    await bench.add("a", LONG)
    for _ in range(8):
        bench.clock.now += DAY
        await bench.scrub()
    assert [hashed for _, hashed in bench.read] == [False, False, False, True] * 2


async def test_a_verification_by_hand_counts_as_a_look_by_hash(bench: Scrubs) -> None:
    await bench.add("a", LONG)
    for _ in range(3):
        bench.clock.now += 1
        await bench.scrub()
    bench.clock.now = time.time() - 1
    await bench.store.scrubber.scrubs.looked([])
    for digest, look in (await _looks(bench)).items():
        await bench.store.scrubber.scrubs.looked([(digest, Look(time.time() - 2, look.quick))])
    assert (await bench.store.verifier.verify()).ok
    bench.read.clear()
    bench.clock.now = time.time() + 60
    for _ in range(3):
        bench.clock.now += 1
        await bench.scrub()
    assert [hashed for _, hashed in bench.read] == [False] * 3


async def _looks(bench: Scrubs) -> dict[Digest, Look]:
    digests = [blob.digest for entry in bench.store.index.all_entries() for blob in entry.blobs]
    return await anyio.to_thread.run_sync(bench.store.scrubber.scrubs.looks, digests)


async def test_a_full_scrub_hashes_everything(bench: Scrubs) -> None:
    await bench.add("a", LONG)
    bench.clock.now += 60
    assert (await bench.scrub(full=True)).hashed == 1
    assert [hashed for _, hashed in bench.read] == [True]
    assert await bench.outcomes("a") == ["added", "verified"]


async def test_one_flipped_bit_is_found_proven_and_handled_as_a_verification_does(bench: Scrubs) -> None:
    added, _ = await bench.add("bad", LONG), await bench.add("good", b"GGUF good")
    await bench.store.renaming.copy("bad", "bad:too")
    bench.flip(added.path, 2 * BLOCK + 5)
    failed: list[str] = []
    bench.clock.now += 60
    scrubbed = await bench.scrub(manner=Manner(on_failed=lambda name, _digest, _reason: failed.append(name)))
    assert (scrubbed.checked, scrubbed.failed, scrubbed.hashed) == (2, 1, 1)
    assert [(model.name, model.blob) for model in scrubbed.damaged] == [("bad", added.blob), ("bad:too", added.blob)]
    assert "corrupt" in scrubbed.damaged[0].reason
    assert sorted(failed) == ["bad", "bad:too"]
    assert len(bench.quarantined()) == 1
    assert not os.path.exists(added.path)
    ended = bench.store.scrubber.ended
    assert ended is not None
    assert (ended.checked, ended.failed) == (2, 1)
    bench.reopen()
    assert bench.store.scrubber.ended == ended


async def test_a_blob_that_a_sweep_has_taken_meanwhile_is_no_damage(bench: Scrubs) -> None:
    gone = await bench.add("gone", b"GGUF gone")
    bench.clock.now += 60
    real = bench.store.scrubber.plan

    async def plan_and_remove(**when: Any) -> module.Plan:
        plan = await real(**when)
        await bench.store.renaming.remove("gone")
        await bench.store.sweeper.sweep()
        return plan

    bench.store.scrubber.plan = plan_and_remove  # type: ignore[method-assign]
    scrubbed = await bench.scrub()
    assert not os.path.exists(gone.path)
    assert (scrubbed.failed, scrubbed.damaged) == (0, ())


async def test_a_disk_that_fails_to_read_is_reported_and_nothing_is_moved(
    bench: Scrubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = await bench.add("a", LONG)
    monkeypatch.setattr(durable, "set_direct", lambda _descriptor, on: on)

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(durable, "read_once", fail)
    bench.clock.now += 60
    scrubbed = await bench.scrub()
    assert (scrubbed.failed, bench.quarantined()) == (1, [])
    assert "Input/output error" in scrubbed.damaged[0].reason
    assert os.path.exists(added.path)


# -- interruptions


async def test_it_goes_on_in_the_middle_of_a_long_blob_after_a_restart(bench: Scrubs) -> None:
    await bench.add("a", LONG)
    since = bench.clock.now = bench.clock.now + 60
    first = stop_after(JobProgress(), 2 * BLOCK)
    with pytest.raises(Stopped):
        await bench.scrub(since=since, progress=first)
    bench.reopen()
    place = bench.store.scrubber.scrubs.place(since)
    assert place is not None
    assert place.offset == 2 * BLOCK
    second = JobProgress()
    scrubbed = await bench.scrub(since=since, progress=second)
    assert (scrubbed.checked, scrubbed.failed) == (1, 0)
    assert (second.done, second.kept) == (len(LONG), 2 * BLOCK)
    bench.reopen()
    assert bench.store.scrubber.scrubs.place(since) is None
    bench.clock.now += 60
    third = JobProgress()
    await bench.scrub(progress=third)
    assert (third.done, third.kept) == (len(LONG), 0)


async def test_a_blob_that_changed_meanwhile_is_read_from_its_beginning(bench: Scrubs) -> None:
    added = await bench.add("a", LONG)
    since = bench.clock.now = bench.clock.now + 60
    with pytest.raises(Stopped):
        await bench.scrub(since=since, progress=stop_after(JobProgress(), 2 * BLOCK))
    bench.flip(added.path, 5)
    assert (await bench.scrub(since=since)).failed == 1


async def test_what_was_looked_at_and_found_before_an_interruption_counts(bench: Scrubs) -> None:
    contents = [bytes([65 + number]) * 3_000_000 for number in range(6)]
    added = [await bench.add(f"m{number}", content) for number, content in enumerate(contents)]
    bench.flip(added[0].path, 7)
    since = bench.clock.now = bench.clock.now + 60
    module_batch = module._AT_ONCE
    module._AT_ONCE = 1  # type: ignore[misc]
    try:
        with pytest.raises(Stopped):
            await bench.scrub(since=since, progress=stop_after(JobProgress(), 9_000_000))
    finally:
        module._AT_ONCE = module_batch  # type: ignore[misc]
    done = len(bench.read)
    assert 0 < done < 12
    bench.reopen()
    bench.clock.now += DAY
    progress = JobProgress()
    scrubbed = await bench.scrub(since=since, progress=progress)
    assert (scrubbed.checked, scrubbed.failed, scrubbed.size_bytes) == (6, 1, 18_000_000)
    assert len({digest for digest, _ in bench.read}) == 6
    assert len(bench.read) <= 6 + 2, "one blob was interrupted, and the bad one was compared and hashed"


async def test_a_hash_that_was_interrupted_does_not_keep_the_scrub_at_one_blob(bench: Scrubs) -> None:
    """A daemon that never lives long enough to hash a blob of 400 GB passes it by its checksums."""
    added = await bench.add("a", LONG)
    await bench.store.scrubber.scrubs.looked([(Digest.parse(added.blob), Look(time.time(), 3, None))])
    bench.clock.now = time.time() + 60
    since = bench.clock.now
    progress = JobProgress()
    progress.add_listener(lambda now: setattr(now, "stop_reason", "park") if now.verified >= BLOCK else None)
    with pytest.raises(Stopped):
        await bench.scrub(since=since, progress=progress)
    assert bench.read == [(added.blob, True)]
    bench.reopen()
    assert (await bench.scrub(since=since)).checked == 1
    assert bench.read[1:] == [(added.blob, False)]
    bench.clock.now += DAY
    await bench.scrub()
    assert bench.read[2:] == [(added.blob, True)], "the next one tries again"


async def test_two_scrubs_at_once_read_each_blob_once(bench: Scrubs) -> None:
    for number in range(200):
        await bench.add(f"m{number}", f"GGUF {number}".encode())
    bench.clock.now += 60
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.scrub)
        tasks.start_soon(bench.scrub)
    assert len({digest for digest, _ in bench.read}) == 200
    assert len(bench.read) == 200


async def test_a_clock_that_was_set_back_loses_nothing(bench: Scrubs) -> None:
    await bench.add("a", LONG)
    bench.clock.now += 365 * DAY
    await bench.scrub()
    bench.clock.now -= 300 * DAY
    plan = await bench.store.scrubber.plan(since=bench.clock.now, before=bench.clock.now - 30 * DAY)
    assert not plan.due
    bench.clock.now += 1
    assert (await bench.scrub()).checked == 1


async def test_what_it_remembers_of_removed_models_goes(bench: Scrubs) -> None:
    added = await bench.add("a", LONG)
    bench.clock.now += 60
    await bench.scrub()
    await bench.store.renaming.remove("a")
    await bench.add("b", b"GGUF b")
    bench.clock.now += 60
    await bench.scrub()
    digest = Digest.parse(added.blob)
    assert await anyio.to_thread.run_sync(bench.store.scrubber.scrubs.looks, [digest]) == {}


async def test_its_reading_can_be_slowed_down(bench: Scrubs) -> None:
    await bench.add("a", LONG)
    bench.clock.now += 60
    slept: list[float] = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    bench.store.scrubber.background = Background(len(LONG) // 10, clock=lambda: now[0], sleep=sleep)
    await bench.scrub()
    assert 9.5 < sum(slept) < 10.5


@pytest.mark.parametrize("seed", range(5))
async def test_random_flips_are_all_found(bench: Scrubs, seed: int) -> None:
    chosen = random.Random(seed)
    added = [await bench.add(f"m{number}", os.urandom(100_000 + number)) for number in range(12)]
    bad = sorted(chosen.sample(range(12), 5))
    for number in bad:
        bench.flip(added[number].path, chosen.randrange(100_000 + number))
    bench.clock.now += 60
    scrubbed = await bench.scrub(full=seed % 2 == 1)
    assert sorted(model.name for model in scrubbed.damaged) == sorted(f"m{number}" for number in bad)
