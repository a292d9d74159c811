"""All of `.modeld` may be lost: no answer is wrong afterwards, least of all for bytes that others can change."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from modeld.config import StoreSettings
from modeld.store import WouldBlock
from modeld.store.disk import durable
from modeld.store.manifests.entries import Entry
from modelwire.errors import Corrupt
from rigs.adding_rig import SETTINGS, Bench

pytestmark = pytest.mark.anyio


def lose_the_private_part(bench: Bench, what: str = ".modeld", settings: StoreSettings = SETTINGS) -> None:
    bench.close()
    shutil.rmtree(os.path.join(bench.root, what))
    bench.open(settings)


def write_through(source: str, content: bytes) -> None:
    os.chmod(source, 0o600)
    Path(source).write_bytes(content)


def entry(bench: Bench, name: str) -> Entry:
    return bench.store.index.find(name)


@pytest.mark.parametrize("lost", [".modeld", ".modeld/linked"])
async def test_a_linked_model_is_verified_again_before_its_path_is_given_out(bench: Bench, lost: str) -> None:
    source = bench.file()
    await bench.store.add(source, name="m", how="link")
    lose_the_private_part(bench, lost)
    with pytest.raises(WouldBlock):
        bench.store.index.resolve("m")
    resolved = await bench.store.resolver.resolve("m")
    assert Path(resolved.path).read_bytes() == b"GGUF weights"
    assert bench.store.index.resolve("m") == resolved
    write_through(source, b"GGUF OTHERS!")
    with pytest.raises(WouldBlock):
        bench.store.index.resolve("m")


@pytest.mark.parametrize("lost", [".modeld", ".modeld/linked"])
async def test_bytes_that_were_changed_before_the_loss_are_not_served(bench: Bench, lost: str) -> None:
    source = bench.file()
    await bench.store.add(source, name="m", how="link")
    write_through(source, b"GGUF OTHERS!")
    lose_the_private_part(bench, lost)
    with pytest.raises(Corrupt):
        await bench.store.resolver.resolve("m")


async def test_the_next_start_knows_it_too(bench: Bench) -> None:
    await bench.store.add(bench.file(), name="m", how="link")
    lose_the_private_part(bench)
    bench.reopen()
    with pytest.raises(WouldBlock):
        bench.store.index.resolve("m")


@pytest.mark.parametrize("lost", [".modeld", ".modeld/linked", ".modeld/trees"])
async def test_blobs_that_only_the_store_names_stay_ready(bench: Bench, lost: str) -> None:
    await bench.store.add(bench.file(), name="alone")
    directory = bench.directory / "several"
    directory.mkdir()
    for name in ("a.gguf", "b.gguf", "twice.gguf"):
        (directory / name).write_bytes(b"GGUF" + name[:1].encode())
    await bench.store.add(str(directory), name="several")
    lose_the_private_part(bench, lost)
    assert os.listdir(bench.layout.linked) == []
    assert entry(bench, "alone").view().state == "ready"
    if lost == ".modeld/trees":  # another program has removed links, which changes a file as a write may
        assert entry(bench, "several").view().state == "suspect"
        await bench.store.resolver.resolve("several")
    assert entry(bench, "several").view().state == "ready"


async def test_a_store_from_before_the_marks_keeps_its_trees_out_of_suspicion(bench: Bench) -> None:
    directory = bench.directory / "several"
    directory.mkdir()
    for name in ("a.gguf", "b.gguf"):
        (directory / name).write_bytes(b"GGUF" + name[:1].encode())
    await bench.store.add(str(directory), name="several")
    bench.close()
    os.rmdir(bench.layout.linked)
    bench.open()
    assert entry(bench, "several").view().state == "ready"
    assert os.path.isdir(bench.layout.linked)


async def test_a_disk_that_takes_no_marks_keeps_the_suspicion_for_the_next_start(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = bench.file()
    await bench.store.add(source, name="m", how="link")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(durable, "create_file", full)
        lose_the_private_part(bench, ".modeld/linked")
        assert any("note the linked blobs" in note for note in bench.store.recovery.notes)
        with pytest.raises(WouldBlock):
            bench.store.index.resolve("m")
    assert not os.path.exists(bench.layout.linked)
    await bench.store.add(bench.file("other.gguf", b"GGUF more"), name="other", how="link")
    bench.reopen()
    with pytest.raises(WouldBlock):
        bench.store.index.resolve("m")
    assert bench.store.index.resolve("other").state == "ready"
