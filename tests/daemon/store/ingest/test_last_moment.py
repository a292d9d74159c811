"""Between the last look at a blob and the name that is given: what changes is noticed, and no bad byte is named."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modeld.store.blobs import hashing
from modeld.store.digest import Digest
from modeld.store.ingest import adopt, commit, ingest
from modeld.store.ingest.adopt import Adopted, How
from modeld.store.ingest.collect import Collection
from modeld.store.ingest.commit import Batch
from modelwire.errors import Corrupt, SourceUnavailable
from rigs.adding_rig import Bench

CONTENT = b"GGUF weights"
HEX = hashlib.sha256(CONTENT).hexdigest()
BAD = b"BAD! weights"
assert len(BAD) == len(CONTENT)

What = Callable[[Bench], str]


def one_file(bench: Bench) -> str:
    return bench.file("m.gguf", CONTENT)


def directory(bench: Bench) -> str:
    (bench.directory / "many").mkdir(exist_ok=True)
    bench.file("many/config.json", b"{}")
    bench.file("many/m.gguf", CONTENT)
    return str(bench.directory / "many")


@pytest.fixture(params=[one_file, directory])
def what(request: pytest.FixtureRequest) -> What:
    made: What = request.param
    return made


def blob_of(bench: Bench) -> Path:
    return Path(bench.layout.blob(Digest(HEX)))


def once_before(monkeypatch: pytest.MonkeyPatch, places: list[tuple[Any, str]], happens: Callable[[], object]) -> None:
    """Somebody else's doing, right before the first call of any of these."""
    done: list[bool] = []

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if not done:
                done.append(True)
                happens()
            return real(*arguments, **named)

        return call

    for owner, name in places:
        monkeypatch.setattr(owner, name, wrap(getattr(owner, name)))


def spoil(path: Path) -> None:
    """As a program that means no harm to the clock: the size and the time of the last change stay."""
    info = path.stat()
    path.chmod(0o644)
    path.write_bytes(BAD)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


async def assert_good(bench: Bench, name: str) -> None:
    assert blob_of(bench).read_bytes() == CONTENT
    assert (await bench.store.resolver.resolve(name)).state == "ready"
    assert bench.staged() == []
    assert bench.store.reserved_bytes == 0


async def test_a_blob_that_is_spoilt_after_it_was_found(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, what: What
) -> None:
    await bench.store.add(one_file(bench), name="before")
    once_before(monkeypatch, [(ingest, "still_there")], lambda: spoil(blob_of(bench)))
    # With its digest one file is not even read: the blob answers for it.
    added = await bench.store.add(what(bench), name="m", sha256=HEX if what is one_file else None)
    assert BAD in bench.quarantined()
    assert added.blob == f"sha256:{HEX}"
    await assert_good(bench, "m")


async def test_a_bad_blob_that_was_there_before(bench: Bench, what: What) -> None:
    blob_of(bench).parent.mkdir(parents=True)
    blob_of(bench).write_bytes(BAD)
    await bench.store.add(what(bench), name="m")
    assert bench.quarantined() == [BAD]
    await assert_good(bench, "m")


async def test_a_bad_blob_that_appears_right_before_the_name_is_given(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, what: What
) -> None:
    def plant() -> None:
        blob_of(bench).parent.mkdir(parents=True)
        blob_of(bench).write_bytes(BAD)

    once_before(monkeypatch, [(Batch, "commit")], plant)
    await bench.store.add(what(bench), name="m")
    assert bench.quarantined() == [BAD]
    await assert_good(bench, "m")


async def test_a_good_blob_that_appears_right_before_the_name_is_given(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, what: What
) -> None:
    def plant() -> None:
        blob_of(bench).parent.mkdir(parents=True)
        blob_of(bench).write_bytes(CONTENT)

    once_before(monkeypatch, [(Batch, "commit")], plant)
    await bench.store.add(what(bench), name="m")
    assert bench.quarantined() == []
    await assert_good(bench, "m")


@pytest.mark.parametrize("how", ["copy", "move", "link"])
async def test_a_file_that_changes_after_the_directory_was_listed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, how: How
) -> None:
    path = directory(bench)
    changed = bench.directory / "many" / "m.gguf"
    once_before(monkeypatch, [(Collection, "open")], lambda: changed.write_bytes(BAD))
    with pytest.raises(SourceUnavailable, match=r"m\.gguf changed while it was being added"):
        await bench.store.add(path, name="m", how=how)
    bench.assert_nothing_happened()
    assert changed.read_bytes() == BAD


@pytest.mark.parametrize("how", ["move", "link"])
async def test_a_file_that_is_written_to_while_it_is_adopted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, how: How
) -> None:
    """Its owner has made it writable again: what was hashed is not what is there."""
    path = Path(one_file(bench))
    mode = path.stat().st_mode
    real = hashing.hash_file

    def hash_and_spoil(*arguments: Any, **named: Any) -> Any:
        hashed = real(*arguments, **named)
        spoil(path)
        return hashed

    monkeypatch.setattr(adopt, "hash_file", hash_and_spoil)
    with pytest.raises(SourceUnavailable, match="changed while it was being read"):
        await bench.store.add(str(path), name="m", how=how)
    bench.assert_nothing_happened()
    assert (path.read_bytes(), path.stat().st_mode, path.stat().st_nlink) == (BAD, mode, 1)


async def test_a_link_to_a_blob_that_is_written_to_after_it_was_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is the blob, by another name: what was hashed is not what would be noted as good."""
    await bench.store.add(one_file(bench), name="before")
    other_name = bench.directory / "other.gguf"
    os.link(blob_of(bench), other_name)

    def write() -> None:
        other_name.chmod(0o644)
        other_name.write_bytes(BAD)

    once_before(monkeypatch, [(Adopted, "as_blob")], write)
    with pytest.raises(SourceUnavailable, match="changed while it was being added"):
        await bench.store.add(str(other_name), name="m", how="link")
    assert bench.names() == ["before"]
    assert bench.staged() == []


async def test_a_file_that_is_written_to_in_the_moment_of_its_naming(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be taken back then; but no record calls it good, and it is looked at before it is given out."""
    path = Path(one_file(bench))

    def write() -> None:
        path.chmod(0o644)
        path.write_bytes(BAD)
        os.utime(path)

    writer = threading.Thread(target=write)

    def begin() -> None:
        writer.start()
        writer.join(0.5)  # the kernel lets it open the file when the store has done with it

    once_before(monkeypatch, [(commit, "require_blob")], begin)
    await bench.store.add(str(path), name="m", how="link")
    writer.join(10)
    assert path.read_bytes() == BAD
    with pytest.raises(Corrupt):
        await bench.store.resolver.resolve("m")


async def test_two_names_of_one_file_are_linked_together(bench: Bench) -> None:
    source = directory(bench)
    os.link(bench.directory / "many" / "m.gguf", bench.directory / "many" / "again.gguf")
    added = await bench.store.add(source, name="m", how="link")
    assert [file.path for file in added.files] == ["again.gguf", "config.json", "m.gguf"]
    await assert_good(bench, "m")
