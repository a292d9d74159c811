"""The whole store moves while others read it: nobody misses a model, and what comes afterwards is in the new place."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from modeld.progress import JobProgress, Stopped
from modeld.store import Digest, Store
from modeld.store.catalog.catalog import Catalog
from modeld.store.disk.locks import NameLock
from modeld.store.maintain.walk import Unusable
from modeld.store.moving import blob_copies
from modelwire.errors import (
    AlreadyExists,
    Corrupt,
    Internal,
    Interrupted,
    InUse,
    InvalidRequest,
    NoSpace,
    NotFound,
    PermissionDenied,
    SourceNotFound,
    Unsupported,
)
from rigs.moving_rig import SETTINGS, Readers, digest_of, faults, fill, move, nobody_else, opened, path_of


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "models")


@pytest.fixture
def target(tmp_path: Path) -> str:
    (tmp_path / "big").mkdir()
    return str(tmp_path / "big" / "models")


@pytest.fixture
def sources(tmp_path: Path) -> str:
    (tmp_path / "sources").mkdir()
    return str(tmp_path / "sources")


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


async def test_a_second_move_replaces_the_link(root: str, target: str, sources: str, tmp_path: Path) -> None:
    with opened(root) as store:
        contents = await fill(store, sources)
        await move(store, target)
        moved = await move(store, str(tmp_path / "third"))
        assert (os.readlink(root), moved.former) == (str(tmp_path / "third"), target)
        assert faults(root, contents) == []
        dropped = await store.mover.drop(JobProgress())
        assert dropped.former == target
        assert dropped.blobs == 8
        assert sorted(os.listdir(tmp_path)) == ["big", "models", "sources", "third"]
        assert os.listdir(tmp_path / "big") == []
        assert faults(root, contents) == []


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


# -- what changes meanwhile


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


# -- what does not let it move


@pytest.mark.parametrize("inner", [True, False])
async def test_inside_itself_is_refused(root: str, tmp_path: Path, inner: bool) -> None:
    with opened(root) as store:
        with pytest.raises(InvalidRequest, match="lies inside"):
            await move(store, f"{root}/deeper" if inner else str(tmp_path))
        with pytest.raises(InvalidRequest, match="already"):
            await move(store, root)
        assert os.listdir(tmp_path) == ["models"]


async def test_a_directory_with_something_in_it_is_refused(root: str, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with opened(root) as store:
        with pytest.raises(AlreadyExists, match=r"is not empty: it has thesis\.txt"):
            await move(store, str(tmp_path / "full"))
        with pytest.raises(InvalidRequest, match="is no directory"):
            await move(store, str(tmp_path / "file"))
        with pytest.raises(SourceNotFound, match="is not there"):
            await move(store, str(tmp_path / "unmounted" / "models"))
    assert os.listdir(tmp_path / "full") == ["thesis.txt"]


async def test_a_path_that_no_note_can_name_is_refused(target: str, tmp_path: Path) -> None:
    with opened(str(tmp_path / os.fsdecode(b"mod\xffels"))) as store:
        with pytest.raises(Unsupported, match="is not UTF-8"):
            await move(store, target)
        assert not os.path.exists(target)


async def test_an_empty_filesystem_is_a_place(root: str, target: str, sources: str) -> None:
    os.makedirs(f"{target}/lost+found")
    with opened(root) as store:
        contents = await fill(store, sources)
        await move(store, target)
        assert faults(root, contents) == []


async def test_another_stores_copy_is_not_gone_on_with(root: str, target: str, tmp_path: Path) -> None:
    os.makedirs(f"{target}/.modeld")
    Path(f"{target}/.modeld/moving").write_text('{"root": "/somewhere/else"}')
    with opened(root) as store:
        with pytest.raises(AlreadyExists, match="unfinished copy of the store at /somewhere/else"):
            await move(store, target)


async def test_a_damaged_blob_of_a_model_stops_it(root: str, target: str, sources: str) -> None:
    with opened(root) as store:
        contents = await fill(store, sources)
        blob = store.layout.blob(Digest(digest_of(contents["big"])))
        os.chmod(blob, 0o644)
        with open(blob, "r+b") as file:
            file.seek(1 << 20)
            file.write(b"rot")
        with pytest.raises(Corrupt, match="'big' cannot be copied") as refusal:
            await move(store, target)
        assert "modelctl verify big" in str(refusal.value.hint)
        assert not os.path.islink(root)
        await store.verifier.verify(["big"])
        moved = await move(store, target)
        assert moved.models == 4
        with pytest.raises(Corrupt, match="cannot be used"):
            await store.look_up("big")
        del contents["big"]
        assert faults(root, contents) == []


async def test_a_program_that_writes_a_model_is_waited_for(root: str, target: str, sources: str) -> None:
    with opened(root) as store:
        contents = await fill(store, sources)
        lock = NameLock.take(f"{root}/locks/foreign.lock")
        assert lock is not None
        with pytest.raises(InUse, match="writes a model"):
            await move(store, target)
        lock.release()
        await move(store, target)
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


async def test_two_at_once_are_refused(root: str, target: str, sources: str, tmp_path: Path) -> None:
    with opened(root) as store:
        await fill(store, sources)

        @asynccontextmanager
        async def trying_again() -> AsyncIterator[None]:
            with pytest.raises(InUse, match="being moved already"):
                await move(store, str(tmp_path / "other"))
            with pytest.raises(InUse, match="being moved already"):
                await store.mover.drop(JobProgress())
            yield

        await store.mover.move(target, alone=trying_again, order=0, progress=JobProgress())


async def test_a_mount_point_cannot_become_a_link(target: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    root = f"{target}-mounted"
    os.mkdir(root)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "modeld", root], check=True)
    try:
        with opened(root) as store:
            with pytest.raises(Unsupported, match="is where a filesystem is mounted") as refusal:
                await move(store, target)
            assert "symbolic link" in str(refusal.value.hint)
            assert not os.path.exists(target)
    finally:
        subprocess.run(["umount", root], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
async def test_a_full_target_leaves_the_store_where_it_is(root: str, target: str, sources: str) -> None:
    os.mkdir(target)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "modeld", target], check=True)
    try:
        with opened(root) as store:
            contents = await fill(store, sources)
            with pytest.raises(NoSpace, match="bytes are needed"):
                await move(store, f"{target}/models")
            # Enough at the first look, and not when it is written.
            subprocess.run(["mount", "-o", "remount,size=8m", target], check=True)
            with open(f"{target}/other", "wb") as file:
                os.posix_fallocate(file.fileno(), 0, 1 << 20)
            with pytest.raises(NoSpace):
                await store.mover.move(f"{target}/models", alone=Filling(target), order=0, progress=JobProgress())
            assert faults(root, contents) == []
            assert not os.path.islink(root)
            os.unlink(f"{target}/other")
            subprocess.run(["mount", "-o", "remount,size=64m", target], check=True)
            await move(store, f"{target}/models")
            assert faults(root, contents) == []
        with opened(root) as store:
            assert faults(root, contents) == []
        shutil.rmtree(f"{target}/models")
    finally:
        subprocess.run(["umount", target], check=True)


class Filling:
    def __init__(self, target: str) -> None:
        self.target = target

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        """Leaves the filesystem without a byte, when the blobs are there already."""
        async with nobody_else():
            with open(f"{self.target}/other", "ab") as file:
                free = os.fstatvfs(file.fileno())
                os.posix_fallocate(file.fileno(), 1 << 20, free.f_bavail * free.f_frsize)
            yield


# -- the former directory


async def test_only_what_modeld_made_is_dropped(root: str, target: str, sources: str) -> None:
    with opened(root) as store:
        contents = await fill(store, sources)
        Path(f"{root}/notes.txt").write_text("mine")
        Path(f"{root}/blobs/sha256/README").write_text("mine")
        outside = f"{root}-outside"
        os.mkdir(outside)
        Path(f"{outside}/kept").write_text("mine")
        os.symlink(outside, f"{root}/locks/quarantine/link")
        with pytest.raises(NotFound, match="no former directory"):
            await store.mover.drop(JobProgress())
        moved = await move(store, target)
        dropped = await store.mover.drop(JobProgress())
        assert dropped.notes == (f"what modeld did not make stays in {moved.former}: blobs, notes.txt",)
        assert dropped.freed_bytes >= len(contents["big"])
        left = sorted(
            os.path.join(directory, name)[len(moved.former) + 1 :]
            for directory, _, names in os.walk(moved.former)
            for name in names
        )
        assert left == ["blobs/sha256/README", "notes.txt"]
        assert os.listdir(outside) == ["kept"]
        assert faults(root, contents) == []
        with pytest.raises(NotFound):
            await store.mover.drop(JobProgress())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
async def test_nothing_is_removed_from_what_is_mounted_inside(
    root: str, target: str, sources: str, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    (elsewhere / "20260101T000000Z-kept.bin").write_text("mine")
    with opened(root) as store:
        await fill(store, sources)
        moved = await move(store, target)
        inside = f"{moved.former}/.modeld/staging/in ner"
        os.mkdir(inside)
        for place in (inside, f"{moved.former}/locks/quarantine"):
            subprocess.run(["mount", "--bind", elsewhere, place], check=True)
            try:
                with pytest.raises(Unsupported, match="is mounted inside") as refusal:
                    await store.mover.drop(JobProgress())
                assert refusal.value.details["path"] == place
            finally:
                subprocess.run(["umount", place], check=True)
        assert len(os.listdir(elsewhere)) == 1
        await store.mover.drop(JobProgress())
        assert not os.path.exists(moved.former)


async def test_another_directory_in_its_place_is_left_alone(root: str, target: str, sources: str) -> None:
    with opened(root) as store:
        contents = await fill(store, sources)
        moved = await move(store, target)
        os.rename(moved.former, f"{moved.former}-renamed")
        shutil.copytree(f"{moved.former}-renamed", moved.former)
        with pytest.raises(Unsupported, match="is not the directory any more"):
            await store.mover.drop(JobProgress())
        assert faults(moved.former, contents) == []
        shutil.rmtree(moved.former)
        assert (await store.mover.drop(JobProgress())).notes == (f"{moved.former} was gone already",)


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


async def test_a_directory_of_blobs_that_the_disk_does_not_return_stops_it(
    root: str, target: str, sources: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> list[Unusable]:
        return [Unusable(("blobs", "sha256", "ab"), "cannot be looked at: Input/output error")]

    with opened(root) as store:
        contents = await fill(store, sources)
        with monkeypatch.context() as disk:
            disk.setattr(blob_copies, "walk", failing)
            with pytest.raises(Internal, match="blobs/sha256/ab cannot be looked at: Input/output error"):
                await move(store, target)
        await move(store, target)
        assert faults(root, contents) == []


async def test_models_without_bytes_are_noted(root: str, target: str, sources: str) -> None:
    with opened(root) as store:
        contents = await fill(store, sources)
        os.unlink(store.layout.blob(Digest(digest_of(contents.pop("big")))))
        moved = await move(store, target)
        assert moved.notes == ("without bytes before the move already: big",)
        assert faults(root, contents) == []


async def test_a_directory_inside_another_store_is_refused(root: str, target: str, sources: str) -> None:
    with opened(root) as store:
        contents = await fill(store, sources)
        moved = await move(store, target)
        with pytest.raises(InvalidRequest, match="which is a store, or was one before a move"):
            await move(store, f"{moved.former}/deeper")
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


async def test_a_former_directory_that_is_put_back_does_not_move_again(root: str, target: str, sources: str) -> None:
    with opened(root) as store:
        contents = await fill(store, sources)
        accepted_at = time.time()
        moved = await move(store, target)
    os.unlink(root)
    os.rename(moved.former, root)
    with opened(root) as store:
        assert faults(root, contents) == []
        with pytest.raises(Interrupted, match="was put back since"):
            await store.mover.move(
                f"{target}-2", alone=nobody_else, order=0, progress=JobProgress(), accepted_at=accepted_at
            )
        assert not os.path.exists(f"{target}-2")
        shutil.rmtree(target)
        await move(store, target)
        assert faults(root, contents) == []


async def test_a_place_that_cannot_be_written_says_so(root: str, tmp_path: Path) -> None:
    with opened(root) as store:
        with pytest.raises(
            (PermissionDenied, Unsupported), match="the store cannot move to /proc/models: /proc/models"
        ):
            await move(store, "/proc/models")
        assert store.mover.former == ()
