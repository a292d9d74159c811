"""A program that can write to a source: no record stands for its bytes, and a move takes nothing away that it wrote."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
from collections.abc import Awaitable, Iterator
from pathlib import Path

import pytest

from modeld.store.digest import Digest, Signature
from modelwire.errors import SourceUnavailable
from modelwire.values import Provenanced
from rigs.adding_rig import Bench, settle_source

pytestmark = pytest.mark.anyio

BEFORE, AFTER = b"GGUF" + b"A" * 8188, b"GGUF" + b"B" * 8188


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    settle_source(monkeypatch)


class Mapped:
    """A program that has a file mapped for writing. A second write to a page that is dirty leaves the file's times."""

    def __init__(self, path: str) -> None:
        self.path = path
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(descriptor, 0)
        finally:
            os.close(descriptor)

    def write(self, content: bytes) -> None:
        self._map[:] = content

    def close(self) -> None:
        self._map.close()

    def signature(self) -> Signature:
        return Signature.of(os.stat(self.path))


@contextlib.contextmanager
def mapped(path: str) -> Iterator[Mapped]:
    program = Mapped(path)
    try:
        yield program
    finally:
        program.close()


def contents(bench: Bench, name: str) -> list[bytes]:
    entry = bench.store.index.find(name)
    return sorted(Path(path).read_bytes() for path, _, _ in entry.blobs)


def a_source(bench: Bench, content: bytes, *, directory: bool) -> tuple[str, str]:
    """What is added, and the file in it that the program writes to."""
    if not directory:
        path = bench.file("m.gguf", content)
        return path, path
    folder = bench.directory / "several"
    folder.mkdir()
    (folder / "other.gguf").write_bytes(b"GGUF other")
    (folder / "m.gguf").write_bytes(content)
    return str(folder), str(folder / "m.gguf")


@pytest.mark.parametrize("directory", [False, True])
async def test_a_move_leaves_what_a_program_wrote_since_it_was_added(bench: Bench, directory: bool) -> None:
    source, file = a_source(bench, bytes(len(BEFORE)), directory=directory)
    with mapped(file) as program:
        program.write(BEFORE)
        before = program.signature()
        await bench.store.add(source, name="copied")
        program.write(AFTER)
        assert program.signature() == before, "the write cannot be seen from outside"
        with pytest.raises(SourceUnavailable, match="open for writing"):
            await bench.store.add(source, name="moved", how="move")
        assert Path(file).read_bytes() == AFTER
    assert bench.names() == ["copied"]
    await bench.store.add(source, name="moved", how="move")
    assert AFTER in contents(bench, "moved")
    assert not os.path.exists(file)


@pytest.mark.parametrize("directory", [False, True])
async def test_an_add_reads_again_what_a_program_can_write_to(bench: Bench, directory: bool) -> None:
    source, file = a_source(bench, bytes(len(BEFORE)), directory=directory)
    with mapped(file) as program:
        program.write(BEFORE)
        await bench.store.add(source, name="one")
        program.write(AFTER)
        added = await bench.store.add(source, name="two")
        assert not added.reused
    assert (BEFORE in contents(bench, "one"), AFTER in contents(bench, "two")) == (True, True)


@pytest.mark.parametrize("directory", [False, True])
async def test_what_was_read_while_a_program_could_write_is_not_remembered(bench: Bench, directory: bool) -> None:
    source, file = a_source(bench, bytes(len(BEFORE)), directory=directory)
    with mapped(file) as program:
        program.write(BEFORE)
        await bench.store.add(source, name="one")
        program.write(AFTER)
    added = await bench.store.add(source, name="two")
    assert not added.reused
    assert AFTER in contents(bench, "two")


async def test_a_move_reads_a_file_that_is_known(bench: Bench) -> None:
    """The record may be wrong for a reason that nobody thought of; what is read in the same request is not."""
    source = bench.file("m.gguf", BEFORE)
    await bench.store.add(source, name="one")
    status = os.stat(source)
    Path(source).write_bytes(AFTER)
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    await bench.store.ingest.records.record_source(Signature.of(os.stat(source)), digest_of(bench, "one"))
    await bench.store.add(source, name="two", how="move")
    assert contents(bench, "two") == [AFTER]


async def test_a_program_that_opens_a_file_of_a_move_on_another_filesystem_keeps_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modeld.store.ingest.adding.stage_adopted", lambda *_, **__: None)
    source = bench.file("m.gguf", BEFORE)
    with open(source, "r+b"), pytest.raises(SourceUnavailable, match="open for writing"):
        await bench.store.add(source, how="move")
    assert Path(source).read_bytes() == BEFORE
    assert bench.names() == []
    await bench.store.add(source, how="move")
    assert not os.path.exists(source)


async def test_a_taken_name_is_not_refused_by_a_record_of_a_file_that_is_being_written(bench: Bench) -> None:
    source = bench.file("m.gguf", BEFORE)
    await bench.store.add(source, name="one")
    await bench.store.add(bench.file("other.gguf", AFTER), name="two")
    with open(source, "r+b", buffering=0) as program:
        program.write(AFTER)
        status = os.fstat(program.fileno())
        await bench.store.ingest.records.record_source(Signature.of(status), digest_of(bench, "one"))
        assert (await bench.store.add(source, name="two")).reused


def digest_of(bench: Bench, name: str) -> Digest:
    return bench.store.index.find(name).usable().digest


# -- what the history says


def sources(bench: Bench, name: str) -> Awaitable[tuple[Provenanced, ...]]:
    entry = bench.store.index.find(name)
    return bench.store.history.of(list(entry.usable().blobs()), entry.name)


async def test_the_history_claims_no_source_that_nobody_read(bench: Bench) -> None:
    source = bench.file("m.gguf", BEFORE)
    added = await bench.store.add(source, name="one")
    unread = bench.file("unread.gguf", b"never opened" + bytes(len(BEFORE) - 12))
    assert (await bench.store.add(unread, name="two", sha256=added.blob)).reused
    assert (await bench.store.add(source, name="three")).reused
    assert [(each.outcome, each.source) for each in await sources(bench, "one")] == [("added", source)]


async def test_the_history_of_a_directory_names_the_files_that_were_read(bench: Bench) -> None:
    source, _ = a_source(bench, BEFORE, directory=False)
    await bench.store.add(source, name="alone")
    folder = bench.directory / "several"
    folder.mkdir()
    (folder / "new.gguf").write_bytes(AFTER)
    os.link(source, folder / "known.gguf")
    await bench.store.ingest.records.record_source(Signature.of(os.stat(source)), digest_of(bench, "alone"))
    await bench.store.add(str(folder), name="several")
    found = await sources(bench, "several")
    assert [(each.source, each.blob) for each in found] == [
        (source, digest_of(bench, "alone").text),
        (str(folder), f"sha256:{hashlib.sha256(AFTER).hexdigest()}"),
    ]
