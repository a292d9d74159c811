"""The whole way of a file into the store, with each system call on it failing once, and killed at each.

Whatever fails: nothing torn under a published name, no temporary left, an error of the wire, and the same
request succeeds afterwards. The calls are counted in `durable`, the one module that makes them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modeld.platform import durable as calls
from modeld.store.disk import durable
from modeld.store.disk.space import Space, free_bytes_under
from modelwire.errors import NoSpace, WireError
from rigs import publication_rig
from rigs.forked import forked
from rigs.publication_rig import BIG, MANY, SMALL, Adding, Faults, plant_faults


def empty_store(_adding: Adding) -> tuple[bytes, ...]:
    return ()


def good_blob_of_another_tool(adding: Adding) -> tuple[bytes, ...]:
    adding.plant(adding.content)
    return ()


def good_blob_that_comes_late(adding: Adding) -> tuple[bytes, ...]:
    adding.comes_late = adding.content
    return ()


def bad_blob(adding: Adding) -> tuple[bytes, ...]:
    adding.plant(b"bad")
    return (b"bad",)


def sweep(tmp_path: Path, step: int = 1) -> Iterator[tuple[int, Path]]:
    for nth in range(1, 500, step):
        directory = tmp_path / str(nth)
        directory.mkdir()
        yield nth, directory
    pytest.fail("the sweep has no end")


@pytest.mark.parametrize("before", [empty_store, good_blob_of_another_tool, good_blob_that_comes_late, bad_blob])
@pytest.mark.parametrize(
    ("size", "code"),
    [(SMALL, errno.EIO), (SMALL, errno.ENOSPC), (SMALL, errno.EDQUOT), (SMALL, errno.EROFS), (BIG, errno.EIO)],
)
def test_each_call_fails_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    before: Callable[[Adding], tuple[bytes, ...]],
    code: int,
) -> None:
    def strike(_name: str) -> None:
        raise OSError(code, os.strerror(code))

    kinds: set[str] = set()
    for nth, directory in sweep(tmp_path):
        adding, faults = Adding(directory, size), Faults(nth, strike)
        planted = before(adding)
        descriptors = len(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patched:
            plant_faults(patched, faults)
            try:
                blob, _reused = adding.run()
            except WireError:
                pass
            else:
                # Advice that was refused, a fallback, or a temporary that went another way: all is well.
                assert Path(blob.path).read_bytes() == adding.content
        adding.assert_whole_or_absent(*planted)
        kinds.update(faults.struck)
        if not faults.struck:
            break
        assert adding.space.promised == 0, faults.struck
        assert len(os.listdir("/proc/self/fd")) == descriptors, faults.struck
        if faults.struck != ["unlink"]:
            assert adding.temporaries() == [], faults.struck
        for left in adding.temporaries():
            os.unlink(os.path.join(adding.layout.staging, left))
        adding.assert_added()
    assert kinds >= {"open", "close", "pwritev", "preadv", "fchmod", "fsync", "stat", "mkdir"}
    assert bool(kinds & {"renameat2", "link"}) == (before is not good_blob_of_another_tool)


@pytest.mark.parametrize("size", [SMALL, BIG])
def test_the_disk_dies_at_each_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """From the n-th call on nothing works: then a temporary may stay, for the next start to find."""

    def strike(_name: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for nth, directory in sweep(tmp_path):
        adding, faults = Adding(directory, size), Faults(nth, strike, lasting=True)
        with monkeypatch.context() as patched:
            plant_faults(patched, faults)
            with contextlib.suppress(WireError):
                adding.run()
        adding.assert_whole_or_absent()
        assert adding.space.promised == 0
        if not faults.struck:
            break
        for left in adding.temporaries():
            os.unlink(os.path.join(adding.layout.staging, left))
        adding.assert_added()


@pytest.mark.parametrize("together", [True, False])
def test_calls_of_a_batch_fail_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: bool) -> None:
    monkeypatch.setattr(calls, "dirty_bytes", lambda: 0 if together else durable.MAX_FOREIGN_DIRTY + 1)

    def strike(_name: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    kinds: set[str] = set()
    for nth, directory in sweep(tmp_path, step=4):
        adding, faults = Adding(directory), Faults(nth, strike)
        descriptors = len(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patched:
            plant_faults(patched, faults)
            with contextlib.suppress(WireError):
                assert len(adding.run_many()) == MANY
        adding.assert_whole_or_absent()
        kinds.update(faults.struck)
        if not faults.struck:
            break
        assert adding.space.promised == 0, faults.struck
        assert len(os.listdir("/proc/self/fd")) == descriptors, faults.struck
        if faults.struck != ["unlink"]:
            assert adding.temporaries() == [], faults.struck
        assert [Path(blob.path).read_bytes() for blob, _reused in adding.run_many()] == [
            adding.content[index:] for index in range(MANY)
        ]
    assert ("fsync" in kinds) != together
    assert ("syncfs" in kinds) == together


def test_a_failed_sync_is_never_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adding, synced = Adding(tmp_path), []

    def fail(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        raise OSError(errno.EIO, "lost page")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(WireError, match="make durable"):
            adding.run()
    assert len(synced) == 1
    assert not adding.name.exists()
    assert adding.temporaries() == []


@pytest.mark.parametrize("size", [SMALL, BIG])
def test_killed_at_each_call(tmp_path: Path, size: int) -> None:
    with forked(publication_rig.__file__, "main") as run:
        for nth, directory in sweep(tmp_path):
            adding = Adding(directory, size)
            outcome = run(str(directory), "kill", str(nth))
            assert outcome.returncode in (0, 137), outcome.stderr
            adding.assert_whole_or_absent()
            if outcome.returncode == 0:
                break
            assert len(adding.temporaries()) <= 1
            for left in adding.temporaries():
                os.unlink(os.path.join(adding.layout.staging, left))
            adding.assert_added()
    assert nth > 10


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "modeld-test", str(disk)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("may not mount a filesystem here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True, timeout=60)


@pytest.mark.skipif(shutil.which("mount") is None, reason="there is no mount command")
def test_a_full_disk_is_reported_and_leaves_nothing(small_disk: Path) -> None:
    """The promise that there is room was wrong: others write to the same filesystem."""
    adding = Adding(small_disk, BIG)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(5 * 1024 * 1024))
    free = free_bytes_under(str(small_disk))
    assert free < BIG
    for _attempt in range(2):
        with pytest.raises(NoSpace):
            adding.run()
        assert adding.temporaries() == []
        assert free_bytes_under(str(small_disk)) >= free
    adding.space = Space(lambda: free_bytes_under(str(small_disk)))
    with pytest.raises(NoSpace, match=f"{BIG} bytes are needed and {free} are free"):
        adding.run()
    filler.unlink()
    adding.assert_added()
