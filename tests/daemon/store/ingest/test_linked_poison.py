"""The owner of a linked file can write to it by a mapping, which leaves its times: such a blob answers for nobody.

A second write to a page that is dirty already changes no time of the file, so only the kernel knows of the program.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from modeld.platform import files
from modeld.store.digest import Signature
from modeld.store.disk import durable
from modeld.store.ingest.commit import Batch
from modeld.store.manifests.states import Answer
from modelwire.errors import PermissionDenied, SourceUnavailable
from rigs.adding_rig import Bench, settle_source

pytestmark = pytest.mark.anyio

GOOD, POISON = b"GGUF" + b"A" * 8188, b"GGUF" + b"B" * 8188


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    settle_source(monkeypatch)


class Owner:
    """Of a linked file: it keeps a mapping that it made while the file was writable."""

    def __init__(self, path: str) -> None:
        os.chmod(path, 0o644)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(descriptor, 0)
        finally:
            os.close(descriptor)
        self._map[:] = GOOD  # every page is dirty from here on
        os.chmod(path, 0o444)
        self._path = path

    def poison(self) -> bool:
        """Whether the file has new times, because its pages were written to the disk meanwhile."""
        before = Signature.of(os.stat(self._path))
        self._map[:] = POISON
        return Signature.of(os.stat(self._path)) != before

    def leave(self) -> None:
        self._map.close()


async def linked(bench: Bench) -> Owner:
    path = bench.file("theirs.gguf", GOOD)
    await bench.store.add(path, name="theirs", how="link")
    return Owner(path)


async def assert_own_copy_is_good(bench: Bench) -> None:
    added = await bench.store.add(bench.file("mine.gguf", GOOD), name="mine")
    assert Path(added.path).read_bytes() == GOOD
    resolved = await bench.store.resolver.resolve("mine")
    assert Path(resolved.path).read_bytes() == GOOD


@pytest.mark.parametrize("left", [False, True])
async def test_bytes_that_change_after_a_verification_are_not_given_to_another(bench: Bench, left: bool) -> None:
    owner = await linked(bench)
    await bench.store.verifier.verify(["theirs"])
    assert not owner.poison()
    if left:
        owner.leave()
    await assert_own_copy_is_good(bench)


async def test_bytes_that_change_after_an_add_found_them_are_not_given_to_another(bench: Bench) -> None:
    """The add itself hashes the blob, and the record of that stands for nothing while the program can write."""
    owner = await linked(bench)
    await assert_own_copy_is_good(bench)
    owner.poison()
    await assert_own_copy_is_good(bench)


async def test_a_model_that_a_program_can_write_to_is_not_verified(bench: Bench) -> None:
    owner = await linked(bench)
    verification = await bench.store.verifier.verify(["theirs"])
    assert not verification.ok
    assert "open for writing" in (verification.models[0].reason or "")
    assert bench.quarantined() == []
    owner.leave()
    assert (await bench.store.verifier.verify(["theirs"])).ok


async def test_a_file_that_loses_its_name_as_it_is_linked_has_changed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bench.file("theirs.gguf", GOOD)
    real = files.link_open_file

    def link(descriptor: int, source: str, name: str) -> None:
        os.unlink(path)
        real(descriptor, source, name)

    monkeypatch.setattr(files, "link_open_file", link)
    with pytest.raises(SourceUnavailable, match="changed"):
        await bench.store.add(path, name="theirs", how="link")


async def test_a_file_that_is_mapped_is_not_linked(bench: Bench) -> None:
    path = bench.file("theirs.gguf", GOOD)
    owner = Owner(path)
    with pytest.raises(SourceUnavailable, match="open for writing"):
        await bench.store.add(path, name="theirs", how="link")
    owner.leave()


async def test_a_file_of_another_user_is_not_linked_when_its_writers_are_unknown(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without CAP_LEASE."""
    path = bench.file("theirs.gguf", GOOD)
    monkeypatch.setattr(files, "has_writer", lambda _descriptor: None)
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(path).st_uid + 1)
    with pytest.raises(PermissionDenied, match="cannot be linked"):
        await bench.store.add(path, name="theirs", how="link")


@pytest.mark.parametrize("alone", [True, False])
async def test_bytes_that_change_between_their_hash_and_their_name_are_not_linked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """The owner sets the time of the file back: only its ctime is another one, as that of a file with a new link."""
    folder = bench.directory / "several"
    folder.mkdir()
    victim = folder / "a.gguf"
    victim.write_bytes(GOOD)
    if not alone:
        (folder / "b.gguf").write_bytes(b"GGUF other")

    def poison() -> None:
        before = victim.stat()
        victim.chmod(0o644)
        victim.write_bytes(POISON)
        os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
        victim.chmod(0o444)

    real = Batch.commit

    def commit(self: Batch) -> object:
        poison()
        return real(self)

    monkeypatch.setattr(Batch, "commit", commit)
    with pytest.raises(SourceUnavailable, match="changed"):
        await bench.store.add(str(victim if alone else folder), name="theirs", how="link")
    assert bench.blobs() == []


async def test_a_program_that_opens_the_file_while_it_gets_its_name_is_noticed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bench.file("theirs.gguf", GOOD)
    real = durable.name_without_replacing

    def name(staged: str, target: str) -> bool:
        if target.endswith("/data"):
            os.chmod(path, 0o644)
            with pytest.raises(BlockingIOError):  # a program that waits gets the file when it has its name
                os.open(path, os.O_RDWR | os.O_NONBLOCK)
        return real(staged, target)

    with monkeypatch.context() as patched:
        patched.setattr(durable, "name_without_replacing", name)
        added = await bench.store.add(path, name="theirs", how="link")
    assert Path(added.path).read_bytes() == GOOD
    assert bench.store.index.find("theirs").look().state.answer is Answer.VERIFY
