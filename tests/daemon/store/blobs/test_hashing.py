"""The ring hashes exactly what was submitted, stops at once, and leaves no thread behind."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from modeld.progress import FileProgress, Stopped
from modeld.store.blobs.block_checksums import BlockSummer
from modeld.store.blobs.hashing import CHUNK, WHOLE, HashRing, hash_file
from modeld.store.digest import Digest
from modeld.store.disk import durable

SIZES = [0, 1, 4095, WHOLE - 1, WHOLE, WHOLE + 1, 5 * WHOLE + 17]


class Counting(FileProgress):
    """Adds up its calls, and stops after so many checks."""

    def __init__(self, looks: int | None = None) -> None:
        super().__init__()
        self.verified = 0
        self.looks = looks

    def advance(
        self, *, done: int = 0, verified: int = 0, reused: int = 0, committed: int = 0, network: int = 0, kept: int = 0
    ) -> None:
        self.verified += verified

    def stopped(self) -> bool:
        if self.looks is None:
            return False
        self.looks -= 1
        return self.looks < 0


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name == "modeld-sha256"] == []


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    opened = durable.create_file(str(tmp_path / "file"))
    yield opened
    os.close(opened)


@pytest.mark.parametrize("size", SIZES)
def test_a_file_hashes_to_what_hashlib_says(descriptor: int, size: int) -> None:
    content = os.urandom(size)
    os.pwrite(descriptor, content, 0)
    progress, summer = Counting(), BlockSummer()
    assert hash_file(descriptor, size, progress, summer=summer) == (
        Digest(hashlib.sha256(content).hexdigest()),
        size,
    )
    assert progress.verified == size
    expected = BlockSummer()
    expected.update(memoryview(content))
    assert summer.finish() == expected.finish()


@pytest.mark.parametrize("size", [100, 3 * WHOLE])
def test_only_the_asked_bytes_and_no_more_than_there_are(descriptor: int, size: int) -> None:
    content = os.urandom(size)
    os.pwrite(descriptor, content, 0)
    digest, read = hash_file(descriptor, size - 10, FileProgress())
    assert (digest.hex, read) == (hashlib.sha256(content[:-10]).hexdigest(), size - 10)
    digest, read = hash_file(descriptor, size + 10 + WHOLE, FileProgress())
    assert (digest.hex, read) == (hashlib.sha256(content).hexdigest(), size)


@pytest.mark.parametrize("looks", [0, 1, 3])
def test_it_stops_within_one_chunk(descriptor: int, looks: int) -> None:
    os.ftruncate(descriptor, 8 * WHOLE)
    progress = Counting(looks)
    with pytest.raises(Stopped):
        hash_file(descriptor, 8 * WHOLE, progress)
    assert progress.looks == -1
    assert progress.verified <= looks * CHUNK


def test_a_buffer_is_not_handed_out_while_it_is_hashed() -> None:
    pieces = [os.urandom(1000) for _ in range(50)]
    with HashRing(buffers=2, chunk=1000) as ring:
        for piece in pieces:
            buffer = ring.take()
            buffer[:] = piece
            ring.submit(len(piece))
        assert ring.finish().hex == hashlib.sha256(b"".join(pieces)).hexdigest()
        assert ring.newly_hashed() == 50_000
        assert ring.newly_hashed() == 0


@pytest.mark.parametrize("when", ["take", "finish"])
def test_a_failing_hash_fails_the_work(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    class Failing:
        def update(self, _data: memoryview) -> None:
            raise MemoryError

    monkeypatch.setattr(hashlib, "sha256", Failing)
    with HashRing(buffers=1, chunk=10) as ring:
        ring.take()
        ring.submit(10)
        with pytest.raises(MemoryError):
            ring.take() if when == "take" else ring.finish()


def test_buffers_are_page_aligned() -> None:
    import ctypes

    with HashRing(3, 8192) as ring:
        for _index in range(3):
            buffer = ring.take()
            assert ctypes.addressof(ctypes.c_char.from_buffer(buffer)) % os.sysconf("SC_PAGESIZE") == 0
            ring.submit(1)
