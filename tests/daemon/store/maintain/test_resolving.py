"""A blob whose file is not as it was when its bytes were last found good is verified before its path is given out."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from modeld.progress import FileProgress
from modeld.store import WouldBlock
from modeld.store.digest import Signature
from modeld.store.disk import durable, links
from modelwire.errors import Corrupt, NoSpace, WireError
from rigs.maintain_rig import Bench

CONTENT = b"GGUF weights"
OTHER = b"GGUF weighty"
FILES = {"one.bin": b"first weights", "two.bin": b"second weights"}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def data(bench: Bench) -> Path:
    (path,) = bench.blobs()
    return Path(path)


def state(bench: Bench, name: str = "a") -> str:
    return {view.name: view.state for view in bench.store.index.page(None, None).models}[name]


def given_out(bench: Bench, name: str = "a") -> bytes:
    """The bytes that a client gets without a wait; raises WouldBlock when they are verified first."""
    return Path(bench.store.index.resolve(name).path).read_bytes()


async def resolved(bench: Bench, name: str = "a") -> bytes:
    return (await shown(bench, name)).read_bytes()


async def shown(bench: Bench, name: str = "a") -> Path:
    return Path((await bench.store.resolver.resolve(name)).path)


async def verifications(bench: Bench, name: str = "a") -> list[str]:
    return [outcome.outcome for outcome in (await bench.store.models.show(name)).history]


def other_bytes_in_place(path: Path) -> None:
    """All that a user can do to hide it: mode, size and time of modification are as before."""
    info = path.stat()
    path.chmod(0o644)
    path.write_bytes(OTHER)
    path.chmod(info.st_mode & 0o7777)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def another_file_over_it(path: Path) -> None:
    other = path.parent.parent / "other"
    other.write_bytes(OTHER)
    shutil.copystat(path, other)
    os.rename(other, path)


def a_moment_earlier_over_it(path: Path) -> None:
    """A file that was there before the blob, with a ctime that is new."""
    other_bytes_in_place(path)
    os.utime(path, ns=(0, 0))


WRITES = [other_bytes_in_place, another_file_over_it, a_moment_earlier_over_it]


def chmod(path: Path) -> None:
    path.chmod(0o644)
    path.chmod(0o444)


def link_outside(path: Path) -> None:
    os.link(path, path.parent.parent / "outside")


def touch(path: Path) -> None:
    os.utime(path)


def copied_back(path: Path) -> None:
    """As a backup that is put back."""
    copy = path.with_name("copy")
    shutil.copy2(path, copy)
    os.rename(copy, path)


HARMLESS = [chmod, link_outside, touch, copied_back]

Change = Callable[[Path], None]


@pytest.mark.parametrize("change", WRITES)
async def test_other_bytes_are_never_given_out(bench: Bench, change: Change) -> None:
    await bench.add("a", CONTENT)
    assert given_out(bench) == CONTENT
    change(data(bench))
    assert state(bench) == "suspect"
    view = bench.store.models.view("a")
    assert view.path is None
    assert "changed since" in str(view.reason)
    with pytest.raises(WouldBlock):
        given_out(bench)
    with pytest.raises(Corrupt):
        await resolved(bench)
    assert state(bench) == "failed"
    assert bench.quarantined() == [OTHER]
    await bench.add("a", CONTENT)
    assert given_out(bench) == CONTENT


@pytest.mark.parametrize("change", HARMLESS)
async def test_the_same_bytes_are_verified_once_and_given_out(bench: Bench, change: Change) -> None:
    await bench.add("a", CONTENT)
    change(data(bench))
    assert state(bench) == "suspect"
    assert await resolved(bench) == CONTENT
    assert (state(bench), given_out(bench)) == ("ready", CONTENT)
    assert await verifications(bench) == ["added", "verified"]
    bench.reopen()
    assert (state(bench), given_out(bench)) == ("ready", CONTENT)


@pytest.mark.parametrize("change", [*WRITES, *HARMLESS])
async def test_a_change_while_no_daemon_runs_is_noticed(bench: Bench, change: Change) -> None:
    await bench.add("a", CONTENT)
    bench.close()
    change(data(bench))
    bench.open()
    with pytest.raises(WouldBlock):
        given_out(bench)
    assert state(bench) == "suspect"


@pytest.mark.parametrize("change", WRITES)
async def test_a_change_is_noticed_first_by_whoever_looks_first(bench: Bench, change: Change) -> None:
    """Also by a list of many, which asks the catalogue once."""
    for name in ("a", "b"):
        await bench.add(name, CONTENT)
    bench.reopen()
    change(data(bench))
    assert [view.state for view in bench.store.index.page(None, 1).models] == ["suspect"]
    assert (await bench.store.models.show("b")).state == "suspect"


@pytest.mark.parametrize("change", WRITES)
async def test_bytes_of_another_tool_are_believed_until_they_change(bench: Bench, change: Change) -> None:
    bench.write_manifest("a", {"m.bin": CONTENT})
    Path(bench.manifest("a")).write_text(Path(bench.manifest("a")).read_text().replace('"files"', '"x-files"'))
    assert given_out(bench) == CONTENT
    change(data(bench))
    with pytest.raises(WouldBlock):
        given_out(bench)
    with pytest.raises(Corrupt):
        await resolved(bench)


async def test_without_the_catalogue_no_model_waits_for_a_verification(bench: Bench) -> None:
    await bench.add("a", CONTENT)
    bench.close()
    for path in Path(bench.layout.private).glob("catalog*"):
        path.unlink()
    bench.open()
    assert (state(bench), given_out(bench)) == ("ready", CONTENT)
    assert await verifications(bench) == []


async def test_a_program_that_still_writes_keeps_the_path_back(bench: Bench) -> None:
    """What it writes to pages that it has written to before changes no time."""
    await bench.add("a", CONTENT)
    data(bench).chmod(0o644)
    with open(data(bench), "r+b"), pytest.raises(WireError, match="open for writing"):
        await resolved(bench)
    assert state(bench) == "suspect"
    assert await resolved(bench) == CONTENT


async def test_all_names_of_the_same_bytes_are_asked_for_at_once_and_these_are_hashed_once(bench: Bench) -> None:
    await bench.add("a", CONTENT)
    names = ["a", "b", "c", "d"]
    for name in names[1:]:
        await bench.store.renaming.copy("a", name)
    os.utime(data(bench))
    before = await verifications(bench)
    async with anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(resolved, bench, name)
    assert len(await verifications(bench)) == len(before) + 1
    assert [state(bench, name) for name in names] == ["ready"] * 4


async def test_one_changed_file_of_several_makes_the_model_suspect(bench: Bench) -> None:
    bench.write_manifest("a", FILES)
    await shown(bench)
    first, _ = bench.blobs()
    chmod(Path(first))
    assert state(bench) == "suspect"
    await shown(bench)
    assert state(bench) == "ready"


async def test_what_the_store_itself_does_to_links_is_no_change(bench: Bench) -> None:
    """Trees are hard links to blobs, and a move takes a link away: each changes the blob's time of change."""
    await bench.add("alone", FILES["one.bin"])
    source = bench.directory / "both"
    source.mkdir()
    for path, content in FILES.items():
        (source / path).write_bytes(content)
    await bench.store.add(str(source), name="both", how="move")
    assert [state(bench, name) for name in ("alone", "both")] == ["ready", "ready"]
    await shown(bench, "both")
    await bench.store.renaming.copy("both", "again")
    await shown(bench, "again")
    await bench.store.renaming.remove("both")
    assert [state(bench, name) for name in ("alone", "again")] == ["ready", "ready"]
    bench.reopen()
    assert [state(bench, name) for name in ("alone", "again")] == ["ready", "ready"]


