"""Reading in the background: the rate, the pauses beside other work, and reads that pass the page cache by."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from modeld.progress import FileProgress, JobProgress, Stopped
from modeld.store.blobs import background as module
from modeld.store.blobs.background import (
    BURST_SECONDS,
    LONGEST_PAUSE_SECONDS,
    SECTOR,
    TURN_SECONDS,
    Background,
    DirectReader,
    Place,
)
from modeld.store.blobs.hashing import WHOLE, hash_file
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable

RATE = 1_000_000
SIZES = [0, 1, SECTOR - 1, SECTOR, SECTOR + 1, WHOLE, 2 * WHOLE + 17]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def limited(clock: Clock, rate: int | None = RATE, busy: Iterator[bool] | None = None) -> Background:
    others = iter(()) if busy is None else busy
    reading = Background(rate, clock=clock, sleep=clock.sleep)
    reading.busy = lambda: next(others, False)
    return reading


def test_the_rate_holds_over_pieces_of_any_size() -> None:
    clock = Clock()
    reading, progress, sizes = limited(clock), FileProgress(), [1, 300_000, 5, 2_000_000, 77, 40_000] * 20
    for size in sizes:
        reading.took(size, progress)
    assert clock.now - 100 == pytest.approx(sum(sizes) / RATE, abs=BURST_SECONDS)


def test_a_slow_disk_is_caught_up_for_a_moment_only() -> None:
    clock = Clock()
    reading, progress = limited(clock), FileProgress()
    reading.took(RATE, progress)
    clock.now += 50  # the disk
    began = clock.now
    for _ in range(10):
        reading.took(RATE, progress)
    assert 10 - BURST_SECONDS - 0.01 <= clock.now - began <= 10


def test_without_a_rate_nothing_waits() -> None:
    clock = Clock()
    reading = limited(clock, None)
    for _ in range(100):
        reading.took(10**12, FileProgress())
    assert clock.now == 100


def test_it_waits_while_other_work_is_under_way() -> None:
    clock = Clock()
    reading = limited(clock, busy=iter([True] * 40))
    reading.took(1, FileProgress())
    assert clock.now - 100 == pytest.approx(10, abs=0.1)
    assert not reading.waits


def test_it_has_a_turn_when_other_work_never_ends() -> None:
    clock = Clock()
    reading = Background(None, clock=clock, sleep=clock.sleep)
    reading.busy = lambda: True
    reading.took(1, FileProgress())
    assert LONGEST_PAUSE_SECONDS <= clock.now - 100 <= LONGEST_PAUSE_SECONDS + 1
    began = clock.now
    clock.now += TURN_SECONDS - 1
    reading.took(1, FileProgress())
    assert clock.now - began == TURN_SECONDS - 1
    clock.now += 1
    reading.took(1, FileProgress())
    assert clock.now - began >= LONGEST_PAUSE_SECONDS


@pytest.mark.parametrize("waits_for", ["the rate", "other work"])
def test_a_stop_ends_the_wait(waits_for: str) -> None:
    clock, job = Clock(), JobProgress()

    def stop_after(seconds: float) -> None:
        clock.now += seconds
        if clock.now > 103:
            job.stop_reason = "pause"

    busy = waits_for == "other work"
    reading = Background(None if busy else 1, clock=clock, sleep=stop_after)
    reading.busy = lambda: busy
    with pytest.raises(Stopped):
        reading.took(1_000, FileProgress(job))
    assert clock.now < 104
    assert not reading.waits


def test_only_the_same_unchanged_file_goes_on_in_the_middle() -> None:
    now, other = Signature(1, 2, 100, 4, 5), Signature(1, 2, 100, 4, 6)
    digest, another = Digest("a" * 64), Digest("b" * 64)
    for earlier, place, first in [
        (None, Place(digest, now, 0), 0),
        (Place(digest, now, 64), Place(digest, now, 0), 64),
        (Place(digest, now, None), Place(digest, now, 0), 0),
        (Place(digest, now, 64), Place(digest, now, None), 0),
        (Place(digest, other, 64), Place(digest, now, 0), 0),
        (Place(another, now, 64), Place(digest, now, 0), 0),
    ]:
        reading = limited(Clock())
        reading.place = earlier
        assert reading.begin(place, FileProgress()) == first
        assert reading.place == (earlier if first else place)


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    opened = durable.create_file(str(tmp_path / "file"))
    yield opened
    os.close(opened)


def cached_pages(descriptor: int) -> int:
    """Asks without a read, which would bring pages into the cache."""
    size = os.fstat(descriptor).st_size
    with mmap.mmap(descriptor, size, prot=mmap.PROT_READ | mmap.PROT_WRITE, flags=mmap.MAP_PRIVATE) as mapped:
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        view = (ctypes.c_char * size).from_buffer(mapped)
        try:
            assert ctypes.CDLL(None).mincore(ctypes.byref(view), ctypes.c_size_t(size), pages) == 0
        finally:
            del view
    return sum(page & 1 for page in pages)


@pytest.mark.parametrize("direct", ["direct", "refused", "not aligned"])
@pytest.mark.parametrize("size", SIZES)
def test_all_bytes_are_read(descriptor: int, size: int, direct: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(size)
    os.pwrite(descriptor, content, 0)
    if direct == "refused":
        monkeypatch.setattr(durable, "set_direct", lambda _descriptor, _on: False)
    elif direct == "not aligned":

        def refuse(*_: object) -> int:
            raise OSError(errno.EINVAL, "not aligned")

        monkeypatch.setattr(durable, "read_once", refuse)
    digest, read = hash_file(descriptor, size, FileProgress(), background=limited(Clock()))
    assert (digest.hex, read) == (hashlib.sha256(content).hexdigest(), size)


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[int]:
    """A file of which no page is in the cache. The usual directory may be on a filesystem that is its own cache."""
    for place in (str(tmp_path), tempfile.gettempdir(), "/var/tmp"):
        with tempfile.TemporaryFile(dir=place) as file:
            descriptor = file.fileno()
            os.pwrite(descriptor, os.urandom(2 * WHOLE + 17), 0)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            if durable.set_direct(descriptor, True) and not cached_pages(descriptor):
                durable.set_direct(descriptor, False)
                yield descriptor
                return
    pytest.skip("all temporary directories are on filesystems that are their own cache")


def test_bytes_come_from_the_disk_and_not_into_the_cache(on_disk: int) -> None:
    hash_file(on_disk, 2 * WHOLE + 17, FileProgress(), background=limited(Clock()))
    durable.set_direct(on_disk, False)
    assert cached_pages(on_disk) == 0


def test_a_disk_that_fails_is_reported(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    os.pwrite(descriptor, bytes(SECTOR), 0)

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "bad sector")

    monkeypatch.setattr(durable, "read_once", fail)
    monkeypatch.setattr(durable, "set_direct", lambda _descriptor, on: on)
    with pytest.raises(OSError, match="bad sector"):
        DirectReader(descriptor, SECTOR).read(memoryview(bytearray(SECTOR)), 0)


def test_each_file_costs_something(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    reading = limited(clock)
    for number in range(100):
        reading.begin(Place(Digest("a" * 64), Signature(1, number, 0, 0, 0), 0), FileProgress())
    assert clock.now - 100 == pytest.approx(100 * module.FILE_BYTES / RATE, abs=BURST_SECONDS + 0.01)
