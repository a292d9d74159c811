"""The store as a whole: one holder, eight processes, and a restart after anything."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from modeld.config import StoreSettings
from modeld.store import RootUnusable, Store
from modeld.store.catalog.catalog import Catalog
from modeld.store.names import ModelName
from modelwire.errors import InUse, NotFound
from modelwire.units import Size
from rigs.maintain_rig import Bench

SETTINGS = StoreSettings(min_free=Size(0))


def test_a_store_has_one_holder(tmp_path: Path) -> None:
    root = str(tmp_path / "models")
    store = Store.open(root, SETTINGS)
    with pytest.raises(InUse, match=str(os.getpid())):
        Store.open(root, SETTINGS)
    store.close()
    store.close()
    Store.open(root, SETTINGS).close()


def test_a_store_that_cannot_be_opened_is_not_held(tmp_path: Path) -> None:
    root = tmp_path / "models"
    Store.open(str(root), SETTINGS).close()
    staging = root / ".modeld" / "staging"
    layout, lock = Store.claim(str(root), SETTINGS)
    staging.rmdir()
    with pytest.raises(Exception, match="staging"):
        Store.open(str(root), SETTINGS, lock=lock)
    Store.open(str(root), SETTINGS).close()
    assert layout.root == str(root)


def test_a_root_that_cannot_be_one_is_reported(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")
    with pytest.raises(RootUnusable):
        Store.open(str(tmp_path / "models"), SETTINGS)


async def test_a_catalogue_of_another_life_is_refused_nothing(tmp_path: Path) -> None:
    """Deleted or damaged: only history is lost."""
    root, path = str(tmp_path / "models"), str(tmp_path / "f.gguf")
    Path(path).write_bytes(b"weights")
    for damage in (None, b"", b"no database" * 1000):
        layout, lock = Store.claim(root, SETTINGS)
        if damage is not None:
            for suffix in ("", "-wal", "-shm"):
                if os.path.exists(layout.catalog_path + suffix):
                    os.unlink(layout.catalog_path + suffix)
            Path(layout.catalog_path).write_bytes(damage)
        catalog = Catalog.open(layout.catalog_path)
        store = Store.open(root, SETTINGS, catalog, lock=lock)
        try:
            added = await store.add(path, name="a")
            assert added.reused is (damage is not None)
            assert store.index.resolve("a").state == "ready"
        finally:
            store.close()
            catalog.close()


async def test_the_history_of_models_that_are_gone_is_forgotten(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    kept, gone = await bench.add("kept", b"GGUF kept"), await bench.add("gone", b"GGUF gone")
    await bench.store.look_up("kept")
    await bench.store.look_up("gone")
    await bench.store.uses.flush()
    os.unlink(bench.manifest("gone"))

    async def known() -> set[str]:
        rows = await bench.catalog.read(lambda db: db.execute("SELECT expected FROM outcomes").fetchall())
        return {text for (text,) in rows}

    damaged = Path(bench.manifest("damaged"))
    damaged.write_bytes(b"no manifest")
    await bench.store.prune(time.time() + 60)
    assert await known() == {kept.blob, gone.blob}, "the damaged one may name any blob"
    damaged.unlink()
    await bench.store.prune(time.time() + 60)
    assert await known() == {kept.blob}
    await bench.store.uses.flush()
    rows = await bench.catalog.read(lambda db: db.execute("SELECT name FROM uses").fetchall())
    assert rows == [("kept",)]
    bench.close()


async def test_a_restart_reports_what_it_found(tmp_path: Path) -> None:
    root, path = str(tmp_path / "models"), str(tmp_path / "f.gguf")
    Path(path).write_bytes(b"weights")
    store = Store.open(root, SETTINGS)
    added = await store.add(path, name="a")
    assert store.free_bytes > 0
    Path(store.layout.staging, "left").write_bytes(b"x")
    store.close()
    os.unlink(added.path)
    store = Store.open(root, SETTINGS)
    assert store.recovery.staging_removed == 1
    assert store.recovery.models_failed == ("a",)
    assert [view.state for view in store.index.page(None, None).models] == ["failed"]
    with pytest.raises(NotFound):
        store.models.view("b")
    store.close()


ADDING = """
    import json, os, sys
    import anyio
    from contextlib import asynccontextmanager
    from modeld.config import StoreSettings
    from modelwire.units import Size
    from modeld.store import Store
    from modeld.platform import locks
    from modeld.store.publish import name_locks, publisher
    from modelwire.errors import WireError

    root, jobs = sys.argv[1], json.loads(sys.argv[2])

    # Every lock is a no-op: the store's, the names', the turns.
    locks.fcntl.flock = lambda *_: None
    @asynccontextmanager
    async def no_lock(*_, **__):
        yield
    name_locks.NameLocks.held = no_lock
    publisher.Publisher.turn = no_lock

    async def main():
        store = Store.open(root, StoreSettings(min_free=Size(0)))
        print("ready", flush=True)
        sys.stdin.readline()
        outcomes = []
        for name, path in jobs:
            try:
                outcomes.append((await store.add(path, name=name)).blob)
            except WireError as fault:
                outcomes.append(fault.code)
        print(json.dumps(outcomes), flush=True)

    anyio.run(main)
"""


@pytest.mark.parametrize("sharing", ["the same content", "different contents"])
def test_eight_processes_without_any_lock(tmp_path: Path, sharing: str) -> None:
    """Each adds ten models of its own and ten that all of them add."""
    root = str(tmp_path / "models")
    Store.open(root, SETTINGS).close()
    work: list[str] = []
    for process in range(8):
        jobs = []
        for number in range(10):
            path = tmp_path / f"{process}-{number}.gguf"
            own = b"" if sharing == "the same content" else b"%d" % process
            path.write_bytes(b"content %d " % number + own)
            jobs += [(f"own-{process}-{number}", str(path)), (f"shared-{number}", str(path))]
        work.append(json.dumps(jobs))
    processes: list[subprocess.Popen[str]] = []
    outcomes: list[list[str]] = []
    try:
        for jobs_of_one in work:
            started = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(ADDING), root, jobs_of_one],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            processes.append(started)
            # Opened one after the other: a start sweeps the staging directory, and only the store's lock, which is
            # taken away here, keeps that from being another's.
            assert started.stdout is not None
            assert started.stdout.readline() == "ready\n"
        for started in processes:
            assert started.stdin is not None
            started.stdin.write("\n")
            started.stdin.flush()
        for started in processes:
            output, _ = started.communicate(timeout=90)
            outcomes.append(json.loads(output))
    finally:
        for started in processes:
            started.kill()
            started.communicate()

    store = Store.open(root, SETTINGS)
    assert len(store.index.page(None, None).models) == 90
    for view in store.index.page(None, None).models:
        assert view.path is not None
        assert "sha256:" + hashlib.sha256(Path(view.path).read_bytes()).hexdigest() == view.blob
    assert store.recovery.staging_removed == 0
    for number in range(10):
        shared = store.index.resolve(ModelName.parse(f"shared-{number}").text).blob
        answers = [outcome[2 * number + 1] for outcome in outcomes]
        assert {answer for answer in answers if answer != "already_exists"} == {shared}
        if sharing == "the same content":
            assert answers.count("already_exists") == 0
        else:
            assert answers.count("already_exists") == 7
        assert all(outcome[2 * number] != "already_exists" for outcome in outcomes)
    store.close()
