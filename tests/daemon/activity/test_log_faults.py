"""A disk that is full, fails or hangs, and a process that is killed: the log loses little and says what."""

from __future__ import annotations

import errno
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modeld.activity import Activity
from modeld.activity import log as log_module
from modelwire.errors import Internal, NoSpace, PermissionDenied
from rigs.activity_log import lines
from rigs.waiting import eventually


def test_what_is_in_its_place_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for name, typed in (
        ("file/activity.ndjson", PermissionDenied),
        ("link", PermissionDenied),
        ("directory", Internal),
        ("fifo", Internal),
    ):
        with pytest.raises(typed, match="activity log") as refusal:
            Activity.open(str(tmp_path / name))
        assert name in refusal.value.message
        assert "\n" not in refusal.value.message
        assert refusal.value.hint
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_is_reported_at_the_start(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fstatvfs

    def full(descriptor: int) -> os.statvfs_result:
        seen = list(real(descriptor))
        seen[3] = seen[4] = 0
        return os.statvfs_result(seen)

    monkeypatch.setattr(os, "fstatvfs", full)
    with pytest.raises(NoSpace, match="No space left"):
        Activity.open(path)


class Disk:
    """Stands between the log and the disk: fails, tears or holds the writes to one path."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
        self.path = path
        self.fails = 0
        self.room: int | None = None
        self.sync_fails = False
        self.open = threading.Event()
        self.open.set()
        self.waiting = threading.Event()
        self._write, self._fsync = os.write, os.fsync
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "fsync", self.fsync)

    def _ours(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        except OSError:
            return False

    def write(self, descriptor: int, data: bytes) -> int:
        if not self._ours(descriptor):
            return self._write(descriptor, data)
        self.waiting.set()
        assert self.open.wait(60)
        if self.room is None:
            return self._write(descriptor, data)
        if self.room == 0:
            self.fails += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._write(descriptor, bytes(data[: self.room]))
        self.room -= written
        return written

    def fsync(self, descriptor: int) -> None:
        if self.sync_fails and self._ours(descriptor):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._fsync(descriptor)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, path: str) -> Disk:
    return Disk(monkeypatch, path)


@pytest.mark.parametrize("room", [0, 1, 30, 61, 62, 100, 500])
async def test_a_full_disk_stops_nothing_and_loses_nothing_that_fits_the_queue(
    path: str, opened: Callable[..., Activity], disk: Disk, room: int
) -> None:
    activity = opened()
    disk.room = room
    for _ in range(20):
        activity.record("x")
    assert await activity.flush() is False
    assert await activity.settled() is False
    assert activity.view().last_error == f"{path}: No space left on device"
    activity.record("x")
    disk.room = None
    assert await activity.settled() is True
    sound = []
    for line in Path(path).read_bytes().splitlines():
        try:
            sound.append(json.loads(line)["seq"])
        except ValueError:
            assert len(line) < 62, "a torn line stands alone"
    assert sound == list(range(1, 22))
    assert activity.view().lost == 0


async def test_what_came_while_a_write_failed_stays_behind_it(
    path: str, opened: Callable[..., Activity], disk: Disk
) -> None:
    activity = opened()
    disk.open.clear()
    disk.room = 0
    for _ in range(3):
        activity.record("x")
    await eventually(disk.waiting.is_set)
    for _ in range(3):
        activity.record("y")
    disk.open.set()
    assert await activity.flush() is False
    disk.room = None
    assert await activity.flush() is True
    assert [line["seq"] for line in lines(path)] == [1, 2, 3, 4, 5, 6]


async def test_it_tries_again_by_itself(path: str, opened: Callable[..., Activity], disk: Disk) -> None:
    activity = opened()
    disk.room = 0
    activity.record("x")
    assert not await activity.flush()
    disk.room = None
    await eventually(lambda: bool(lines(path)))
    assert lines(path)[0]["seq"] == 1


async def test_a_disk_that_hangs_costs_records_but_never_the_loops_time(
    path: str, opened: Callable[..., Activity], disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "QUEUED_MAX", 50)
    activity = opened()
    disk.open.clear()
    activity.record("held")
    await eventually(disk.waiting.is_set)
    for _ in range(57):
        activity.record("x")
    assert activity.view().lost == 7
    disk.open.set()
    assert await activity.flush() is False, "the last one is among the lost"
    assert [line["seq"] for line in lines(path)] == list(range(1, 52))
    assert activity.record("again").seq == 59
    assert await activity.flush() is True


async def test_after_a_failed_fsync_it_is_not_reported_as_on_the_disk(
    opened: Callable[..., Activity], disk: Disk
) -> None:
    activity = opened()
    activity.record("x")
    disk.sync_fails = True
    assert await activity.settled() is False
    assert "Input/output error" in (activity.view().last_error or "")
    disk.sync_fails = False
    assert await activity.settled() is False, "the kernel may have dropped the pages"
    assert await activity.flush() is True
    activity.record("y")
    assert await activity.settled() is True


async def test_a_file_that_somebody_removed_is_made_again(path: str, opened: Callable[..., Activity]) -> None:
    activity = opened()
    activity.record("x")
    await activity.flush()
    os.unlink(path)
    activity.record("y")
    assert await activity.settled()
    assert [line["seq"] for line in lines(path)] == [2]


@pytest.mark.parametrize("moved_to", ["activity-20261120", "activity.ndjson.1"])
@pytest.mark.parametrize("made_again", [False, True])
async def test_a_file_that_another_program_rotated_is_made_again(
    path: str, opened: Callable[..., Activity], moved_to: str, made_again: bool
) -> None:
    """Written on under a name that no reader opens, lines would be missing for a reader that goes on from a number, and
    after a restart the numbers would begin anew."""
    activity = opened()
    activity.record("x")
    await activity.flush()
    os.rename(path, os.path.join(os.path.dirname(path), moved_to))
    if made_again:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    activity.record("y")
    assert await activity.settled()
    assert [line["seq"] for line in lines(path)] == [2]
    assert opened().last_seq == 2


RECORDER = """
import asyncio, os, sys
from modeld.activity import Activity, Item

async def main():
    activity = Activity.open(sys.argv[1], max_bytes=20000, generations=500)
    while True:
        for _ in range(5):
            seq = activity.record("x", job="j", message="m" * (activity.last_seq % 100)).seq
        if await activity.flush():
            os.write(1, b"%d\\n" % seq)

asyncio.run(main())
"""


def test_what_was_flushed_is_there_after_a_kill(path: str) -> None:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    acknowledged = 0
    for enough in (1, 60, 200):
        child = subprocess.Popen([sys.executable, "-c", RECORDER, path], stdout=subprocess.PIPE, env=environment)
        assert child.stdout is not None
        received = b""
        deadline = time.monotonic() + 60
        while received.count(b"\n") < enough:
            ready, _, _ = select.select([child.stdout], [], [], max(0, deadline - time.monotonic()))
            assert ready, "the child stopped acknowledging"
            chunk = os.read(child.stdout.fileno(), 65536)
            assert chunk, "the child ended by itself"
            received += chunk
        child.kill()
        rest, _ = child.communicate(timeout=30)
        acknowledged = int((received + rest).rpartition(b"\n")[0].rpartition(b"\n")[2])
        activity = Activity.open(path, max_bytes=20000, generations=500)
        assert activity.last_seq >= acknowledged
        activity.close()
    everything = [line["seq"] for line in sound_lines(path)]
    assert everything == list(range(1, everything[-1] + 1))
    assert everything[-1] >= acknowledged


def sound_lines(path: str) -> list[dict[str, Any]]:
    found = []
    for file in [f"{path}.{n}" for n in range(500, 0, -1)] + [path]:
        if Path(file).exists():
            for line in Path(file).read_bytes().splitlines():
                try:
                    found.append(json.loads(line))
                except ValueError:
                    assert not line.startswith(b'{"seq"') or b'{"seq"' not in line[1:], "two records merged"
    return found
