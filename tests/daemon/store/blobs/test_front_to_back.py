"""The page cache stays as it was, on kernels with and without uncached calls."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from modeld.progress import FileProgress
from modeld.store.blobs.front_to_back import FrontToBackReader, FrontToBackWriter
from modeld.store.blobs.hashing import CHUNK, WHOLE, hash_file
from modeld.store.disk import durable


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    opened = durable.create_file(str(tmp_path / "file"))
    yield opened
    os.close(opened)


def without_flags(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An older kernel: refuses uncached calls, and the flags that were tried are recorded."""
    tried: list[int] = []
    read_at, write_at = durable.read_at, durable.write_at

    def read(descriptor: int, into: memoryview, offset: int, flags: int = 0) -> int:
        tried.append(flags)
        if flags == durable.RWF_DONTCACHE:
            raise OSError(errno.EOPNOTSUPP, "no such flag")
        return read_at(descriptor, into, offset, flags)

    def write(descriptor: int, data: memoryview, offset: int, flags: int = 0) -> None:
        tried.append(flags)
        if flags == durable.RWF_DONTCACHE:
            raise OSError(errno.EOPNOTSUPP, "no such flag")
        write_at(descriptor, data, offset, flags)

    monkeypatch.setattr(durable, "read_at", read)
    monkeypatch.setattr(durable, "write_at", write)
    return tried


def test_an_older_kernel_is_asked_once(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = without_flags(monkeypatch)
    dropped: list[tuple[int, int]] = []

    def forget(_descriptor: int, offset: int, length: int) -> None:
        dropped.append((offset, length))

    monkeypatch.setattr(durable, "forget_pages", forget)
    content = os.urandom(WHOLE)
    writer = FrontToBackWriter(descriptor)
    for index in range(3):
        writer.write(memoryview(content), index * WHOLE)
    assert tried == [durable.RWF_DONTCACHE, 0, 0, 0]
    assert dropped == [(0, WHOLE), (0, 2 * WHOLE), (0, 3 * WHOLE)]
    tried.clear()
    reader, buffer = FrontToBackReader(descriptor, 3 * WHOLE), memoryview(bytearray(WHOLE))
    for index in range(3):
        assert reader.read(buffer, index * WHOLE) == WHOLE
        assert buffer == content
    assert tried.count(durable.RWF_DONTCACHE) == 1


@pytest.mark.parametrize("cached", [True, False])
def test_reading_leaves_the_cache_as_it_was(descriptor: int, monkeypatch: pytest.MonkeyPatch, cached: bool) -> None:
    os.ftruncate(descriptor, 3 * WHOLE)
    without_flags(monkeypatch)
    dropped: list[int] = []

    def forget(_descriptor: int, offset: int, _length: int) -> None:
        dropped.append(offset)

    monkeypatch.setattr(durable, "forget_pages", forget)
    monkeypatch.setattr(FrontToBackReader, "_was_cached", lambda _reader: cached)
    hash_file(descriptor, 3 * WHOLE, FileProgress())
    assert dropped == ([] if cached else list(range(0, 3 * WHOLE, CHUNK)))


def test_a_real_failure_of_an_uncached_call_is_not_swallowed(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> int:
        raise OSError(errno.EIO, "bad sector")

    monkeypatch.setattr(durable, "write_at", fail)
    monkeypatch.setattr(durable, "read_at", fail)
    data = memoryview(bytearray(WHOLE))
    with pytest.raises(OSError, match="bad sector"):
        FrontToBackWriter(descriptor).write(data, 0)
    with pytest.raises(OSError, match="bad sector"):
        FrontToBackReader(descriptor, WHOLE).read(data, 0)
