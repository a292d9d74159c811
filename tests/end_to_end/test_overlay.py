"""A store in the lower layer of an overlay, as in the image of a container, is served and changed as any other."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from rigs.maintain_rig import Bench


@pytest.fixture
def layered(tmp_path: Path) -> Iterator[Bench]:
    """A store with models, made below and then mounted with an empty upper layer."""
    if os.geteuid() != 0:
        pytest.skip("mounting an overlay needs root")
    source = tmp_path / "model"
    source.mkdir()
    for name in ("config.json", "model.gguf"):
        (source / name).write_bytes(b"GGUF" + name.encode())
    lower = tmp_path / "lower"
    lower.mkdir()
    made = Bench(lower)
    disk, merged = tmp_path / "disk", tmp_path / "merged"
    disk.mkdir()
    merged.mkdir()

    async def fill() -> None:
        await made.store.add(str(source), name="many")
        await made.add("one", b"GGUF one")

    anyio.run(fill)
    made.close()
    (lower / "source.gguf").unlink()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], check=True)
    try:
        (disk / "upper").mkdir()
        (disk / "work").mkdir()
        layers = f"lowerdir={lower},upperdir={disk}/upper,workdir={disk}/work"
        mounted = subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", str(merged)], check=False)
        if mounted.returncode:
            pytest.skip("this kernel mounts no overlay here")
        try:
            bench = Bench(merged)
            yield bench
            bench.close()
        finally:
            subprocess.run(["umount", str(merged)], check=True)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


async def shown(bench: Bench, name: str) -> list[str]:
    resolved = await bench.store.resolver.resolve(name)
    return sorted(os.listdir(resolved.path))


async def test_a_tree_that_no_longer_fits_is_made_again(layered: Bench) -> None:
    assert await shown(layered, "many") == ["config.json", "model.gguf"]
    entry = layered.store.index.find("many")
    for path, _digest, _size in entry.blobs:
        os.chmod(path, 0o444)  # the layer above gets a copy of the file; its other name keeps the one below
    layered.reopen()
    assert await shown(layered, "many") == ["config.json", "model.gguf"]
    assert await shown(layered, "many") == ["config.json", "model.gguf"]
    assert (await layered.store.verifier.verify()).ok


async def test_models_of_the_lower_layer_are_copied_moved_removed_and_swept(layered: Bench) -> None:
    await layered.store.renaming.copy("many", "copy")
    await layered.store.renaming.move("many", "moved")
    assert await shown(layered, "moved") == ["config.json", "model.gguf"]
    assert await shown(layered, "copy") == ["config.json", "model.gguf"]
    for name in ("copy", "moved", "one"):
        await layered.store.renaming.remove(name)
    swept = await layered.store.sweeper.sweep(grace=0)
    assert swept.notes == ()
    assert layered.blobs() == []
    assert layered.staged() == []
    added = await layered.add("again", b"GGUF one")
    assert Path(added.path).read_bytes() == b"GGUF one"


async def test_a_corrupt_blob_of_the_lower_layer_is_set_aside(layered: Bench) -> None:
    path = layered.store.index.resolve("one").path
    layered.spoil(path)
    assert not (await layered.store.verifier.verify(["one"])).ok
    assert layered.quarantined() == [b"XXXX one"]
