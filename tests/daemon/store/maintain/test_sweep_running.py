"""A sweep beside running work takes none of its files, however old they look and however short the grace period is."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from modeld.download.engine.assembly import Fetched
from modeld.download.engine.downloads import Transfer
from modeld.progress import FileProgress, JobProgress
from modeld.store.digest import Digest
from modeld.store.ingest.commit import Batch
from modeld.store.ingest.present import Presence
from modeld.store.maintain import checking
from modeld.store.maintain.sweep import Sweeper
from modeld.store.names import ModelName
from modeld.store.publish.holds import Holds
from modeld.store.publish.publishing import PublishRequest
from modelwire.values import Swept
from rigs.chaos_server import Chaos
from rigs.download_rig import QUICK, Rig, content_of, digest_of
from rigs.maintain_rig import DAY, Bench, kinds, later
from rigs.waiting import eventually
from rigs.watcher import Watcher

MIB = 1 << 20
CONTENT = b"GGUF weights"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, byte_threads=2)
    yield made
    made.close()


def unfinished(bench: Bench) -> list[str]:
    """Every file of downloads and of staging."""
    places = [bench.layout.staging, bench.layout.keyed_partials, bench.layout.blobs_dir]
    walked = (f"{where}/{name}" for place in places for where, _, names in os.walk(place) for name in names)
    return sorted(path for path in walked if not path.endswith("/data"))


@pytest.mark.parametrize("known", ["digest", "validator", "nothing"])
async def test_the_files_of_a_running_download_stay_after_a_step_of_the_clock(bench: Bench, known: str) -> None:
    content, watcher, fetched = content_of(), Watcher(), list[Fetched]()
    with Chaos(content, rate=6 * MIB) as chaos, Rig(bench.root) as rig:
        chaos.etag = '"one"' if known == "validator" else None
        rig.transfer = Transfer(bench.layout, bench.store.ingest.space, tuning=QUICK, holds=bench.store.holds)
        file = rig.info(chaos.url, content if known == "digest" else None, validator=chaos.etag)

        def fetch() -> None:
            fetched.append(rig.fetch(file, watcher=watcher))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, fetch)
            await eventually(lambda: watcher.done > MIB)
            before = unfinished(bench)
            assert before
            later(bench, 8 * DAY)
            planned = await bench.store.sweeper.sweep(dry_run=True, grace=0)
            swept = await bench.store.sweeper.sweep(grace=0)
            assert (planned.victims, swept.victims) == ((), ())
            assert unfinished(bench) == before
        blob, _ = rig.commit(fetched[0])
        assert blob.digest == digest_of(content)
    assert not bench.store.holds.is_held(bench.layout.staging)
    assert not bench.store.holds.is_held(bench.layout.keyed_partials)
    assert bench.store.holds.blobs() == set()


@pytest.mark.parametrize("how", ["copy", "move", "link"])
@pytest.mark.parametrize("several", [False, True])
async def test_the_staged_files_of_a_running_add_stay_after_a_step_of_the_clock(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Any, several: bool
) -> None:
    source = tmp_path / "model"
    source.mkdir()
    for name in ("config.json", "model.gguf"):
        (source / name).write_bytes(b"GGUF" + name.encode())
    swept: list[Swept] = []
    real = Batch.settle

    def sweep_first(self: Batch, *arguments: Any, **options: Any) -> Any:
        assert len(bench.staged()) == 1 + several
        swept.append(anyio.from_thread.run(bench.store.sweeper.sweep))
        return real(self, *arguments, **options)

    monkeypatch.setattr(Batch, "settle", sweep_first)
    later(bench, 8 * DAY)
    added = await bench.store.add(str(source if several else source / "model.gguf"), name="m", how=how)
    assert swept
    assert swept[0].victims == ()
    assert os.path.exists(added.path)
    assert not bench.store.holds.is_held(bench.layout.staging)


async def test_work_that_takes_its_hold_after_the_sweep_has_looked_keeps_its_blob(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, looks = bench.plant(CONTENT), list[int]()
    real = Holds.blobs
    with ExitStack() as held:

        def hold_after_the_look(self: Holds) -> set[str]:
            found = real(self)
            looks.append(len(found))
            if len(looks) == 2:  # the first one is that of the walk
                held.enter_context(self.relying_on(digest))
            return found

        monkeypatch.setattr(Holds, "blobs", hold_after_the_look)
        assert (await bench.store.sweeper.sweep()).victims == ()
    assert looks == [0, 0]
    assert bench.blobs() == [bench.layout.blob(digest)]
    monkeypatch.setattr(Holds, "blobs", real)
    assert kinds(await bench.store.sweeper.sweep()) == [("blob", len(CONTENT))]


async def test_work_that_comes_during_the_removal_sees_that_the_blob_is_gone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = bench.plant(CONTENT)
    found: list[object] = []
    begun = threading.Event()
    real = Sweeper._remove_one

    request = PublishRequest(name=ModelName.parse("m"), provenance="", order=0, progress=JobProgress())

    def look() -> None:
        with ExitStack() as held:
            held.enter_context(bench.store.holds.relying_on(digest))
            begun.set()
            presence = Presence(bench.store.ingest, "copy", request, held)
            found.append(presence._find_good(digest, FileProgress()))

    looking = threading.Thread(target=look)

    def remove_slowly(self: Sweeper, victim: Any) -> bool:
        looking.start()
        assert begun.wait(10)
        looking.join(0.05)
        return real(self, victim)

    monkeypatch.setattr(Sweeper, "_remove_one", remove_slowly)
    assert kinds(await bench.store.sweeper.sweep()) == [("blob", len(CONTENT))]
    looking.join(10)
    assert found == [None]


async def test_a_model_that_is_removed_and_swept_while_it_is_verified_is_verified(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = await bench.add("a")
    real = checking._look_at

    async def remove_and_sweep() -> None:
        await bench.store.renaming.remove("a")
        assert (await bench.store.sweeper.sweep()).victims == ()

    def look(*arguments: Any) -> Any:
        anyio.from_thread.run(remove_and_sweep)
        return real(*arguments)

    monkeypatch.setattr(checking, "_look_at", look)
    verification = await bench.store.verifier.verify(["a"])
    assert (verification.ok, verification.models[0].actual) == (True, added.blob)
    assert kinds(await bench.store.sweeper.sweep()) == [("blob", 12)]
    assert not bench.store.holds.is_held(Digest.parse(added.blob))


async def test_a_blob_that_another_job_adds_while_the_same_bytes_are_staged_is_kept_for_both(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The staged file is discarded then, and the publication relies on the blob."""
    swept: list[Swept] = []
    real = Batch.settle

    def planted_before_and_swept_after(self: Batch, *arguments: Any, **options: Any) -> Any:
        bench.plant(CONTENT)
        found = real(self, *arguments, **options)
        assert found
        assert bench.staged() == []
        swept.append(anyio.from_thread.run(bench.store.sweeper.sweep))
        return found

    monkeypatch.setattr(Batch, "settle", planted_before_and_swept_after)
    added = await bench.add("m", CONTENT)
    assert [each.victims for each in swept] == [()]
    assert os.path.exists(added.path)
