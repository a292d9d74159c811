"""An answer without a look at the disk: only while nothing that it depends on has changed."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from modeld.store.manifests.index import Index
from modeld.store.names import ModelName
from modelwire.errors import WireError
from rigs.waiting import eventually
from rigs.watched import Watched, mounted, placed_watches


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    made.put("llama", b"abc")
    made.put("other", b"xyz")
    made.age()
    yield made
    made.index.current.close()


def truncate_through_another_name(shelf: Watched) -> None:
    os.link(shelf.blob_path, shelf.above / "link")
    list(map(shelf.index.current.answer, ["llama"]))
    os.truncate(shelf.above / "link", 1)


def replace_directory(path: str) -> None:
    os.rename(path, f"{path}-old")
    os.mkdir(path)


def write_through_a_mapping(shelf: Watched) -> None:
    """Reported when the file is closed: the mapping itself is no call that the system could report."""
    with open(shelf.blob_path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        list(map(shelf.index.current.answer, ["llama"]))
        mapped[0:1] = b"X"


def write_and_hide_it(shelf: Watched) -> None:
    info = os.stat(shelf.blob_path)
    Path(shelf.blob_path).write_bytes(b"X" * info.st_size)
    os.utime(shelf.blob_path, ns=(info.st_atime_ns, info.st_mtime_ns))


CHANGES: dict[str, Callable[[Watched], object]] = {
    "the manifest is removed": lambda shelf: os.unlink(f"{shelf.layout.manifests_dir}/llama.json"),
    "the manifest is replaced": lambda shelf: shelf.put("llama", b"new"),
    "the manifest is written in place": lambda shelf: Path(f"{shelf.layout.manifests_dir}/llama.json").write_text("{"),
    "the directory of manifests is replaced": lambda shelf: replace_directory(shelf.layout.manifests_dir),
    "the blob is removed": lambda shelf: os.unlink(shelf.blob_path),
    "the blob is moved away": lambda shelf: os.rename(shelf.blob_path, shelf.above / "blob"),
    "the blob is replaced": lambda shelf: os.rename(shelf.put_file("x", b"longer"), shelf.blob_path),
    "the blob is replaced by one of its size": lambda shelf: os.rename(shelf.put_file("x", b"uvw"), shelf.blob_path),
    "the blob is written in place": write_and_hide_it,
    "the blob is written through a mapping": write_through_a_mapping,
    "the blob is cut": lambda shelf: os.truncate(shelf.blob_path, 0),
    "the blob is cut through another name": truncate_through_another_name,
    "the blob's directory is moved": lambda shelf: replace_directory(os.path.dirname(shelf.blob_path)),
    "a fan-out directory is moved": lambda shelf: replace_directory(os.path.dirname(os.path.dirname(shelf.blob_path))),
    "all blobs are moved": lambda shelf: replace_directory(f"{shelf.layout.root}/blobs"),
    "the root is moved": lambda shelf: os.rename(shelf.layout.root, f"{shelf.layout.root}-old"),
    "a directory above the root is moved": lambda shelf: os.rename(shelf.above, f"{shelf.above}-old"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_what_changes_is_looked_at_again(shelf: Watched, change: Callable[[Watched], object]) -> None:
    await shelf.know()
    before = await shelf.outcome()
    change(shelf)
    assert shelf.index.current.answer("llama") is None
    assert await shelf.outcome() != before


async def test_a_change_of_rights_above_is_looked_at_again(shelf: Watched) -> None:
    await shelf.know()
    shelf.above.chmod(0o700)
    assert shelf.index.current.answer("llama") is None
    await shelf.know()


async def test_a_filesystem_that_is_mounted_over_the_store_is_noticed(tmp_path: Path) -> None:
    for number, name in enumerate(("plain", "with a space", "back\\slash")):
        shelf = Watched(tmp_path / name)
        shelf.put("llama", b"abc")
        shelf.age()
        for at in (tmp_path / name, shelf.above, Path(shelf.layout.blobs_dir)):
            await shelf.know()
            with mounted(at):
                assert shelf.index.current.answer("llama") is None, (number, at)
                assert isinstance(await shelf.outcome(), str)
            await shelf.know()
        shelf.index.current.close()


async def test_a_filesystem_that_is_mounted_elsewhere_changes_nothing(shelf: Watched, tmp_path: Path) -> None:
    """Containers mount and unmount all the time: no answer waits for a disk because of them."""
    elsewhere = (tmp_path / "elsewhere", tmp_path / "above more", shelf.above / "other")
    await shelf.know()
    for at in elsewhere:
        at.mkdir()
        with mounted(at):
            assert shelf.index.current.answer("llama") is not None, at
        assert shelf.index.current.answer("llama") is not None, at


async def test_what_stays_as_it_is_needs_no_look(shelf: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    await shelf.know()
    shelf.put("third", b"third")
    os.unlink(f"{shelf.layout.manifests_dir}/other.json")
    monkeypatch.setattr(os, "lstat", None)
    found = shelf.index.current.answer("llama")
    assert found is not None
    assert found.path == shelf.blob_path
    assert shelf.index.current.answer("LLAMA") is None  # another spelling is found by a look


async def test_a_change_during_the_look_wins(shelf: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look may have seen what was before it."""
    await shelf.index.look_up("llama")
    place = shelf.index.current.place

    def place_and_change(*arguments: object) -> object:
        placed = place(*arguments)  # type: ignore[arg-type]
        shelf.put("other", b"new")
        return placed

    monkeypatch.setattr(type(shelf.index.current), "place", lambda _, *arguments: place_and_change(*arguments))
    for _ in range(3):
        await shelf.index.look_up("llama")
        assert shelf.index.current.answer("llama") is None
    monkeypatch.undo()
    await shelf.know()


