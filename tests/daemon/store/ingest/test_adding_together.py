"""Adding at the same time as others: other adds, other tools, bytes that vanish or change."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from modeld.progress import FileProgress
from modeld.store import Store
from modeld.store.blobs.blobs import Blob, stat_blob
from modeld.store.catalog.catalog import Catalog
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modeld.store.ingest.adopt import How
from modeld.store.ingest.ingest import still_there
from modeld.store.manifests.trees import Trees
from modeld.store.names import ModelName
from modelwire.errors import (
    AlreadyExists,
    Corrupt,
    InUse,
    SourceUnavailable,
    WireError,
)
from modelwire.units import Duration
from modelwire.values import Added
from rigs.adding_rig import SETTINGS, Bench, Notes, settle_source


async def test_many_names_at_once_are_all_there(bench: Bench) -> None:
    paths = [bench.file(f"f{number}", b"%d" % (number % 5)) for number in range(40)]

    async def add(path: str, name: str) -> None:
        await bench.store.add(path, name=name)

    async with anyio.create_task_group() as group:
        for number, path in enumerate(paths):
            group.start_soon(add, path, f"m{number}")
    assert len(bench.names()) == 40
    assert len(bench.blobs()) == 5
    assert {view.state for view in bench.store.index.page(None, None).models} == {"ready"}


@pytest.mark.parametrize("locks", ["real", "none"])
async def test_one_name_at_once_has_one_winner(bench: Bench, monkeypatch: pytest.MonkeyPatch, locks: str) -> None:
    """With every lock taken away the outcome is the same: locks save work, they do not keep the promise."""
    from contextlib import asynccontextmanager

    if locks == "none":

        @asynccontextmanager
        async def no_lock(*_arguments: object, **_options: object) -> Any:
            yield

        monkeypatch.setattr("modeld.store.publish.name_locks.NameLocks.held", no_lock)
        monkeypatch.setattr("modeld.store.publish.publisher.Publisher.turn", no_lock)
    outcomes: list[str] = []

    async def add(number: int) -> None:
        path = bench.file(f"f{number}", b"content %d" % (number % 4))
        try:
            outcomes.append((await bench.store.add(path, name="one")).blob)
        except AlreadyExists:
            outcomes.append("refused")

    async with anyio.create_task_group() as group:
        for number in range(16):
            group.start_soon(add, number)
    winners = {outcome for outcome in outcomes if outcome != "refused"}
    assert winners == {bench.store.index.resolve("one").blob}
    assert outcomes.count("refused") == 12
    assert bench.staged() == []


async def test_a_name_that_another_tool_holds_does_not_hold_up_the_others(bench: Bench) -> None:
    import fcntl

    bench.close()
    hasty = msgspec.structs.replace(SETTINGS, lock_wait=Duration(0.2))
    layout, lock = Store.claim(bench.root, hasty)
    bench.catalog = Catalog.open(layout.catalog_path)
    bench.store = Store.open(bench.root, hasty, bench.catalog, lock=lock)
    descriptor = os.open(bench.layout.name_lock(ModelName.parse("held")), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        async with anyio.create_task_group() as group:

            async def add_held() -> None:
                with pytest.raises(InUse, match="'held'"):
                    await bench.store.add(bench.file("h", b"h"), name="held", order=1)

            group.start_soon(add_held)
            with anyio.fail_after(30):
                await bench.store.add(bench.file("f", b"f"), name="free", order=2)
    finally:
        os.close(descriptor)
    assert bench.names() == ["free"]
    assert bench.staged() == []


async def test_a_manifest_of_another_tool_that_came_first_is_not_overwritten(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It appears between the look in our turn and the naming; same bytes are success, others are refused."""
    same = await bench.store.add(bench.file(), name="template")
    template = Path(bench.layout.manifest(ModelName.parse("template"))).read_text()

    class Intruder(Notes):
        async def about_to_publish(self, added: Added) -> None:
            text = template.replace("template", added.name)
            Path(bench.layout.manifest(ModelName.parse(added.name))).write_text(text)

    added = await bench.store.add(bench.file(), name="same", notes=Intruder(bench))
    assert added.blob == same.blob
    with pytest.raises(AlreadyExists):
        await bench.store.add(bench.file("x", b"other"), name="other", notes=Intruder(bench))
    assert bench.store.index.resolve("other").blob == same.blob


async def test_a_blob_that_vanishes_in_the_last_moment_is_copied_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = await bench.store.add(bench.file(), name="a")
    taken: list[bool] = []

    def take_it_first(*arguments: Any) -> Any:
        if not taken:
            taken.append(True)
            os.unlink(added.path)
        return still_there(*arguments)

    monkeypatch.setattr("modeld.store.ingest.ingest.still_there", take_it_first)
    again = await bench.store.add(bench.file(), name="b", sha256=added.blob)
    assert taken
    assert Path(again.path).read_bytes() == b"GGUF weights"


