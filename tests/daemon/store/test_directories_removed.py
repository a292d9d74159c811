"""A directory of the store that another program removes while the daemon runs: it is made again when it is needed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from modeld.store import Manner
from modeld.store.catalog.history import THE_DAEMON
from modelwire.errors import Corrupt
from rigs.maintain_rig import Bench

CONTENT = b"GGUF weights"

Step = Callable[[Bench], Awaitable[None]]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, byte_threads=2)
    yield made
    made.close()


def several(bench: Bench) -> str:
    source = bench.directory / "model"
    source.mkdir(exist_ok=True)
    for name in ("config.json", "model.gguf"):
        (source / name).write_bytes(b"GGUF" + name.encode())
    return str(source)


async def adds(bench: Bench) -> None:
    added = await bench.add("new", os.urandom(20))
    assert bench.store.index.resolve("new").path == added.path


async def adds_several(bench: Bench) -> None:
    added = await bench.store.add(several(bench), name="many-new")
    assert sorted(os.listdir(added.path)) == ["config.json", "model.gguf"]


async def links(bench: Bench) -> None:
    source = bench.directory / "linked.gguf"
    source.write_bytes(os.urandom(20))
    await bench.store.add(str(source), name="linked", how="link")
    assert bench.store.index.resolve("linked").state == "ready"


async def copies_and_removes(bench: Bench) -> None:
    await bench.store.renaming.copy("many", "copy")
    await bench.store.renaming.move("copy", "moved")
    assert (await bench.store.resolver.resolve("moved")).path
    await bench.store.renaming.remove("moved")


async def resolves_several(bench: Bench) -> None:
    resolved = await bench.store.resolver.resolve("many")
    assert sorted(os.listdir(resolved.path)) == ["config.json", "model.gguf"]


async def sweeps(bench: Bench) -> None:
    gone = await bench.add("gone", b"GGUF gone")
    await bench.store.renaming.remove("gone")
    swept = await bench.store.sweeper.sweep(grace=0)
    assert gone.path in [victim.path for victim in swept.victims]
    assert (await bench.store.sweeper.empty_quarantine()).removed == 0


async def looks(bench: Bench) -> None:
    usage = await bench.store.usage()
    assert usage.on_disk_bytes > 0
    assert (await bench.store.quarantined()).size_bytes == usage.quarantine_bytes
    assert (await bench.store.models.show("one")).name == "one"


async def sets_aside(bench: Bench) -> None:
    bad = await bench.add("bad", b"GGUF bad one")
    bench.spoil(bad.path)
    assert not (await bench.store.verifier.verify(["bad"], Manner(requester=THE_DAEMON))).ok
    with pytest.raises(Corrupt, match="cannot be used") as refused:
        bench.store.index.resolve("bad")
    hint = refused.value.hint or ""
    assert hint.startswith("Run `modelctl repair ")
    assert ", or pull or add it again from its source (" in hint
    assert hint.endswith(".gguf), not by its name. Its manifest is kept.")
    assert len((await bench.store.quarantined()).items) == 1
    await bench.store.renaming.remove("bad")


STEPS: list[Step] = [adds, adds_several, links, copies_and_removes, resolves_several, sweeps, looks, sets_aside]
REMOVED = [
    ".modeld/trees",
    ".modeld/staging",
    ".modeld/blocks",
    ".modeld/partials",
    ".modeld/linked",
    "locks/quarantine",
    "locks",
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
@pytest.mark.parametrize("removed", REMOVED)
async def test_a_directory_that_is_gone_is_made_again_when_it_is_needed(bench: Bench, removed: str, step: Step) -> None:
    await bench.add("one", CONTENT)
    await bench.store.add(several(bench), name="many")
    shutil.rmtree(f"{bench.root}/{removed}", ignore_errors=True)
    await step(bench)
