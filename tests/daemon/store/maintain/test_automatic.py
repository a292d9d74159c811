"""The daemon's own sweeps: what lost its name goes when its grace period is over, and nothing is searched for it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest

from modeld.config import StoreSettings
from modeld.store.digest import Digest
from modeld.store.maintain import automatic, victims
from modeld.store.maintain.automatic import AutomaticSweep
from modelwire.units import Duration, Size
from modelwire.values import Swept
from rigs.maintain_rig import DAY, Bench, later
from rigs.waiting import all_wait, eventually

HOUR = 3600.0
SETTINGS = StoreSettings(min_free=Size(0), lock_wait=Duration(5), grace=Duration(3600))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, SETTINGS)
    yield made
    made.close()


@pytest.fixture
def no_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Any:
        raise AssertionError("the whole store is walked")

    monkeypatch.setattr(victims, "walk", refuse)
    monkeypatch.setattr(automatic, "FIRST_WALK_SECONDS", float("inf"))


def by_itself(bench: Bench) -> AutomaticSweep:
    return bench.store.automatic_sweep


def after(bench: Bench, seconds: float) -> None:
    """As if that much time had passed."""
    later(bench, seconds)
    by_itself(bench)._clock = bench.store.sweeper._unnamed._clock = lambda: time.time() + seconds


async def round_of(bench: Bench, seconds: float) -> list[Swept]:
    """What one round removes after that much time."""
    found: list[Swept] = []

    async def swept(each: Swept) -> None:
        found.append(each)

    after(bench, seconds)
    await by_itself(bench).round(swept)
    return found


async def remove_at_once(bench: Bench, name: str) -> str:
    """An old model that is removed now; returns the path of its blob."""
    added = await bench.add(name, name.encode())
    await bench.store.renaming.remove(name)
    return added.path


async def test_what_is_removed_goes_when_its_period_is_over(bench: Bench, no_walk: None) -> None:
    path = await remove_at_once(bench, "gone")
    kept = await bench.add("kept")
    assert by_itself(bench).next_in() == pytest.approx(HOUR, abs=30)
    assert await round_of(bench, HOUR - 60) == []
    assert os.path.exists(path)
    (swept,) = await round_of(bench, HOUR + 60)
    assert [(victim.path, victim.size_bytes) for victim in swept.victims] == [(path, 4)]
    assert (swept.removed, swept.freed_bytes) == (1, 4)
    assert bench.blobs() == [kept.path]
    assert by_itself(bench).next_in() is None
    view = by_itself(bench).view()
    assert (view.mode, view.waiting, view.next_at, view.last_freed_bytes) == ("auto", 0, None, 4)


async def test_it_is_known_after_a_restart_too(bench: Bench, no_walk: None) -> None:
    path = await remove_at_once(bench, "gone")
    bench.reopen()
    assert by_itself(bench).view().waiting == 1
    (swept,) = await round_of(bench, HOUR + 60)
    assert swept.removed == 1
    assert not os.path.exists(path)
    bench.reopen()
    assert by_itself(bench).view().waiting == 0


async def test_replaced_bytes_go_too(bench: Bench, no_walk: None) -> None:
    old, new = await bench.add("m", b"old"), await bench.add("m", b"newer", replace=True)
    assert by_itself(bench).view().waiting == 1
    (swept,) = await round_of(bench, HOUR + 60)
    assert [victim.path for victim in swept.victims] == [old.path]
    assert bench.blobs() == [new.path]


async def test_what_another_name_has_stays_and_is_not_looked_at_again(bench: Bench, no_walk: None) -> None:
    await bench.add("a")
    await bench.store.renaming.copy("a", "b")
    await bench.store.renaming.move("a", "c")
    await bench.store.renaming.remove("b")
    assert by_itself(bench).view().waiting == 1
    assert await round_of(bench, HOUR + 60) == []
    assert by_itself(bench).next_in() is None
    assert bench.store.index.resolve("c").state == "ready"


async def test_the_period_begins_with_the_loss_of_the_name_however_old_the_file_is(bench: Bench) -> None:
    """Of a file that has not changed for long, too, and for every sweep."""
    added = await bench.add("m")
    later(bench, 10 * HOUR)
    bench.store.sweeper._unnamed._clock = lambda: time.time() + 10 * HOUR
    await bench.store.renaming.remove("m")
    assert (await bench.store.sweeper.sweep()).waiting == 1
    assert await round_of(bench, 10.9 * HOUR) == []
    assert os.path.exists(added.path)
    assert len(await round_of(bench, 11.1 * HOUR)) == 1


async def test_what_running_work_relies_on_is_looked_at_again_later(bench: Bench, no_walk: None) -> None:
    path = await remove_at_once(bench, "gone")
    digest = Digest(os.path.basename(os.path.dirname(path)))
    with bench.store.holds.relying_on(digest):
        assert await round_of(bench, HOUR + 60) == []
        assert by_itself(bench).next_in() == pytest.approx(HOUR, abs=60)
    assert len(await round_of(bench, 2 * HOUR + 120)) == 1


async def test_a_name_that_is_lost_during_the_sweep_counts_from_then(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, no_walk: None
) -> None:
    await bench.add("a")
    await bench.store.renaming.copy("a", "b")
    await bench.store.renaming.remove("a")
    real = bench.store.sweeper._look

    def removed_after_the_look(*arguments: Any) -> Any:
        found = real(*arguments)
        anyio.from_thread.run(bench.store.renaming.remove, "b")
        return found

    monkeypatch.setattr(bench.store.sweeper, "_look", removed_after_the_look)
    assert await round_of(bench, HOUR + 60) == []
    monkeypatch.undo()
    assert by_itself(bench).view().waiting == 1
    monkeypatch.setattr(automatic, "FIRST_WALK_SECONDS", float("inf"))
    assert await round_of(bench, 2 * HOUR) == []
    assert len(await round_of(bench, 2 * HOUR + 120)) == 1


async def test_very_many_go_in_several_rounds(bench: Bench, monkeypatch: pytest.MonkeyPatch, no_walk: None) -> None:
    monkeypatch.setattr(automatic, "AT_ONCE", 2)
    for number in range(5):
        await remove_at_once(bench, f"m{number}")
    removed = [swept.removed for _ in range(4) for swept in await round_of(bench, HOUR + 60)]
    assert removed == [2, 2, 1]


async def test_a_step_of_the_clock_into_the_future_and_back_keeps_nothing_for_years(bench: Bench) -> None:
    bench.store.sweeper._unnamed._clock = lambda: time.time() + 1000 * DAY
    path = await remove_at_once(bench, "gone")
    bench.store.sweeper._unnamed._clock = time.time
    assert by_itself(bench).next_in() == pytest.approx(HOUR, abs=30)
    assert await round_of(bench, 60) == []
    assert os.path.exists(path)


async def test_the_whole_store_is_walked_only_now_and_then(bench: Bench) -> None:
    """It finds what no removal of this daemon has left. The next start knows when that was."""
    foreign = bench.layout.blob(bench.plant(b"of another tool"))
    walk = automatic.WALK_SECONDS
    assert await round_of(bench, automatic.FIRST_WALK_SECONDS - 60) == []
    assert bench.store.sweeper._unnamed.walked_at is None
    (swept,) = await round_of(bench, HOUR + 60)
    assert [victim.path for victim in swept.victims] == [foreign]
    bench.reopen()
    bench.plant(b"another one")
    assert await round_of(bench, HOUR + 60 + walk - 120) == []
    assert len(await round_of(bench, HOUR + 60 + walk + 120)) == 1


async def test_a_walk_for_a_request_counts(bench: Bench) -> None:
    await bench.store.sweeper.sweep(dry_run=True)
    assert bench.store.sweeper._unnamed.walked_at is None
    await bench.store.sweeper.sweep()
    assert bench.store.sweeper._unnamed.walked_at == pytest.approx(time.time(), abs=60)


async def test_what_a_sweep_on_request_removed_is_not_waited_for(bench: Bench) -> None:
    await remove_at_once(bench, "one")
    await bench.store.sweeper.sweep(dry_run=True, grace=0)
    assert by_itself(bench).view().waiting == 1
    await remove_at_once(bench, "two")
    await bench.add("three")
    await bench.store.renaming.copy("three", "four")
    await bench.store.renaming.remove("three")
    assert by_itself(bench).view().waiting == 3
    assert (await bench.store.sweeper.sweep(grace=0)).removed == 2
    view = by_itself(bench).view()
    assert (view.waiting, view.next_at) == (0, None)
    bench.reopen()
    assert by_itself(bench).view().waiting == 0


async def test_what_a_sweep_on_request_leaves_keeps_its_time(bench: Bench) -> None:
    path = await remove_at_once(bench, "gone")
    await bench.store.sweeper.sweep(grace=DAY)
    due = by_itself(bench)._unnamed.earliest()
    with bench.store.holds.relying_on(Digest(os.path.basename(os.path.dirname(path)))):
        after(bench, HOUR / 2)
        await bench.store.sweeper.sweep(grace=0)
    assert (by_itself(bench).view().waiting, by_itself(bench)._unnamed.earliest()) == (1, due)


@pytest.mark.parametrize("grace", [0, 3600])
async def test_it_waits_for_the_next_removal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grace: int, no_walk: None
) -> None:
    monkeypatch.setattr(automatic, "ROUND_SECONDS", 0.01)
    bench = Bench(tmp_path, StoreSettings(min_free=Size(0), grace=Duration(grace)))
    found: list[int] = []

    async def swept(each: Swept) -> None:
        found.append(each.removed)

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(by_itself(bench).keep, swept)
            await all_wait()
            for number in range(3):
                await remove_at_once(bench, f"m{number}")
                if grace:
                    after(bench, (number + 1) * (grace + 60))
                    async with bench.store.sweeper._unnamed.losing([Digest("a" * 64)]):
                        pass  # the clock is read when a blob loses its name
                await eventually(lambda: not bench.blobs() and len(found) > number)  # noqa: B023
            tasks.cancel_scope.cancel()
    finally:
        bench.close()
    assert sum(found) == 3


async def test_without_the_setting_nothing_goes_by_itself(tmp_path: Path) -> None:
    bench = Bench(tmp_path, StoreSettings(min_free=Size(0), grace=Duration(0), sweep="off"))
    try:
        await bench.add("m")
        removed = await bench.store.renaming.remove("m")
        assert (removed.frees_bytes, removed.frees_at) == (12, None)
        with anyio.fail_after(10):
            await by_itself(bench).keep(_unexpected)
        assert (by_itself(bench).view().mode, by_itself(bench).next_in()) == ("off", None)
        assert len(bench.blobs()) == 1
    finally:
        bench.close()


async def _unexpected(_: Swept) -> None:
    raise AssertionError("nothing is to be swept")


async def test_while_the_root_is_away_it_tries_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automatic, "RETRY_SECONDS", 0.01)
    path = await remove_at_once(bench, "gone")
    os.rename(bench.root, f"{bench.root}-away")
    after(bench, HOUR + 60)
    found: list[Swept] = []

    async def swept(each: Swept) -> None:
        found.append(each)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(by_itself(bench).keep, swept)
        await eventually(lambda: by_itself(bench).view().error)
        assert found == []
        os.rename(f"{bench.root}-away", bench.root)
        await eventually(lambda: found)
        tasks.cancel_scope.cancel()
    assert not os.path.exists(path)


# -- what a removal reports


async def test_a_removal_reports_what_goes_and_when(bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    (source / "a.gguf").write_bytes(b"GGUF shared")
    (source / "b.gguf").write_bytes(b"GGUF of one")
    await bench.store.add(str(source), name="many")
    added = await bench.add("one", b"GGUF shared")
    before = time.time()
    removed = await bench.store.renaming.remove("many")
    assert (removed.frees_bytes, len(removed.blobs)) == (11, 1)
    moment = time.strftime("%Y-%m-%dT%H", time.gmtime(before + HOUR))
    assert removed.frees_at is not None
    assert removed.frees_at.startswith(moment)
    last = await bench.store.renaming.remove("one")
    assert (last.blobs, last.frees_bytes) == ((added.blob,), 11)


async def test_of_a_linked_file_nothing_is_freed(bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "mine.gguf"
    source.write_bytes(b"GGUF mine")
    await bench.store.add(str(source), name="m", how="link")
    removed = await bench.store.renaming.remove("m")
    assert (len(removed.blobs), removed.frees_bytes) == (1, 0)


async def test_other_tools_and_damaged_manifests_count_as_names(bench: Bench) -> None:
    added = await bench.add("m")
    Path(bench.manifest("theirs")).write_text(f"not json {added.blob}")
    removed = await bench.store.renaming.remove("m")
    assert (removed.blobs, removed.frees_bytes, removed.frees_at) == ((), 0, None)


async def test_removals_of_many_models_do_not_read_all_manifests_each(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = bench.store.index.marks
    for number in range(6):
        await bench.add(f"m{number}", b"shared" if number % 2 else str(number).encode())
    looks: list[int] = []
    real = type(marks)._read_all

    def read_all(self: Any) -> None:
        looks.append(1)
        real(self)

    monkeypatch.setattr(type(marks), "_read_all", read_all)
    await bench.store.renaming.remove("m0")
    marks._fresh_until = float("inf")
    looks.clear()
    assert [(await bench.store.renaming.remove(f"m{number}")).frees_bytes for number in (1, 2, 3, 4, 5)] == [
        0,
        1,
        0,
        1,
        6,
    ]
    assert looks == []
