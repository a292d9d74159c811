"""A site whose bytes do not come keeps nobody waiting but those who ask for them, and they are told in time."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from modeld.config import StoreSettings
from modeld.config.settings import SiteRoot
from modeld.progress import FileProgress, JobProgress
from modeld.store.blobs import blobs
from modeld.store.ingest.from_site import SiteBlob
from modeld.store.manifests import sites
from modeld.store.manifests.sites import Away
from modelwire.errors import NotFound
from modelwire.units import Size
from rigs.adding_rig import Bench
from rigs.site_store import SiteStore
from rigs.waiting import eventually

CONTENT = b"GGUF theirs"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def site(tmp_path: Path) -> SiteStore:
    made = SiteStore(tmp_path / "site")
    made.put("theirs", CONTENT)
    return made


@pytest.fixture
def bench(tmp_path: Path, site: SiteStore) -> Iterator[Bench]:
    made = Bench(tmp_path)
    made.reopen(StoreSettings(min_free=Size(0), site=(SiteRoot(path=str(site.root)),)))
    yield made
    made.close()


@pytest.fixture
def hung() -> Iterator[threading.Event]:
    """What waits for it hangs until the end of the test."""
    made = threading.Event()
    yield made
    made.set()


def touched(site: SiteStore) -> str:
    """The path of the blob, whose file has changed since it was seen."""
    data = site.blob(DIGEST)
    data.chmod(0o644)
    os.utime(data)
    return str(data)


async def test_copies_from_a_site_that_hangs_leave_the_threads_of_the_store_to_others(
    bench: Bench, site: SiteStore, hung: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = SiteBlob.stage
    begun = threading.Event()

    def stage(self: SiteBlob, *arguments: Any, **more: Any) -> Any:
        begun.set()
        hung.wait()
        return staging(self, *arguments, **more)

    monkeypatch.setattr(SiteBlob, "stage", stage)
    bench.store.use_threads(1)
    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(copy, bench, f"copy-{number}")
        await anyio.to_thread.run_sync(begun.wait)
        with anyio.fail_after(20):
            await bench.store.add(bench.file(), name="own")
            await bench.store.look_up("theirs")
            touched(site)
            assert (await bench.store.resolver.resolve("theirs")).site == str(site.root)
        hung.set()
    assert bench.names() == ["copy-0", "copy-1", "copy-2", "copy-3", "own"]
    assert bench.store.reserved_bytes == 0


async def copy(bench: Bench, name: str) -> None:
    await bench.store.copy("theirs", name, link=False, progress=JobProgress())


async def test_a_hash_at_a_site_that_hangs_does_not_delay_an_own_model_of_the_same_bytes(
    bench: Bench, site: SiteStore, hung: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.store.add(bench.file(content=CONTENT), name="own")
    await bench.store.look_up("theirs")
    path = touched(site)
    monkeypatch.setattr(sites, "PATIENCE_SECONDS", 0.5)
    verify = blobs.verify_blob

    def hanging(layout: Any, *arguments: Any, **more: Any) -> Any:
        if layout.root == str(site.root):
            hung.wait()
        return verify(layout, *arguments, **more)

    monkeypatch.setattr(blobs, "verify_blob", hanging)
    refused: list[Away] = []

    async def ask() -> None:
        try:
            await bench.store.resolver.resolve("theirs")
        except Away as fault:
            refused.append(fault)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask)
        with anyio.fail_after(20):
            assert (await bench.store.resolver.resolve("own")).site is None
    assert [fault.details["site"] for fault in refused] == [str(site.root)] * 3
    hung.set()
    monkeypatch.setattr(sites, "PATIENCE_SECONDS", 20.0)
    (known,) = bench.store.sites.sites
    await eventually(lambda: not vars(known)["_left"])  # the hash ends, and with it the silence
    assert (await bench.store.resolver.resolve("theirs")).path == path


async def test_a_hash_at_a_site_takes_as_long_as_bytes_come(
    bench: Bench, site: SiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.store.look_up("theirs")
    path = touched(site)
    monkeypatch.setattr(sites, "PATIENCE_SECONDS", 0.5)
    verify = blobs.verify_blob

    def slow(layout: Any, digest: Any, progress: FileProgress) -> Any:
        for _ in range(30):
            time.sleep(0.05)  # the disk
            progress.advance(verified=1)
        return verify(layout, digest, progress)

    monkeypatch.setattr(blobs, "verify_blob", slow)
    assert (await bench.store.resolver.resolve("theirs")).path == path


async def test_a_hash_at_a_site_ends_with_the_request(
    bench: Bench, site: SiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.store.look_up("theirs")
    touched(site)
    begun, ended = threading.Event(), threading.Event()

    def endless(_layout: Any, _digest: Any, progress: FileProgress) -> Any:
        begun.set()
        while not progress.stopped():
            progress.advance(verified=1)
            time.sleep(0.001)
        ended.set()
        raise AssertionError("nobody waits for it")

    monkeypatch.setattr(blobs, "verify_blob", endless)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.store.resolver.resolve, "theirs")
        await anyio.to_thread.run_sync(begun.wait)
        tasks.cancel_scope.cancel()
    assert await anyio.to_thread.run_sync(ended.wait, 20)


async def test_uses_of_models_of_sites_are_kept_and_those_of_gone_models_are_not(bench: Bench, site: SiteStore) -> None:
    site.put("gone", CONTENT)
    for name in ("theirs", "gone"):
        await bench.store.look_up(name)
    await bench.store.uses.flush()
    (site.root / "manifests" / "gone.json").unlink()
    page = await bench.store.models.page(None, None, after=None, limit=10)
    assert [view.name for view in page.models] == ["theirs"]
    await bench.store.prune(time.time())
    assert [bool(bench.store.uses.of(name)) for name in ("theirs", "gone")] == [True, False]


async def test_entries_of_models_that_a_site_has_no_more_are_forgotten(bench: Bench, site: SiteStore) -> None:
    for number in range(300):
        site.put(f"m{number}", CONTENT)
    page = await bench.store.models.page(None, None, after=None, limit=1000)
    assert len(page.models) == 301
    for number in range(300):
        (site.root / "manifests" / f"m{number}.json").unlink()
    page = await bench.store.models.page(None, None, after=None, limit=1000)
    assert [view.name for view in page.models] == ["theirs"]
    with pytest.raises(NotFound):
        await bench.store.look_up("m7")
    (known,) = bench.store.sites.sites
    assert set(vars(known.index)["_entries"]) == {"theirs"}


async def test_the_id_of_a_model_of_a_site(bench: Bench, site: SiteStore) -> None:
    site.put("hidden", CONTENT, ids=["hidden/id", "shared/id"])
    site.put("known", CONTENT, ids=["site/id"])
    site.put("second", CONTENT, ids=["site/id"])
    await bench.store.add(bench.file(), name="hidden")
    await bench.store.add(bench.file(), name="own", known_as="own/id")

    async def names(id_: str) -> list[str]:
        return [entry.name.text for entry in await bench.store.sites.with_id(id_)]

    assert await names("site/id") == ["known", "second"]
    assert await names("own/id") == ["own"]
    assert await names("hidden/id") == [], "the own model of that name has no id"
    await bench.store.add(bench.file(), name="mine", known_as="site/id")
    assert await names("site/id") == ["mine"], "what is here comes first"


async def test_an_id_at_a_site_that_hangs(
    bench: Bench, site: SiteStore, hung: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sites, "PATIENCE_SECONDS", 0.2)
    (known,) = bench.store.sites.sites
    monkeypatch.setattr(known.index, "names", hung.wait)
    assert await bench.store.sites.with_id("site/id") == []
    await bench.store.add(bench.file(), name="own", known_as="own/id")
    assert [entry.name.text for entry in await bench.store.sites.with_id("own/id")] == ["own"]
