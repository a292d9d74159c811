"""Names that are removed: what goes with a name, what keeps it, and what is left to other tools."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from modeld.config import StoreSettings
from modeld.store.names import ModelName
from modeld.store.publish.holds import NameHold
from modelwire.errors import InUse, NotFound, Unsupported
from modelwire.units import Duration, Size
from modelwire.values import Removed
from rigs.maintain_rig import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


async def test_a_removed_model_leaves_its_blob(bench: Bench) -> None:
    added = await bench.add("a")
    removed = await bench.store.renaming.remove("A")
    size, at = added.size_bytes, removed.frees_at
    assert removed == Removed(
        name="a", blob=added.blob, size_bytes=size, blobs=(added.blob,), frees_bytes=size, frees_at=at
    )
    assert at is not None
    assert bench.names() == []
    assert os.path.exists(added.path)
    assert bench.store.renaming.removed(removed)
    with pytest.raises(NotFound):
        await bench.store.renaming.remove("a")


@pytest.mark.parametrize("spelled", ["llama:8B", "LLAMA:8b"])
async def test_a_name_that_another_tool_locks_is_left_alone_in_every_spelling(tmp_path: Path, spelled: str) -> None:
    """The other tool locks the file of the name as it is spelled there."""
    bench = Bench(tmp_path, StoreSettings(min_free=Size(0), lock_wait=Duration(0.1)))
    try:
        await bench.add("llama:8B")
        with FileLock(bench.layout.name_lock(ModelName.parse("llama:8B")), fallback_to_soft=False):
            with pytest.raises(InUse):
                await bench.store.renaming.remove(spelled)
            with pytest.raises(InUse):
                await bench.store.renaming.move(spelled, "other")
        assert bench.names() == ["llama:8B"]
        await bench.store.renaming.move(spelled, "other")
        await bench.store.renaming.remove("Other")
        assert bench.names() == []
    finally:
        bench.close()


@pytest.mark.parametrize("content", ["", "{", '{"schema_version": 1, "blob": "sha256:x", "size_bytes": 1}'])
async def test_a_damaged_manifest_can_be_removed(bench: Bench, content: str) -> None:
    Path(bench.manifest("bad")).write_text(content)
    assert (await bench.store.renaming.remove("bad")).blob is None
    assert not os.path.exists(bench.manifest("bad"))


async def test_a_manifest_of_another_version_is_left_to_its_tool(bench: Bench) -> None:
    Path(bench.manifest("newer")).write_text('{"schema_version": 2}')
    with pytest.raises(Unsupported):
        await bench.store.renaming.remove("newer")
    assert os.path.exists(bench.manifest("newer"))


async def test_what_is_held_is_removed_only_by_force(bench: Bench) -> None:
    await bench.add("a")
    bench.store.holds.register(names=lambda name: NameHold(f"a lease of pid 7 on {name.text}"))
    with pytest.raises(InUse, match="a lease of pid 7 on a") as caught:
        await bench.store.renaming.remove("a")
    assert caught.value.details == {"name": "a", "holders": []}
    await bench.store.renaming.remove("a", force=True)
    assert bench.names() == []


async def test_a_link_in_place_of_a_manifest_is_removed_and_not_followed(bench: Bench, tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    outside.write_text("precious")
    os.symlink(outside, bench.manifest("link"))
    await bench.store.renaming.remove("link")
    assert outside.read_text() == "precious"
    assert not os.path.lexists(bench.manifest("link"))