async def test_links_of_a_tree_that_could_not_be_made_are_no_change(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.add("alone", FILES["one.bin"])
    bench.write_manifest("a", FILES)
    trees = bench.store.index.trees
    make = trees._make_directory

    def full_at_the_end(path: str) -> None:
        if path.startswith(bench.layout.trees):
            raise OSError(errno.ENOSPC, "full")
        make(path)

    monkeypatch.setattr(trees, "_make_directory", full_at_the_end)
    with pytest.raises(NoSpace):
        await shown(bench)
    assert state(bench, "alone") == "ready"
    monkeypatch.undo()
    await shown(bench)
    bench.reopen()
    assert [state(bench, name) for name in ("a", "alone")] == ["ready", "ready"]


async def test_a_link_of_a_tree_hides_no_change_of_bytes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program writes between the two looks at the blob that gets a link."""
    bench.write_manifest("a", FILES)
    changed = bench.layout.blob(bench.plant(FILES["one.bin"]))
    assert state(bench) == "ready"
    link = links.link_or_symlink

    def link_and_write(target: str, *rest: Any, **named: Any) -> bool:
        made = link(target, *rest, **named)
        if target == changed:
            Path(target).write_bytes(b"other weights")
        return made

    monkeypatch.setattr(links, "link_or_symlink", link_and_write)
    with suppress(Corrupt):  # it is noticed by this request, or by the next
        await shown(bench)
    monkeypatch.setattr(links, "link_or_symlink", link)
    with pytest.raises(Corrupt):
        await shown(bench)


async def test_another_number_of_the_device_is_no_change(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of a device may be another after each start of the machine."""
    await bench.add("a", CONTENT)
    bench.reopen()
    of = Signature.of

    def elsewhere(status: os.stat_result) -> Signature:
        found = of(status)
        return Signature(found.device + 1, found.inode, found.size, found.mtime_ns, found.ctime_ns)

    monkeypatch.setattr(Signature, "of", elsewhere)
    assert (state(bench), given_out(bench)) == ("ready", CONTENT)
    assert (await bench.store.models.show("a")).verified_at is not None


async def test_a_pull_that_finds_an_unrecorded_blob_records_it(bench: Bench) -> None:
    """The verification makes the file read-only, which is a change too."""
    bench.write_manifest("a", {"m.bin": CONTENT})
    Path(bench.manifest("a")).write_text(Path(bench.manifest("a")).read_text().replace('"files"', '"x-files"'))
    assert state(bench) == "ready"
    assert await bench.store.ingest.find_here(bench.plant(CONTENT), FileProgress()) is not None
    assert data(bench).stat().st_mode & 0o777 == 0o444
    assert state(bench) == "ready"


async def test_bytes_that_were_written_to_at_their_naming_are_suspect(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = durable.name_without_replacing

    def name_and_write(temporary: str, final: str) -> bool:
        named = name(temporary, final)
        if final.endswith("/data"):
            other_bytes_in_place(Path(final))
            os.utime(final, ns=(0, 0))
        return named

    monkeypatch.setattr(durable, "name_without_replacing", name_and_write)
    await bench.add("a", CONTENT)
    assert state(bench) == "suspect"
    bench.reopen()
    assert state(bench) == "suspect"
