"""The whole store moves while others read it: nobody misses a model, and what comes afterwards is in the new place."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modeld.progress import JobProgress, Stopped
from modeld.store import Digest, ModelName, Store
from modeld.store.catalog.catalog import Catalog
from modelwire.errors import (
    AlreadyExists,
    InvalidRequest,
    NoSpace,
)
from modelwire.knowledge.document import built
from rigs.moving_rig import SETTINGS, Readers, digest_of, faults, fill, move, opened, path_of


async def test_readers_miss_nothing_and_the_store_goes_on_there(root: str, target: str, sources: str) -> None:
    with opened(root) as store:
        contents = await fill(store, sources)
        before = {name: await path_of(store, name) for name in contents}
        with Readers(root, contents) as readers:
            moved = await move(store, target)
            assert faults(root, contents) == []
        assert readers.rounds
        assert readers.wrong == []
        assert os.readlink(root) == target
        assert (moved.path, moved.former, moved.models, moved.blobs) == (target, f"{root}.old", 4, 4)
        assert {name: await path_of(store, name) for name in contents} == before

        await store.add(os.path.join(sources, "big.gguf"), name="again")
        assert os.path.exists(f"{target}/manifests/again.json")
        assert not os.path.exists(f"{moved.former}/manifests/again.json")
        assert [verified.ok for verified in (await store.verifier.verify(None)).models] == [True] * 5
    with opened(root) as store:
        assert {name: await path_of(store, name) for name in contents} == before
        assert store.recovery.models_failed == ()
    assert faults(moved.former, contents) == [], "the old directory is as it was"


async def test_no_blob_is_hashed_again_afterwards(root: str, target: str, sources: str) -> None:
    with opened(root) as store:
        contents = await fill(store, sources)
        moved = await move(store, target)
        for name in ("big", "small", "same"):
            await store.look_up(name)  # WouldBlock when it has to be verified first
    with opened(root) as store:
        digests = [Digest(digest_of(content)) for content in contents.values()]
        assert store.ingest.records.hashed_at(digests).keys() == set(digests)
        for name in ("big", "small", "same"):
            await store.look_up(name)
    assert moved.size_bytes == sum(map(len, {*contents.values(), b"{}"}))


async def test_the_store_moves_back(root: str, target: str, sources: str) -> None:
    with opened(root) as store:
        contents = await fill(store, sources)
        first = await move(store, target)
        with pytest.raises(AlreadyExists, match="is not empty"):
            await move(store, first.former)
        await store.mover.drop(JobProgress())
        await move(store, first.former)
        assert os.readlink(root) == first.former
        assert faults(root, contents) == []


async def test_a_filesystem_without_hard_links_has_trees_of_symbolic_ones(
    root: str, target: str, sources: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a file that has as many links as its new filesystem allows."""
    link = os.link

    def refuse(source: str, name: str, **options: Any) -> None:
        if name.startswith(target):
            raise OSError(errno.EMLINK, "Too many links", source)
        link(source, name, **options)

    with opened(root) as store:
        contents = await fill(store, sources)
        before = await path_of(store, "several")
        monkeypatch.setattr(os, "link", refuse)
        await move(store, target)
        assert faults(root, contents) == []
        assert os.path.islink(f"{before}/weights.gguf")
        assert await path_of(store, "several") == before


class Changing:
    """Changes the store when the mover is about to be alone, after the copying beside other work."""

    def __init__(self, store: Store, sources: str) -> None:
        self.store, self.sources = store, sources

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        path = os.path.join(self.sources, "late.gguf")
        with open(path, "wb") as file:
            file.write(b"GGUF late")
        await self.store.add(path, name="late")
        await self.store.renaming.remove("small")
        await self.store.renaming.move("same", "renamed")
        yield


async def test_changes_during_the_copying_are_in_the_new_place(root: str, target: str, sources: str) -> None:
    with opened(root) as store:
        contents = await fill(store, sources)
        changing = Changing(store, sources)
        await store.mover.move(target, alone=changing, order=0, progress=JobProgress())
        contents["renamed"], contents["late"] = contents.pop("same"), b"GGUF late"
        del contents["small"]
        assert faults(root, contents) == []
        assert sorted(store.index.names()) == sorted(contents)
    assert sorted(os.listdir(f"{target}/manifests")) == sorted(f"{name}.json" for name in contents)


async def test_what_an_interrupted_move_copied_and_is_gone_since_goes(root: str, target: str, sources: str) -> None:
    """The copy of an earlier try has a manifest that was removed meanwhile."""
    with opened(root) as store:
        contents = await fill(store, sources)
        progress = JobProgress()

        @asynccontextmanager
        async def stopping() -> AsyncIterator[None]:
            yield

        class Refusing:
            async def about_to_publish(self, _: object, /) -> None:
                raise NoSpace("no room for the record")

            async def published(self, _: object, /) -> None: ...

        with pytest.raises(NoSpace, match="no room for the record"):
            await store.mover.move(target, alone=stopping, order=0, progress=progress, notes=Refusing())  # type: ignore[arg-type]
        assert os.path.exists(f"{target}/manifests/small.json")
        assert not os.path.islink(root)
        await store.renaming.remove("small")
        del contents["small"]
        await move(store, target)
        assert sorted(store.index.names()) == sorted(contents)
        assert faults(root, contents) == []


