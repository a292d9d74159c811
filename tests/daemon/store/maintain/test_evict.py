"""What a plan for room chooses, and what is removed of it once the plan is carried out."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from modeld.config import StoreSettings
from modeld.store.maintain.evict import Fetchable
from modeld.store.manifests.entries import Entry
from modelwire.units import Duration, Size
from modelwire.values import EvictionPlan, Removed
from rigs.maintain_rig import DAY, Bench
from rigs.waiting import all_wait

LIMIT = 1000


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    settings = StoreSettings(min_free=Size(0), max_bytes=Size(LIMIT), lock_wait=Duration(5), grace=Duration(0))
    made = Bench(tmp_path, settings)
    yield made
    made.close()


async def from_afar(_entry: Entry) -> Fetchable:
    return Fetchable("https://files.test/model")


async def plan_all(bench: Bench) -> EvictionPlan:
    found = await bench.store.evictor.plan(2 * LIMIT, from_afar)
    assert [each.name for each in found.evict] == bench.names()
    return found


async def test_bytes_that_got_the_name_after_the_plan_stay(bench: Bench) -> None:
    await bench.add("a", b"GGUF bytes of a source")
    found = await plan_all(bench)
    await bench.add("a", b"GGUF bytes that nothing else has", replace=True)
    assert await bench.store.evictor.carry_out(found) == []
    assert bench.names() == ["a"]
    assert (await bench.store.verifier.verify()).ok


async def test_a_model_that_is_used_while_its_removal_waits_for_its_turn_stays(bench: Bench) -> None:
    await bench.add("a", b"GGUF bytes of a source")
    found = await plan_all(bench)
    publisher, gone = bench.store.ingest.publishing.publisher, list[Removed]()

    async def carry_out() -> None:
        gone.extend(await bench.store.evictor.carry_out(found))

    async with anyio.create_task_group() as tasks:
        async with publisher.turn(0):
            tasks.start_soon(carry_out)
            await all_wait()
            await bench.store.look_up("a")
    assert gone == []
    assert bench.names() == ["a"]


async def test_bytes_that_a_name_gets_are_newer_than_the_uses_of_those_before(bench: Bench) -> None:
    for name in ("a", "b"):
        await bench.add(name, f"GGUF {name}".encode())
        bench.ages(bench.manifest(name), DAY)
        await bench.store.look_up(name)
    await bench.add("a", b"GGUF newer", replace=True)
    found = await bench.store.evictor.plan(LIMIT, from_afar)
    assert [each.name for each in found.evict] == ["b", "a"]


async def test_a_model_that_a_program_has_mapped_frees_nothing_and_stays(bench: Bench) -> None:
    for name in ("a", "b"):
        await bench.add(name, f"GGUF {name}".encode())
    with open((await bench.store.look_up("a")).path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    with mapped:
        found = await bench.store.evictor.plan(LIMIT, from_afar)
    assert [each.name for each in found.evict] == ["b"]
    assert [each.reason for each in found.stay] == ["a program has it open, so its removal would free nothing"]
    assert len((await bench.store.evictor.plan(LIMIT, from_afar)).evict) == 2