@pytest.mark.parametrize("locks", ["real", "patient"])
async def test_models_that_share_a_file_do_not_stand_in_each_others_way(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, locks: str
) -> None:
    """The tree of each model gives the shared blob another link, which changes its times."""
    if locks == "patient":  # every tree is made between the look at the blobs of another model and its publication
        real = Trees.ensure

        def slow(*arguments: Any) -> Any:
            time.sleep(0.002)
            return real(*arguments)

        monkeypatch.setattr(Trees, "ensure", slow)
    paths = [bench.directory / f"d{number}" for number in range(16)]
    for number, path in enumerate(paths):
        path.mkdir()
        for name in ("config.json", "tokenizer.json"):
            (path / name).write_bytes(name.encode())
        (path / "m.gguf").write_bytes(b"GGUF%d" % number)
    await bench.store.add(str(paths[0]), name="first")
    async with anyio.create_task_group() as group:
        for number, path in enumerate(paths):
            group.start_soon(partial(bench.store.add, str(path), name=f"m{number}"))
    assert len(bench.names()) == 17
    for name in bench.names():
        assert (await bench.store.resolver.resolve(name)).state == "ready"


async def test_a_write_between_two_links_of_trees_is_found(bench: Bench) -> None:
    folder = bench.directory / "several"
    folder.mkdir()
    (folder / "a.gguf").write_bytes(b"GGUF a")
    (folder / "b.gguf").write_bytes(b"GGUF b")
    await bench.store.add(str(folder), name="one")
    blob = stat_blob(bench.layout, Digest.parse(bench.store.index.find("one").usable().blob))
    assert blob is not None
    trees = bench.store.index.trees
    await bench.store.renaming.copy("one", "two")
    await bench.store.resolver.resolve("two")
    assert still_there(bench.layout, blob, trees).signature != blob.signature
    os.chmod(blob.path, 0o600)
    with pytest.raises(Corrupt):
        still_there(bench.layout, blob, trees)


async def test_the_name_of_a_blob_that_is_found_is_durable(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program that named it may have died before it synced: for an add, and for a pull."""
    added = await bench.store.add(bench.file(), name="a")
    synced: list[str] = []
    monkeypatch.setattr(durable, "sync_directory", synced.append)
    assert await bench.store.ingest.find_here(Digest.parse(added.blob), FileProgress())
    assert os.path.dirname(added.path) in synced
    synced.clear()
    await bench.store.add(bench.file(), name="b", sha256=added.blob)
    assert os.path.dirname(added.path) in synced


async def test_a_blob_that_keeps_vanishing_ends_in_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    added = await bench.store.add(bench.file(), name="a")

    def changed(layout: Layout, blob: Blob, trees: Trees) -> None:
        still_there(layout, replace(blob, signature=replace(blob.signature, size=-1)), trees)

    monkeypatch.setattr("modeld.store.ingest.ingest.still_there", changed)
    with pytest.raises(Corrupt, match="disappears"):
        await bench.store.add(bench.file(), name="b", sha256=added.blob)
    assert bench.staged() == []


async def test_a_file_that_cannot_be_looked_at_is_closed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bench.file()
    before = len(os.listdir("/proc/self/fd"))

    def broken(_status: os.stat_result) -> Signature:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patched:
        patched.setattr(Signature, "of", broken)
        with pytest.raises(WireError):
            await bench.store.add(path, name="a")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("how", ["copy", "link"])
async def test_an_expected_digest_teaches_nothing_about_a_file_that_was_not_read(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: How
) -> None:
    settle_source(monkeypatch)
    first, second = tmp_path / "first.bin", tmp_path / "second.bin"
    first.write_bytes(b"a" * 4096)
    second.write_bytes(b"b" * 4096)
    for path in (first, second):
        os.utime(path, (1, 1))
    added = await bench.store.add(str(first), name="first")
    claimed = await bench.store.add(str(second), name="claimed", sha256=added.blob.removeprefix("sha256:"), how=how)
    assert claimed.blob == added.blob
    honest = await bench.store.add(str(second), name="honest")
    assert honest.blob == "sha256:" + hashlib.sha256(second.read_bytes()).hexdigest()


async def test_a_file_that_hides_its_size_is_refused(bench: Bench) -> None:
    """A file of the kernel's says that it is empty and is not."""
    with pytest.raises(SourceUnavailable, match="there are more"):
        await bench.store.add("/proc/version", name="version")
    assert bench.store.index.count == 0