async def test_a_stop_leaves_the_store_and_the_copy(root: str, target: str, sources: str) -> None:
    with opened(root) as store:
        contents = await fill(store, sources)
        progress = JobProgress()
        progress.stop_reason = "cancel"
        with pytest.raises(Stopped):
            await move(store, target, progress)
        assert not os.path.islink(root)
        await move(store, target)
        assert faults(root, contents) == []


async def test_modes_are_kept_private_and_readable(root: str, target: str, sources: str) -> None:
    before = os.umask(0o077)
    try:
        with opened(root) as store:
            contents = await fill(store, sources)
            await move(store, target)
    finally:
        os.umask(before)
    blob = f"{target}/blobs/sha256/{digest_of(contents['big'])[:2]}/{digest_of(contents['big'])}/data"
    assert stat.S_IMODE(os.stat(target).st_mode) == 0o755
    assert stat.S_IMODE(os.stat(blob).st_mode) == 0o444
    assert stat.S_IMODE(os.stat(f"{target}/manifests/big.json").st_mode) == 0o644
    assert stat.S_IMODE(os.stat(f"{target}/.modeld/catalog.sqlite").st_mode) == 0o600


async def test_a_manifest_that_became_a_link_is_not_there_afterwards(root: str, target: str, sources: str) -> None:
    with opened(root) as store:
        contents = await fill(store, sources)

        @asynccontextmanager
        async def refusing() -> AsyncIterator[None]:
            shutil.copy(f"{root}/manifests/small.json", f"{target}/manifests/small.json")
            raise NoSpace("as if it was killed after the manifests")
            yield

        with pytest.raises(NoSpace):
            await store.mover.move(target, alone=refusing, order=0, progress=JobProgress())
        os.unlink(f"{root}/manifests/small.json")
        os.symlink("same.json", f"{root}/manifests/small.json")
        await move(store, target)
        assert not os.path.lexists(f"{target}/manifests/small.json")
        del contents["small"]
        assert faults(root, contents) == []


async def test_the_same_request_again_is_success(root: str, target: str, sources: str) -> None:
    with opened(root) as store:
        contents = await fill(store, sources)
        first = await move(store, target)
        again = await move(store, target)
        assert (again.path, again.former, again.models) == (first.path, first.former, 4)
        await store.mover.drop(JobProgress())
        with pytest.raises(InvalidRequest, match=r"is in .* already"):
            await move(store, target)
        assert faults(root, contents) == []


async def test_the_new_lock_says_where_the_daemon_listens(root: str, target: str) -> None:
    layout, lock = Store.claim(root, SETTINGS, endpoint="/run/modeld/modeld.sock")
    catalog = Catalog.open(layout.catalog_path)
    store = Store.open(root, SETTINGS, catalog, lock=lock)
    await move(store, target)
    assert '"endpoint":"/run/modeld/modeld.sock"' in Path(f"{target}/.modeld/lock").read_text()
    store.close()
    catalog.close()


async def test_models_without_bytes_are_noted(root: str, target: str, sources: str) -> None:
    with opened(root) as store:
        contents = await fill(store, sources)
        os.unlink(store.layout.blob(Digest(digest_of(contents.pop("big")))))
        moved = await move(store, target)
        assert moved.notes == ("without bytes before the move already: big",)
        assert faults(root, contents) == []


async def test_the_rights_of_the_root_are_kept(root: str, target: str, tmp_path: Path) -> None:
    with opened(root) as store:
        os.chmod(root, 0o700)
        await move(store, target)
        assert stat.S_IMODE(os.stat(target).st_mode) == 0o700
        (tmp_path / "own").mkdir(mode=0o750)
        await move(store, str(tmp_path / "own"))
        assert stat.S_IMODE(os.stat(tmp_path / "own").st_mode) == 0o750, "as its owner made it"


async def test_what_a_killed_move_had_copied_in_part_goes(root: str, target: str, sources: str) -> None:
    with opened(root) as store:
        contents = await fill(store, sources)

        @asynccontextmanager
        async def refusing() -> AsyncIterator[None]:
            Path(f"{target}/.modeld/staging/ingest-1-dead.tmp").write_bytes(b"half")
            raise NoSpace("killed")
            yield

        with pytest.raises(NoSpace, match="killed"):
            await store.mover.move(target, alone=refusing, order=0, progress=JobProgress())
        await move(store, target)
        assert os.listdir(f"{target}/.modeld/staging") == []
        assert faults(root, contents) == []


async def test_registrations_follow(root: str, target: str, sources: str) -> None:
    document = msgspec.json.decode(msgspec.json.encode(built("coming", "Coming", "llm")))
    with opened(root) as store:
        await fill(store, sources)
        await store.registering.register(ModelName.parse("coming"), document)
        await move(store, target)
        assert os.path.exists(f"{target}/.modeld/registered/coming.json")
        await store.registering.register(ModelName.parse("later"), document)
    with opened(root) as store:
        assert [(each.name, each.model) for each in store.registrations.all()] == [
            ("coming", document),
            ("later", document),
        ]
