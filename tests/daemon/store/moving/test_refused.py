"""What does not let a store move: it says why, and the store stays where it is, whole."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from modeld.progress import JobProgress
from modeld.store import Digest
from modeld.store.disk.locks import NameLock
from modeld.store.maintain.walk import Unusable
from modeld.store.moving import blob_copies
from modelwire.errors import (
    AlreadyExists,
    Corrupt,
    Internal,
    InUse,
    InvalidRequest,
    NoSpace,
    PermissionDenied,
    SourceNotFound,
    Unsupported,
)
from rigs.moving_rig import digest_of, faults, fill, move, nobody_else, opened


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


async def test_a_damaged_blob_stops_it_before_others_wait(root: str, target: str, sources: str) -> None:
    with opened(root) as store:
        contents = await fill(store, sources)
        blob = store.layout.blob(Digest(digest_of(contents["big"])))
        os.chmod(blob, 0o644)
        os.truncate(blob, 100)

        @asynccontextmanager
        async def never() -> AsyncIterator[None]:
            pytest.fail("it was known before")
            yield

        with pytest.raises(Corrupt, match="'big' cannot be copied"):
            await store.mover.move(target, alone=never, order=0, progress=JobProgress())


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


async def test_a_directory_inside_another_store_is_refused(root: str, target: str, sources: str) -> None:
    with opened(root) as store:
        contents = await fill(store, sources)
        moved = await move(store, target)
        with pytest.raises(InvalidRequest, match="which is a store, or was one before a move"):
            await move(store, f"{moved.former}/deeper")
        assert faults(root, contents) == []


async def test_a_place_that_cannot_be_written_says_so(root: str, tmp_path: Path) -> None:
    with opened(root) as store:
        with pytest.raises(
            (PermissionDenied, Unsupported), match="the store cannot move to /proc/models: /proc/models"
        ):
            await move(store, "/proc/models")
        assert store.mover.former == ()
