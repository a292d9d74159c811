"""A sweep at the same moment as other changes of the store: no model is ever left without bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from modeld.store.blobs import blobs
from modeld.store.maintain import sweep as sweep_module
from rigs.maintain_rig import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, byte_threads=2)
    yield made
    made.close()


async def test_an_add_of_the_same_content_at_the_same_moment_keeps_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each moment of the add the whole of a sweep runs: before it, between finding the blob and naming it, after."""
    moments = 0

    def sweep_in_between(*_: object) -> None:
        nonlocal moments
        moments += 1
        anyio.from_thread.run(bench.store.sweeper.sweep)

    await bench.add("seed")
    await bench.store.renaming.remove("seed")
    real_look = blobs.find_good

    def looked(*arguments: Any, **named: Any) -> Any:
        sweep_in_between()
        found = real_look(*arguments, **named)
        sweep_in_between()
        return found

    monkeypatch.setattr(blobs, "find_good", looked)
    for number in range(5):
        added = await bench.add(f"m{number}")
        assert Path(added.path).read_bytes() == b"GGUF weights"
        await bench.store.renaming.remove(f"m{number}")
    assert moments >= 10


async def test_adds_copies_removals_and_sweeps_at_once_never_leave_a_model_without_bytes(bench: Bench) -> None:
    faults: list[str] = []
    ended = anyio.Event()

    async def add_and_remove(name: str) -> None:
        for turn in range(15):
            added = await bench.add_own(name, b"same content for all")
            if Path(added.path).read_bytes() != b"same content for all":
                faults.append(name)
            if turn % 2:
                await bench.store.renaming.copy(name, f"{name}-copy")
                bench.store.index.resolve(f"{name}-copy")
                await bench.store.renaming.remove(f"{name}-copy")
            bench.store.index.resolve(name)
            await bench.store.renaming.remove(name)

    async def sweep_all_the_time() -> None:
        while not ended.is_set():
            await bench.store.sweeper.sweep()

    async with anyio.create_task_group() as sweeping:
        sweeping.start_soon(sweep_all_the_time)
        async with anyio.create_task_group() as adding:
            for number in range(3):
                adding.start_soon(add_and_remove, f"m{number}")
        ended.set()
    assert faults == []
    await bench.store.sweeper.sweep()
    assert bench.blobs() == []


async def test_a_manifest_of_another_tool_during_the_sweep_counts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = bench.plant(b"x")
    real = sweep_module.Sweeper._remove_some

    def published_meanwhile(self: Any, *arguments: Any) -> Any:
        document = {"schema_version": 1, "blob": digest.text, "size_bytes": 1}
        Path(bench.manifest("theirs")).write_text(json.dumps(document))
        return real(self, *arguments)

    monkeypatch.setattr(sweep_module.Sweeper, "_remove_some", published_meanwhile)
    assert (await bench.store.sweeper.sweep()).victims == ()
    assert bench.store.index.resolve("theirs").state == "ready"
