"""The log on the disk: whole lines, rising numbers, bounded files, and a daemon that goes on without it."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modeld.activity import Activity, Item
from modeld.activity import log as log_module
from modeld.activity.generations import LINE_BYTES, Replay, last_record, start_of
from modelwire.errors import Internal, NoSpace, PermissionDenied


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state" / "activity.ndjson")


@pytest.fixture
def opened(path: str) -> Iterator[Callable[..., Activity]]:
    made: list[Activity] = []

    def make(**options: Any) -> Activity:
        made.append(Activity.open(path, **options))
        return made[-1]

    yield make
    for activity in made:
        activity.close()


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


def all_lines(path: str) -> list[dict[str, Any]]:
    files = [f"{path}.{n}" for n in range(99, 0, -1)] + [path]
    return [line for file in files if Path(file).exists() for line in lines(file)]


async def test_a_line_says_what_happened_in_a_fixed_order(path: str, opened: Callable[..., Activity]) -> None:
    activity = opened(clock=lambda: 1763629200.0625)
    recorded = activity.record(
        "job.done", seconds=1.5, outcome="ok", peer=1000, model="llama", job="j1", digest=None, note=None
    )
    assert recorded.line == (
        b'{"seq":1,"time":"2025-11-20T09:00:00.062Z","event":"job.done","job":"j1","model":"llama",'
        b'"peer":1000,"outcome":"ok","seconds":1.5}'
    )
    assert (recorded.seq, recorded.event, recorded.job, recorded.model) == (1, "job.done", "j1", "llama")
    assert await activity.settled()
    assert Path(path).read_bytes() == recorded.line + b"\n"
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700
    view = activity.view()
    assert (view.path, view.last_seq, view.lost, view.last_error) == (path, 1, 0, None)


async def test_the_times_are_of_the_moment(path: str, opened: Callable[..., Activity]) -> None:
    moments = iter([0.0, 0.999, 59.9999, 86399.5, 1763629200.0])
    activity = opened(clock=lambda: next(moments))
    told = [json.loads(activity.record("x").line)["time"] for _ in range(5)]
    assert told == [
        "1970-01-01T00:00:00.000Z",
        "1970-01-01T00:00:00.999Z",
        "1970-01-01T00:00:59.999Z",
        "1970-01-01T23:59:59.500Z",
        "2025-11-20T09:00:00.000Z",
    ]


async def test_no_secret_reaches_the_disk_and_fields_cannot_forge_the_head(
    path: str, opened: Callable[..., Activity]
) -> None:
    activity = opened()
    activity.record("x", message="token=abc123 in\nline", nested={"password": ["p4ss"]}, seq=99, time="never")
    await activity.flush()
    raw = Path(path).read_text()
    assert "abc123" not in raw
    assert "p4ss" not in raw
    (line,) = lines(path)
    assert line["seq"] == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])


async def test_a_record_too_long_for_a_line_keeps_its_head(path: str, opened: Callable[..., Activity]) -> None:
    activity = opened()
    activity.record("x", job="j", outcome="o" * 5000, big=["word " * 1000] * 100)
    await activity.flush()
    (line,) = lines(path)
    assert line["event"] == "x"
    assert line["job"] == "j"
    assert line["outcome"] == "o" * 256
    assert line["cut_bytes"] > LINE_BYTES
    assert "big" not in line


async def test_it_rotates_before_a_write_that_would_pass_the_size(path: str, opened: Callable[..., Activity]) -> None:
    activity = opened(max_bytes=2000)
    for number in range(200):
        activity.record("x", filler="y" * (number % 50))
        if number % 7 == 0:
            await activity.flush()
    await activity.settled()
    names = sorted(os.listdir(os.path.dirname(path)))
    assert names == [os.path.basename(path) + suffix for suffix in ("", ".1", ".2", ".3")]
    sizes = [os.path.getsize(path + suffix) for suffix in (".1", ".2", ".3")]
    assert all(1800 < size <= 2000 for size in sizes)
    assert os.path.getsize(path) <= 2000
    kept = [line["seq"] for line in all_lines(path)]
    assert kept == list(range(kept[0], 201))
    assert {os.stat(path + suffix).st_mode & 0o777 for suffix in ("", ".1", ".2", ".3")} == {0o600}


async def test_numbers_go_on_after_a_restart(path: str, opened: Callable[..., Activity]) -> None:
    for round_ in range(3):
        activity = opened(max_bytes=1000)
        assert activity.last_seq == round_ * 20
        for _ in range(20):
            activity.record("x")
        activity.close()
    os.truncate(path, 0)
    last_of_older = lines(path + ".1")[-1]["seq"]
    assert opened().last_seq == last_of_older


@pytest.mark.parametrize(
    ("tail", "last"),
    [
        (b"", 3),
        (b'{"seq":4,"time":"2025', 3),
        (b'{"seq":4,"time":"t","event":"whole but for its newline"}', 4),
        (b"\x00" * 5000, 3),
        (b'{"seq":4}\n', 3),
        (b"[1,2]\nnonsense\n\n\xff\xfe\n", 3),
        (b"x" * 400_000, 3),
        (b"x" * 400_000 + b"\n", 3),
    ],
)
async def test_a_damaged_tail_is_passed_over_and_merged_with_nothing(
    path: str, opened: Callable[..., Activity], tail: bytes, last: int
) -> None:
    first = opened()
    for _ in range(3):
        first.record("x")
    first.close()
    with open(path, "ab") as file:
        file.write(tail)
    activity = opened()
    assert activity.last_seq == last
    assert activity.record("after").seq == last + 1
    await activity.flush()
    assert json.loads(Path(path).read_bytes().splitlines()[-1])["event"] == "after"
    with activity.subscribe(0) as subscription:
        seen: list[Item] = []
        while items := await subscription.stored():
            seen.extend(items)
    assert [getattr(item, "seq", item) for item in seen] == list(range(1, last + 2))


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


def test_a_full_disk_is_told_at_the_start(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
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


async def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


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


async def test_after_a_failed_fsync_nobody_is_told_that_it_is_on_the_disk(
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


async def test_close_writes_everything_and_what_comes_later_is_counted(
    path: str, opened: Callable[..., Activity]
) -> None:
    activity = opened()
    for _ in range(1000):
        activity.record("x")
    activity.close()
    activity.close()
    assert len(lines(path)) == 1000
    activity.record("late")
    assert activity.view().lost == 1
    assert await activity.settled() is False


async def test_no_generations_means_one_file(path: str, opened: Callable[..., Activity]) -> None:
    activity = opened(max_bytes=500, generations=0)
    for _ in range(50):
        activity.record("x")
    await activity.flush()
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]
    assert os.path.getsize(path) <= 500


def test_the_place_after_a_number_is_found_among_many(tmp_path: Path) -> None:
    file = tmp_path / "log"
    rows = [b'{"seq":%d,"event":"%s"}\n' % (seq * 2, b"e" * (seq % 90)) for seq in range(1, 20_000)]
    rows[7000] = b"damaged " * 40_000 + b"\n"
    file.write_bytes(b"".join(rows))
    descriptor = os.open(file, os.O_RDONLY)
    try:
        for since in (0, 1, 2, 777, 13_999, 14_003, 14_010, 30_000, 39_998, 50_000):
            rest = os.pread(descriptor, 1 << 30, start_of(descriptor, since)).splitlines()
            numbers = [json.loads(row)["seq"] for row in rest if row.startswith(b"{")]
            assert [n for n in numbers if n > since] == [n for n in range(2, 40_000, 2) if n > since and n != 14_002]
            assert len(rest) < 20_000 - since / 2 + 10_000
        found = last_record(descriptor)
    finally:
        os.close(descriptor)
    assert found is not None
    assert found.seq == 39_998


def test_a_replay_closed_while_a_thread_reads_is_closed_by_that_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "log"
    file.write_bytes(b'{"seq":1,"event":"x"}\n')
    descriptor = os.open(file, os.O_RDONLY)
    replay = Replay([descriptor], 0)
    real = os.pread

    def close_meanwhile(fd: int, size: int, offset: int) -> bytes:
        replay.close()
        return real(fd, size, offset)

    monkeypatch.setattr(os, "pread", close_meanwhile)
    assert [record.seq for record in replay.batch()] == [1]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert replay.batch() == []


async def test_reading_during_rotations_finds_every_file_once(path: str, opened: Callable[..., Activity]) -> None:
    activity = opened(max_bytes=300, generations=40)
    for _ in range(600):
        activity.record("x")
    await activity.flush()
    reading = True

    def read() -> list[list[int]]:
        """Until twenty rotations were met."""
        seen: list[list[int]] = []
        deadline = time.monotonic() + 60
        while len({numbers[0] for numbers in seen}) < 20:
            assert time.monotonic() < deadline
            with activity._log.replay(0) as replay:
                numbers: list[int] = []
                while batch := replay.batch():
                    numbers.extend(record.seq for record in batch)
                seen.append(numbers)
        return seen

    async def write() -> None:
        while reading:
            activity.record("x")
            await activity.flush()

    writer = asyncio.ensure_future(write())
    seen = await asyncio.to_thread(read)
    reading = False
    await writer
    for numbers in seen:
        assert numbers == list(range(numbers[0], numbers[-1] + 1))


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
