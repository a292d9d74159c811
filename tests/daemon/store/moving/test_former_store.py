"""The directories that a store was in before it moved: dropped, left alone, put back."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from modeld.progress import JobProgress
from modelwire.errors import (
    Interrupted,
    NotFound,
    Unsupported,
)
from rigs.moving_rig import faults, fill, move, nobody_else, opened


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
