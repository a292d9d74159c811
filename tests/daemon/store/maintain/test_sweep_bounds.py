"""A sweep follows no link, and touches nothing that is not the store's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modeld.store.digest import Digest
from modeld.store.maintain import sweep as sweep_module
from rigs.maintain_rig import DAY, Bench, kinds, later


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, byte_threads=2)
    yield made
    made.close()


# -- never through a link


async def test_no_link_is_followed_on_the_walk(bench: Bench, tmp_path: Path) -> None:
    """Links in place of each directory and of the file: what they lead to is not the store's."""
    digests = [bench.plant(bytes([number])) for number in range(4)]
    outside = tmp_path / "outside"
    outside.mkdir()
    paths = [Path(bench.layout.blob(digest)) for digest in digests]
    for number, path in enumerate(paths):
        moved = outside / str(number)
        target = (path, path.parent, path.parent.parent)[min(number, 2)]
        os.rename(target, moved)
        os.symlink(moved, target)
    for name in ("staging", "quarantine"):
        directory = bench.layout.staging if name == "staging" else bench.layout.quarantine_dir
        precious = outside / name
        precious.mkdir()
        (precious / "20200101T000000Z-x.bin").write_bytes(b"precious")
        os.symlink(precious, f"{directory}/20200101T000000Z-{name}.bin")
    before = sorted(str(path) for path in outside.rglob("*"))
    later(bench, 100 * DAY)
    swept = await bench.store.sweeper.sweep()
    assert sorted(str(path) for path in outside.rglob("*")) == before
    assert {victim.kind for victim in swept.victims} == {"staging", "quarantine"}
    assert any("is not a regular file" in note for note in swept.notes)


@pytest.mark.parametrize("depth", [1, 2])
async def test_a_link_that_is_put_there_after_the_walk_is_not_followed(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: int
) -> None:
    digest = bench.plant(b"x")
    path = Path(bench.layout.blob(digest))
    directory = path.parents[depth - 1]
    outside = tmp_path / "outside"
    real = sweep_module.Sweeper._remove_some

    def swapped(self: Any, *arguments: Any) -> Any:
        os.rename(directory, outside)
        os.symlink(outside, directory)
        return real(self, *arguments)

    monkeypatch.setattr(sweep_module.Sweeper, "_remove_some", swapped)
    swept = await bench.store.sweeper.sweep()
    assert swept.victims == ()
    assert swept.removed == 0
    assert swept.notes
    assert next(outside.rglob("data")).read_bytes() == b"x"


async def test_another_file_under_the_same_name_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = bench.plant(b"x")
    path = bench.layout.blob(digest)
    real = sweep_module.Sweeper._remove_some

    def swapped(self: Any, *arguments: Any) -> Any:
        os.unlink(path)
        Path(path).write_bytes(b"new")
        return real(self, *arguments)

    monkeypatch.setattr(sweep_module.Sweeper, "_remove_some", swapped)
    assert (await bench.store.sweeper.sweep()).victims == ()
    assert Path(path).read_bytes() == b"new"


async def test_what_is_not_the_stores_own_is_left_alone(bench: Bench) -> None:
    strangers = [
        Path(bench.layout.blobs_dir) / "zz" / "file",
        Path(bench.layout.blobs_dir) / "aa" / "not-a-digest" / "data",
        Path(bench.layout.blobs_dir) / "aa" / ("b" * 64) / "data",
        Path(bench.root) / "blobs" / "md5" / "x",
        Path(bench.root) / "locks" / "theirs.lock",
        Path(bench.root) / "readme",
    ]
    for path in strangers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"theirs")
    later(bench, 1000 * DAY)
    swept = await bench.store.sweeper.sweep()
    assert all(path.exists() for path in strangers)
    (note,) = swept.notes
    assert note.startswith("not of this store, and left alone: ")
    for part in (
        "blobs/md5",
        "blobs/sha256/zz",
        "blobs/sha256/aa/not-a-digest",
        f"blobs/sha256/aa/{'b' * 64}",
        "readme",
    ):
        assert part in note
    assert "theirs.lock" not in note, "the locks of names are shared with other tools"


async def test_of_many_strangers_some_are_named_and_all_are_counted(bench: Bench) -> None:
    for number in range(25):
        (Path(bench.root) / f"other-{number:02d}").write_bytes(b"")
    (note,) = (await bench.store.sweeper.sweep(dry_run=True)).notes
    assert "other-00" in note
    assert note.endswith(" and 15 more")


async def test_what_is_on_its_way_is_not_strange(bench: Bench) -> None:
    """A directory that waits for its blob, or has lost it."""
    os.makedirs(os.path.dirname(bench.layout.blob(Digest("aa" * 32))))
    assert (await bench.store.sweeper.sweep()).notes == ()


async def test_what_others_keep_beside_a_blob_stays(bench: Bench) -> None:
    path = Path(bench.layout.blob(bench.plant(b"x")))
    (path.parent / "notes.txt").write_text("theirs")
    assert kinds(await bench.store.sweeper.sweep()) == [("blob", 1)]
    assert (path.parent / "notes.txt").read_text() == "theirs"
