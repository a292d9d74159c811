"""Bytes counted once each, uses noted without delay, and lists by a query, page by page."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from modeld.store.catalog import uses as uses_module
from modeld.store.catalog.uses import Uses
from modeld.store.digest import Digest
from modelwire.errors import InvalidRequest
from modelwire.values import ModelList, ModelUsage
from rigs.maintain_rig import Bench
from rigs.waiting import all_wait


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


# -- usage


async def test_an_empty_store(bench: Bench) -> None:
    usage = await bench.store.usage()
    assert (usage.logical_bytes, usage.physical_bytes, usage.models) == (0, 0, ())
    assert usage.free_bytes


async def test_each_blob_counts_once(bench: Bench, tmp_path: Path) -> None:
    added = await bench.add("a", b"1" * 100)
    await bench.store.renaming.copy("a", "b")
    await bench.add("c", b"2" * 30)
    await bench.add("gone", b"3" * 7)
    await bench.store.renaming.remove("gone")
    os.link(added.path, tmp_path / "elsewhere")
    (Path(bench.layout.quarantine_dir) / "x.bin").write_bytes(b"q" * 5)
    (Path(bench.layout.staging) / "x").write_bytes(b"s" * 2)
    partial = Path(bench.layout.partial(Digest("c" * 64)))
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"p")
    keyed = Path(bench.layout.keyed_partials) / "key" / "data.tmp"
    keyed.parent.mkdir(parents=True)
    keyed.write_bytes(b"keyed")
    usage = await bench.store.usage()
    assert usage.models == (
        ModelUsage(name="a", logical_bytes=100, own_bytes=0, shared_bytes=100),
        ModelUsage(name="b", logical_bytes=100, own_bytes=0, shared_bytes=100),
        ModelUsage(name="c", logical_bytes=30, own_bytes=30, shared_bytes=0),
    )
    assert (usage.logical_bytes, usage.physical_bytes) == (230, 137)
    assert (usage.shared_bytes, usage.unnamed_bytes) == (100, 7)
    assert (usage.quarantine_bytes, usage.staging_bytes) == (5, 8)


async def test_the_total_is_what_du_counts(bench: Bench, tmp_path: Path) -> None:
    """To the block, with each part of the store in use, files with several names, and files of other programs."""
    source = tmp_path / "model"
    source.mkdir()
    for name in ("config.json", "model.gguf"):
        (source / name).write_bytes(os.urandom(70_000))
    await bench.store.add(str(source), name="many")
    linked = tmp_path / "linked.gguf"
    linked.write_bytes(os.urandom(300_000))
    await bench.store.add(str(linked), name="linked", how="link")
    gone = await bench.add("gone", os.urandom(50_000))
    await bench.store.renaming.remove("gone")
    digest = Digest("c" * 64)
    for directory, content in (
        (bench.layout.partial_dir(digest), b"p" * 20_000),
        (f"{bench.layout.keyed_partials}/key", b"k" * 30_000),
        (f"{bench.layout.staging}/tree-x/deep", b"s" * 9_000),
        (bench.layout.quarantine_dir, b"q" * 5_000),
        (f"{bench.root}/theirs/below", b"t" * 6_000),
        (os.path.dirname(gone.path), b"b" * 7_000),
    ):
        os.makedirs(directory, exist_ok=True)
        (Path(directory) / "file").write_bytes(content)
    os.symlink(str(tmp_path), f"{bench.root}/theirs/outside")
    os.sync()
    usage = await bench.store.usage()
    counted = subprocess.run(["du", "-s", "--block-size=512", bench.root], capture_output=True, check=True).stdout
    assert usage.on_disk_bytes == int(counted.split()[0]) * 512
    assert usage.disk is not None
    parts = msgspec.structs.asdict(usage.disk)
    assert sum(parts.values()) == usage.on_disk_bytes
    least = {"blobs": 490_000, "partials": 50_000, "staging": 9_000, "quarantine": 5_000, "catalogue": 4_096}
    assert {part: parts[part] >= size for part, size in least.items()} == dict.fromkeys(least, True)
    assert parts["trees"] < 70_000, "its files are the blobs"
    assert usage.partial_bytes == 50_000


async def test_files_of_one_model_that_are_the_same_are_there_once(bench: Bench) -> None:
    bench.write_manifest("many", {"a": b"11", "b": b"11", "c": b"333"})
    bench.write_manifest("more", {"x": b"333"})
    usage = await bench.store.usage()
    assert usage.models == (
        ModelUsage(name="many", logical_bytes=7, own_bytes=2, shared_bytes=3),
        ModelUsage(name="more", logical_bytes=3, own_bytes=0, shared_bytes=3),
    )
    assert usage.physical_bytes == 5


async def test_blobs_that_are_one_inode_count_once(bench: Bench) -> None:
    first, second = bench.plant(b"1234"), Digest("d" * 64)
    path = Path(bench.layout.blob(second))
    path.parent.mkdir(parents=True)
    os.link(bench.layout.blob(first), path)
    assert (await bench.store.usage()).physical_bytes == 4


async def test_missing_blobs_take_nothing(bench: Bench) -> None:
    added = await bench.add("a")
    os.unlink(added.path)
    usage = await bench.store.usage()
    assert usage.models == (ModelUsage(name="a", logical_bytes=12, own_bytes=0, shared_bytes=0),)


# -- uses


async def test_a_use_is_shown_and_survives(bench: Bench) -> None:
    await bench.add("a")
    await bench.add("b", b"b")
    assert (await bench.store.models.show("a")).used_at is None
    await bench.store.look_up("a")
    used = (await bench.store.models.show("a")).used_at
    assert used is not None
    await bench.store.uses.flush()
    bench.reopen()
    assert (await bench.store.models.show("a")).used_at == used
    assert (await bench.store.models.show("b")).used_at is None
    await bench.store.renaming.remove("a")
    await bench.add("a")
    assert (await bench.store.models.show("a")).used_at is None
    await bench.store.uses.flush()
    bench.reopen()
    assert (await bench.store.models.show("a")).used_at is None


async def test_uses_are_written_together_and_nothing_wakes_without_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uses_module, "COALESCE_SECONDS", 0.01)
    uses, writes = Uses(bench.catalog), 0
    written = anyio.Event()
    real = bench.catalog.write

    async def counted(change: Any) -> Any:
        nonlocal writes
        writes += 1
        value = await real(change)
        written.set()
        return value

    monkeypatch.setattr(bench.catalog, "write", counted)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(uses.keep)
        await all_wait()
        assert writes == 0
        for _ in range(1000):
            uses.note("a")
            uses.note("b")
        with anyio.fail_after(20):
            await written.wait()
        tasks.cancel_scope.cancel()
    assert writes == 1
    assert Uses(bench.catalog).of("a") == uses.of("a")


# -- lists


async def fill(bench: Bench, count: int) -> None:
    for number in range(count):
        path = bench.directory / "model"
        path.write_bytes((b"lmgg" if number % 2 else b"").ljust(number + 3, b"x"))
        await bench.store.add(str(path), name=f"m{number:02}")


async def all_pages(bench: Bench, filter_text: str | None, sort: str | None, limit: int) -> list[str]:
    names: list[str] = []
    after: str | None = None
    while True:
        page: ModelList = await bench.store.models.page(filter_text, sort, after=after, limit=limit)
        assert len(page.models) <= limit
        names += [view.name for view in page.models]
        after = page.next
        if after is None:
            return names


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_pages_make_the_whole_list_in_its_order(bench: Bench, limit: int) -> None:
    await fill(bench, 8)
    assert await all_pages(bench, None, None, limit) == [f"m{number:02}" for number in range(8)]
    assert await all_pages(bench, None, "-name", limit) == [f"m{number:02}" for number in range(7, -1, -1)]
    assert await all_pages(bench, "format=ggml", "-size", limit) == ["m07", "m05", "m03", "m01"]
    assert await all_pages(bench, "size>8", "size", limit) == ["m06", "m07"]
    assert await all_pages(bench, "name~nothing", None, limit) == []


async def test_failed_and_unused_models_are_found(bench: Bench) -> None:
    await fill(bench, 4)
    os.unlink((await bench.store.models.show("m02")).path or "")
    assert await all_pages(bench, "state=failed", None, 10) == ["m02"]
    bench.ages(bench.manifest("m01"), 40 * 86_400)
    bench.ages(bench.manifest("m03"), 40 * 86_400)
    assert await all_pages(bench, "used>30d", None, 10) == ["m01", "m03"]
    await bench.store.look_up("m03")
    assert await all_pages(bench, "used>30d", None, 10) == ["m01"]
    assert (await all_pages(bench, None, "used", 10))[0] == "m01"
    assert (await all_pages(bench, None, "-used", 10))[0] == "m03"


async def test_damaged_manifests_are_reported_with_the_first_page(bench: Bench) -> None:
    await fill(bench, 3)
    Path(bench.manifest("bad")).write_text("{")
    first = await bench.store.models.page(None, None, after=None, limit=2)
    assert len(first.damaged) == 1
    second = await bench.store.models.page(None, None, after=first.next, limit=2)
    assert second.damaged == ()


async def test_a_model_that_goes_between_two_pages_is_passed_over(bench: Bench) -> None:
    await fill(bench, 5)
    first = await bench.store.models.page(None, "-size", after=None, limit=2)
    assert [view.name for view in first.models] == ["m04", "m03"]
    for name in ("m03", "m02"):
        await bench.store.renaming.remove(name)
    second = await bench.store.models.page(None, "-size", after=first.next, limit=2)
    assert [view.name for view in second.models] == ["m01"]
    assert second.next == "m01"
    third = await bench.store.models.page(None, "-size", after=second.next, limit=2)
    assert [view.name for view in third.models] == ["m00"]


async def test_a_list_that_was_forgotten_goes_on_where_it_was(bench: Bench) -> None:
    await fill(bench, 4)
    first = await bench.store.models.page(None, "-name", after=None, limit=2)
    for number in range(20):
        await bench.store.models.page(f"size>{number}", None, after=None, limit=1)
    second = await bench.store.models.page(None, "-name", after=first.next, limit=2)
    assert [view.name for view in second.models] == ["m01", "m00"]
    with pytest.raises(InvalidRequest, match=r"^\$\.after: 'nope' is not in this list any more"):
        await bench.store.models.page(None, "-name", after="nope", limit=2)


async def test_ten_thousand_models_are_listed_by_a_filter_within_a_second(bench: Bench) -> None:
    """Reading each manifest for the first time included. It takes 0.5 s here; the bound leaves room for slow machines,
    and none for reading anything twice."""
    digest = bench.plant(b"x")
    text = f'{{"schema_version":1,"format":"gguf","blob":"{digest.text}","size_bytes":1,"name":"%s"}}\n'
    for number in range(10_000):
        Path(bench.manifest(f"model-{number:05}")).write_text(text % f"model-{number:05}")
    started = time.process_time()
    names = await all_pages(bench, "name~7$,size<1kB", "-name", 200)
    spent = time.process_time() - started
    assert len(names) == 1000
    assert names[0] == "model-09997"
    assert spent < 5