async def test_two_models_of_one_blob_lose_it_together(shelf: Watched) -> None:
    shelf.put("twin", b"abc")
    shelf.age()
    await shelf.know()
    await shelf.know("twin")
    os.unlink(f"{shelf.layout.manifests_dir}/twin.json")
    assert shelf.index.current.answer("twin") is None
    assert shelf.index.current.answer("llama") is not None
    os.unlink(shelf.blob_path)
    assert shelf.index.current.answer("llama") is None


@pytest.mark.parametrize("end", ["refused", "cancelled", "changed"])
async def test_a_look_that_is_not_kept_leaves_no_watch(
    shelf: Watched, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    await shelf.know("other")
    await shelf.index.look_up("llama")
    # The directory above the blob stays watched: other models share it.
    shelf.index.current.leave(shelf.index.current.place(ModelName.parse("llama"), shelf.blob_path))
    before = placed_watches()
    if end == "refused":
        os.unlink(shelf.blob_path)
        with pytest.raises(WireError, match="cannot be used"):
            await shelf.index.look_up("llama")
    elif end == "cancelled":
        looking, released = threading.Event(), threading.Event()
        resolve = shelf.index.resolve

        def held(*arguments: object) -> object:
            looking.set()
            released.wait(20)
            return resolve(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(shelf.index, "resolve", held)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(shelf.index.look_up, "llama")
            await eventually(looking.is_set)
            assert placed_watches() == before + 2
            tasks.cancel_scope.cancel()
        released.set()
    else:
        place = shelf.index.current.place

        def place_and_change(*arguments: object) -> object:
            placed = place(*arguments)  # type: ignore[arg-type]
            shelf.put("third", b"new")
            return placed

        monkeypatch.setattr(type(shelf.index.current), "place", lambda _, *arguments: place_and_change(*arguments))
        await shelf.index.look_up("llama")
    await eventually(lambda: placed_watches() == before)


async def test_only_so_many_are_known(shelf: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modeld.store.manifests.current.MOST", 1)
    await shelf.know()
    await shelf.know("other")
    assert shelf.index.current.answer("llama") is None
    await shelf.know()


async def test_without_watches_each_answer_is_a_look(shelf: Watched) -> None:
    unwatched = Index(shelf.layout)
    unwatched.current.close()
    for _ in range(3):
        assert (await unwatched.look_up("llama")).name == "llama"
    assert unwatched.current.answer("llama") is None
